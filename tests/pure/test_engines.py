"""The compile stage: one engine for one graph, one set of options and one plugin library, and all of it comes back."""

import dataclasses as dc

import pytest
from helpers.trt import library

from dlcv_deploy import backends
from dlcv_deploy.backends import _plugin
from dlcv_deploy.engines import TIMING_CACHE, compiled, identity
from dlcv_deploy.plugin.library import FILE, read_library
from dlcv_deploy.stages import Stages
from dlcv_deploy.store import Store
from dlcv_deploy.types import Ability, CompileOptions, Dim, Engine

OPTIONS = CompileOptions(batch=Dim(1, 2, 4), sm=(86,))


class Backend:
    """Engines that hold their graph; counts them."""

    device, made = "SM 8.6", 0

    def ability(self):
        return Ability("10.13", "", "no GPU", self.device)

    def compile(self, onnx, options):
        self.made += 1
        files = {"e": onnx, **({TIMING_CACHE: b"times"} if options.timing_cache else {})}
        engine = Engine("tensorrt", "SM 8.6", "10.13", files, ("a note",), options.batch)
        return _plugin.calling(engine, read_library(options.plugin, FILE)) if options.plugin else engine


@pytest.fixture
def backend(monkeypatch):
    made = Backend()
    monkeypatch.setattr(backends, "get", lambda name: made)
    return made


@pytest.fixture
def compile_(backend, tmp_path):
    def go(onnx=b"graph", **changes):
        stages = Stages(Store(tmp_path), lambda line: None)
        engine = compiled("tensorrt", onnx, dc.replace(OPTIONS, **changes), stages)
        return engine, stages.times[0].reused

    return go


@pytest.mark.parametrize("plugin", [b"", library()], ids=["native", "plugin"])
def test_an_engine_comes_back_from_the_store_as_it_was(backend, compile_, plugin):
    first, _ = compile_(plugin=plugin)
    again, reused = compile_(plugin=plugin)
    assert (again, reused, backend.made) == (first, True, 1)
    assert first == backend.compile(b"graph", dc.replace(OPTIONS, plugin=plugin))
    assert (first.plugin is None) == (plugin == b"")


@pytest.mark.parametrize(
    "changes",
    [
        {"onnx": b"other"},
        {"sm": (89,)},
        {"plugin": b""},
        {"plugin": library(source="cd" * 32)},
        {"batch": Dim(1, 1, 4)},
    ],
    ids=["graph", "architecture", "without plugin", "another library", "batch"],
)
def test_it_is_of_one_graph_one_request_and_one_library(compile_, changes):
    compile_(plugin=library())
    engine, reused = compile_(**{"plugin": library(), **changes})
    assert not reused
    library_used = changes.get("plugin", library())
    assert engine.files.get(FILE, b"") == library_used


def test_it_is_of_one_gpu_too(backend, compile_):
    compile_()
    backend.device = "SM 8.9"
    assert not compile_()[1]


def test_the_timing_cache_is_written_to_its_place_and_is_no_part_of_the_engine(compile_, tmp_path):
    engine, _ = compile_(timing_cache=str(tmp_path / "timing.cache"))
    assert (tmp_path / "timing.cache").read_bytes() == b"times"
    assert list(engine.files) == ["e"]
    assert compile_(timing_cache=str(tmp_path / "elsewhere"))[1]


def test_engines_with_different_libraries_are_different(compile_):
    engines = [compile_(plugin=plugin)[0] for plugin in (b"", library(), library(source="cd" * 32))]
    assert len({str(identity((engine,))) for engine in engines}) == 3
