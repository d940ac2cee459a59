"""The LRN plugin's library in both TensorRTs' hands: checked before they are asked, loaded once, and never passed over.

On a make-believe TensorRT first, then on TensorRT for RTX with the library as it is compiled.
"""

import dataclasses as dc
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.trt import LAYERS, OURS, FakeRegistry, FakeTensorRT, creator, library
from onnx import helper, numpy_helper

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda, _plugin, _trt_session, optional, tensorrt
from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import ArtifactError, ToolError
from dlcv_deploy.isolate import Answer
from dlcv_deploy.log import NativeLog
from dlcv_deploy.plugin.library import FILE, OPS
from dlcv_deploy.types import CompileOptions, Dim, Engine, PluginNeed

LIBRARY = library()
NEED = PluginNeed(FILE, sha256(LIBRARY), "10.14.1", (75, 86, 89), OPS)
LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 2.0}
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}
ONNX = {"float32": 1, "float16": 10}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Each test is a process that has loaded nothing."""
    monkeypatch.setattr(_plugin, "_registered", {})


def graph(dtype="float32"):
    """x (N, 8, 12, 12) through one node of each kind to y (N, 8, 6, 6), both float32; the nodes take ``dtype``."""
    x, y = (helper.make_tensor_value_info(n, 1, ["N", 8, s, s]) for n, s in (("x", 12), ("y", 6)))
    scales = {"input_scale": 0.05, "output_scale": 0.02} if dtype == "int8" else {}
    nodes = [
        helper.make_node("DlcvLRN", ["a"], ["b"], "lrn1", domain="dlcv", **LRN, **scales),
        helper.make_node("DlcvLRNMaxPool", ["b"], ["c"], "lrn2+pool2", domain="dlcv", **LRN, **POOL, **scales),
    ]
    constants = [numpy_helper.from_array(np.float32(0.05), "s"), numpy_helper.from_array(np.int8(0), "z")]
    if dtype == "int8":
        nodes.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]))
        nodes.append(helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]))
    else:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["a"], to=ONNX[dtype]))
        nodes.append(helper.make_node("Cast", ["c"], ["y"], to=1))
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("dlcv", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], constants if dtype == "int8" else []), opset_imports=opsets
    ).SerializeToString()


# --- compiling


@pytest.fixture
def compile_(monkeypatch):
    """Compile with a make-believe TensorRT on a make-believe SM 8.9, in this process."""

    def go(trt, plugin=LIBRARY):
        def here(entry, request, files, *, what, timeout_s):
            return Answer(*tensorrt.build(dict(request), files))

        monkeypatch.setattr(tensorrt, "isolated", here)
        monkeypatch.setattr(optional, "version_of", lambda *_: trt.__version__)
        monkeypatch.setattr(optional, "module", lambda name, extra: trt)
        monkeypatch.setattr(_cuda, "no_gpu", lambda: "")
        monkeypatch.setattr(_cuda, "capability", lambda: 89)
        return tensorrt.compile(graph(), CompileOptions(batch=Dim(1, 4, 8), plugin=plugin))

    return go


def two_layers(*faults, **more):
    return FakeTensorRT(*faults, layers=("cast", LAYERS.PLUGIN_V3, LAYERS.PLUGIN_V3, "cast"), **more)


def test_the_library_is_loaded_before_the_graph_is_parsed_and_goes_with_the_engine(compile_):
    trt = two_layers()
    engine = compile_(trt)
    names = [name for name, *_ in trt.said]
    assert names.index("load") < names.index("parse")
    assert trt.registry.loaded == [LIBRARY]
    assert engine.files == {"model.engine": b"engine", FILE: LIBRARY}
    assert engine.plugin == NEED


def test_an_engine_without_the_plugin_is_as_before(compile_):
    trt = FakeTensorRT()
    engine = compile_(trt, b"")
    assert (engine.files, engine.plugin, trt.registry.loaded) == ({"model.engine": b"engine"}, None, [])


@pytest.mark.parametrize("layers", [("lrn", LAYERS.PLUGIN_V3), ("lrn", "lrn"), (LAYERS.PLUGIN_V3,) * 3])
def test_a_node_that_became_another_layer_is_no_silent_fallback(compile_, layers):
    count = layers.count(LAYERS.PLUGIN_V3)
    with pytest.raises(ToolError, match=rf"TensorRT made {count} plugin layers of 2 plugin nodes\n  fix: .*native"):
        compile_(FakeTensorRT(layers=layers))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (library(architectures=[90, 120]), r"for the GPU architectures 90, 120 and not for 89\n.* --arch 89,90,120"),
        (library(tensorrt="11.1.0"), r"built against TensorRT 11\.1\.0, and this is TensorRT 10\n.*headers of"),
        (library(machine="aarch64"), r"was built for aarch64, and this processor is x86_64\n  fix: build it on this"),
        (LIBRARY[:50], r"libdlcv_lrn\.so is damaged: it is cut off"),
        (LIBRARY[:64], r"libdlcv_lrn\.so is not the LRN plugin"),
    ],
    ids=["architectures", "major", "processor", "cut", "other"],
)  # fmt: skip
def test_a_library_for_others_is_refused_before_tensorrt_is_asked(compile_, monkeypatch, data, message):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    trt = two_layers()
    with pytest.raises(ArtifactError, match=message):
        compile_(trt, data)
    assert trt.said == []


def test_only_what_attributes_int8_alone_has_are_not_warned_of(compile_, monkeypatch):
    def parser(network, logger):
        for name in ("input_scale", "output_scale", "size"):
            logger.log(SimpleNamespace(name="WARNING"), f"p.cpp:1: Attribute {name} not found in plugin node! Ensure")
        return SimpleNamespace(parse=lambda onnx: True)

    trt = two_layers()
    trt.OnnxParser = parser
    assert compile_(trt).notes == ("a warning", "p.cpp:1: Attribute size not found in plugin node! Ensure")


# --- the registry


def register(trt, data=LIBRARY):
    _plugin.register(trt, "TensorRT", data, NativeLog("trt"))


def test_a_library_is_loaded_once_in_a_process_and_for_each_tensorrt():
    trt, rtx = FakeTensorRT(), FakeTensorRT()
    rtx.__name__ = "tensorrt_rtx"
    for module in (trt, rtx, trt, rtx):
        register(module)
    assert (trt.registry.loaded, rtx.registry.loaded) == ([LIBRARY], [LIBRARY])


def test_another_build_of_it_is_refused():
    trt = FakeTensorRT()
    register(trt)
    with pytest.raises(
        ArtifactError, match=r"another build of the LRN plugin is loaded .*\n  fix: .*processes of their"
    ):
        register(trt, library(source="cd" * 32))
    register(trt)
    assert trt.registry.loaded == [LIBRARY]


def test_a_plugin_of_that_name_from_elsewhere_is_refused():
    trt = FakeTensorRT(registry=FakeRegistry(creator("DlcvLRNMaxPool", "7", "theirs")))
    for _ in range(2):
        with pytest.raises(ToolError, match="TensorRT has a plugin named DlcvLRNMaxPool already, which is not of this"):
            register(trt)
    assert trt.registry.loaded == []


@pytest.mark.parametrize(
    ("brings", "told"),
    [
        ((), "no plugin"),
        (OURS[:1], r"DlcvLRN \(version 1\)"),
        ((*OURS, creator("Third")), r"DlcvLRN \(version 1\), DlcvLRNMaxPool \(version 1\), Third \(version 1\)"),
        ((OURS[0], creator("DlcvLRNMaxPool", "2")), r"DlcvLRN \(version 1\), DlcvLRNMaxPool \(version 2\)"),
        ((OURS[0], creator("DlcvLRNMaxPool", namespace="x")), r"DlcvLRN \(version 1\), DlcvLRNMaxPool \(version 1\)"),
    ],
)
def test_a_library_with_other_plugins_is_refused_and_unloaded(brings, told):
    trt = FakeTensorRT(registry=FakeRegistry(brings=brings))
    for _ in range(2):
        with pytest.raises(ToolError, match=f"library brought {told} and not DlcvLRN and DlcvLRNMaxPool"):
            register(trt)
    assert [one.name for one in trt.registry.all_creators] == ["ROIAlign_TRT"]
    trt.registry.brings = list(OURS)
    register(trt)


def test_a_library_that_cannot_be_loaded_is_an_error_with_tensorrts_words():
    trt, log = FakeTensorRT(registry=FakeRegistry(refuses="yes")), NativeLog("trt")
    with pytest.raises(ToolError, match=r"TensorRT cannot load the LRN plugin's library, and does not say why"):
        register(trt)
    log.record("ERROR", "undefined symbol: _ZN8")
    words = r"library: two libraries .* \(undefined symbol: _ZN8\)\n  fix: dlcv-deploy plugin check"
    with pytest.raises(ToolError, match=words) as e:
        _plugin.register(trt, "TensorRT", LIBRARY, log)
    assert e.value.log == "undefined symbol: _ZN8"


# --- sessions


class Stop(Exception):
    """Where a make-believe runtime would go on to the GPU."""


CUDA = SimpleNamespace(current=nullcontext)


class FakeRuntime(FakeTensorRT):
    def Runtime(self, logger):
        def deserialize(plan):
            self.said.append(("deserialize", plan))
            raise Stop

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


ENGINE = Engine("tensorrt", "SM 8.9", "10.13", {"model.engine": b"plan", FILE: LIBRARY}, (), Dim(1, 2, 4), NEED)


@pytest.fixture
def load(monkeypatch):
    monkeypatch.setattr(_trt_session, "capability", lambda device: 89)

    def go(trt, engine=ENGINE, major=10):
        _trt_session.DeviceSession(trt, engine, "model.engine", "10.13", CUDA, major=major)

    return go


def test_a_session_loads_the_library_before_the_engine_and_once(load):
    trt = FakeRuntime()
    for _ in range(2):
        with pytest.raises(Stop):
            load(trt)
    assert trt.said == [("load", LIBRARY), ("deserialize", b"plan"), ("deserialize", b"plan")]


def test_a_session_without_plugin_loads_none(load):
    trt = FakeRuntime()
    with pytest.raises(Stop):
        load(trt, dc.replace(ENGINE, plugin=None))
    assert trt.said == [("deserialize", b"plan")]


def other(data):
    return dc.replace(ENGINE, files={**ENGINE.files, FILE: data}, plugin=dc.replace(NEED, sha256=sha256(data)))


@pytest.mark.parametrize(
    ("engine", "major", "message"),
    [
        (dc.replace(ENGINE, files={"model.engine": b"plan"}), 10, r"engine's file libdlcv_lrn\.so is missing"),
        (dc.replace(ENGINE, files={**ENGINE.files, FILE: LIBRARY + b"\0"}), 10, "is not the library that the"),
        (other(library(architectures=[75, 86, 90])), 10, None),  # code for 8.6 runs on 8.9
        (other(library(architectures=[90, 120])), 10, "for the GPU architectures 90, 120 and not for 89"),
        (ENGINE, 11, r"built against TensorRT 10\.14\.1, and this is TensorRT 11"),
        (ENGINE, None, None),
    ],
    ids=["missing", "altered", "older code", "architectures", "major", "any major"],
)  # fmt: skip
def test_what_a_session_needs_is_checked_before_tensorrt_is_asked(load, engine, major, message):
    trt = FakeRuntime()
    with pytest.raises(ArtifactError if message else Stop, match=message):
        load(trt, engine, major)
    assert bool(trt.said) == (message is None)


def test_each_tensorrt_says_which_headers_it_wants(monkeypatch):
    asked = []
    monkeypatch.setattr(_trt_session, "DeviceSession", lambda *args, major=None, **_: asked.append(major))
    monkeypatch.setattr(optional, "version_of", lambda *_: "10.13.0.35")
    monkeypatch.setattr(optional, "module", lambda name, extra: None)
    for thing, value in (("no_gpu", ""), ("no_binding", ""), ("capability", 89), ("device", None)):
        monkeypatch.setattr(_cuda, thing, lambda value=value: value)
    for name in ("tensorrt", "tensorrt_rtx"):
        backends.get(name).load(ENGINE)
    assert asked == [10, None]


# --- where TensorRT for RTX's parser looks


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A wheel with a library, and a folder for temporary ones."""
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs/libtensorrt_rtx.so.1").write_bytes(b"the library")
    (tmp_path / "temp").mkdir()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "libs")])
    monkeypatch.setattr(_plugin.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    return tmp_path


def test_the_parser_finds_the_wheels_library_under_its_name(wheel, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    with _plugin.parser_path() as env:
        folder = Path(env["LD_LIBRARY_PATH"])
        assert [path.name for path in folder.iterdir()] == ["libtensorrt_rtx.so"]
        assert (folder / "libtensorrt_rtx.so").read_bytes() == b"the library"
    assert list((wheel / "temp").iterdir()) == []


def test_it_comes_before_what_is_on_the_path_already(wheel, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/a:/opt/b")
    with _plugin.parser_path() as env:
        first, *rest = env["LD_LIBRARY_PATH"].split(":")
    assert (Path(first).parent, rest) == (wheel / "temp", ["/opt/a", "/opt/b"])


def test_a_library_that_was_not_installed_as_a_wheel_needs_nothing(wheel, monkeypatch):
    (wheel / "libs/libtensorrt_rtx.so.1").unlink()
    with _plugin.parser_path() as env:
        assert env == {}
    monkeypatch.setattr(_plugin.importlib.util, "find_spec", lambda name: None)
    with _plugin.parser_path() as env:
        assert env == {}


def test_no_room_for_it_is_an_error(wheel, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(wheel / "absent"))
    path = _plugin.parser_path()
    with pytest.raises(ToolError, match=r"no temporary folder can be made: .*absent.*\n  fix: set TMPDIR"):
        path.__enter__()


# --- the real library, on TensorRT for RTX


@pytest.fixture(scope="module")
def rtx(need):
    need("tensorrt_rtx")
    return backends.get("tensorrt_rtx")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_tensorrt_for_rtx_builds_engines_with_it(rtx, plugin_library, dtype):
    engine = rtx.compile(graph(dtype), CompileOptions(batch=Dim(1, 4, 8), sm=(86, 89), plugin=plugin_library.data))
    assert set(engine.files) == {"model.rtx.engine", FILE}
    assert engine.notes == ()
    assert engine.plugin.sha256 == plugin_library.sha256 == sha256(engine.files[FILE])
    assert b"DlcvLRNMaxPool" in engine.files["model.rtx.engine"]


def test_without_the_library_tensorrt_for_rtx_names_the_node(rtx):
    with pytest.raises(ToolError, match=r"refused node 'lrn1' \(DlcvLRN\), .*\(INVALID_NODE: .*Plugin not found"):
        rtx.compile(graph(), CompileOptions(batch=Dim(1, 4, 8)))


def test_a_library_without_code_is_refused_by_tensorrt_for_rtx(rtx):
    with pytest.raises(ToolError, match="TensorRT for RTX cannot load the LRN plugin's library"):
        rtx.compile(graph(), CompileOptions(batch=Dim(1, 4, 8), plugin=LIBRARY))


def test_nothing_is_left_in_the_temporary_folder(rtx, plugin_library, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ToolError):
        rtx.compile(b"junk", CompileOptions(plugin=plugin_library.data))
    assert list(tmp_path.iterdir()) == []


def test_in_one_process_the_library_is_loaded_once_and_no_other(rtx, plugin_library, tmp_path):
    """As two sessions do, and as somebody does who has loaded a plugin of that name before."""
    (tmp_path / FILE).write_bytes(plugin_library.data)
    code = f"""
import sys, tensorrt_rtx as trt
from pathlib import Path
from dlcv_deploy.backends import _plugin
from dlcv_deploy.errors import DeployError
from dlcv_deploy.log import NativeLog
data = Path({str(tmp_path / FILE)!r}).read_bytes()
names = lambda: sum(one.name.startswith("Dlcv") for one in trt.get_plugin_registry().all_creators)
if sys.argv[1] == "elsewhere":
    assert trt.get_plugin_registry().load_library({str(tmp_path / FILE)!r}) is not None
for bytes in (data, data, data + b"1"):
    try:
        _plugin.register(trt, "RTX", bytes, NativeLog("rtx"))
        print("loaded", names())
    except DeployError as e:
        print(type(e).__name__, e.what)
"""

    def said(how):
        return subprocess.check_output([sys.executable, "-c", code, how], text=True, env=dict(os.environ)).splitlines()

    loaded, again, another = said("ours")
    assert (loaded, again) == ("loaded 2", "loaded 2")
    assert another.startswith("ArtifactError another build of the LRN plugin is loaded in this process already")
    assert set(said("elsewhere")) == {"ToolError RTX has a plugin named DlcvLRN already, which is not of this library"}
