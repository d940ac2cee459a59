"""build --lrn: the plugin in real engines of TensorRT for RTX, and every wrong request with its way out."""

import dataclasses as dc
import functools
import json
import shutil

import pytest
from helpers import fake
from helpers.trt import library
from onnx import load

from dlcv_deploy import backends
from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import MissingBackend, SpecError
from dlcv_deploy.latency import measure
from dlcv_deploy.plugin.library import FILE, OPS

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

ALEXNET = ["build", "alexnet-cifar10"]
RTX = ["--target", "tensorrt_rtx"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Times are not what is looked at here."""
    quick = functools.partial(measure.latency, effort=measure.Effort(limit_s=0, rounds=3))
    monkeypatch.setattr(measure, "latency", lambda *args, effort, **more: quick(*args, **more))


@pytest.fixture
def library_file(plugin_library, tmp_path):
    (tmp_path / "built.so").write_bytes(plugin_library.data)
    return tmp_path / "built.so"


@pytest.fixture
def few(photos, tmp_path):
    """Two images; accuracy is not what is looked at, either."""
    (tmp_path / "few").mkdir()
    for name in ("000.png", "001.png"):
        shutil.copy(photos / name, tmp_path / "few")
    return tmp_path / "few"


def refused(result, code, *words):
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err
    assert "fix:" in result.err


# --- builds


def test_int8_with_the_plugin(run, need, library_file, plugin_library, few, tmp_path):
    need("tensorrt_rtx")
    words = [*ALEXNET, "--int8", "--lrn", "plugin", "--lrn-library", library_file, "--data", few, "--sm", "86,89"]
    words += [*RTX, "--target", "onnxruntime", "--allow-partial", "-o", tmp_path / "b.dlcv"]
    result = run(*words, "--json")
    assert result.code == 0, result.err
    rtx, ort = result.value["engines"]
    assert rtx["lrn"] == {
        "choice": "plugin",
        "lowered": ["lrn_1+max_pool_1", "lrn_2+max_pool_2"],
        "left_alone": [],
        "race": [],
    }
    turning = "Pad input_levels_pad, Mul input_levels_mul, Add input_levels_add"
    assert (rtx["notes"], ort["lrn"]) == ([f"what is not in INT8 is in FP16, but for {turning} in FP32"], None)
    assert rtx["audit"]["int8_share"] == 1
    assert [file["name"] for file in rtx["files"]] == ["model.rtx.engine", FILE]
    assert "lower" in [stage["name"] for stage in result.value["stages"]]

    graph = load(tmp_path / "b.dlcv/model.onnx").graph  # portable, and INT8 around LRN as the engine is
    made = {node.output[0]: node.op_type for node in graph.node}
    assert [made[node.input[0]] for node in graph.node if node.op_type == "LRN"] == ["DequantizeLinear"] * 2
    assert not set(OPS) & set(made.values())

    manifest = json.loads((tmp_path / "b.dlcv/manifest.json").read_text())
    assert manifest["engines"]["tensorrt_rtx"]["plugin"] == {
        "file": FILE,
        "sha256": plugin_library.sha256,
        "tensorrt": plugin_library.tensorrt,
        "architectures": list(plugin_library.architectures),
        "ops": list(OPS),
    }
    assert sha256((tmp_path / "b.dlcv/tensorrt_rtx" / FILE).read_bytes()) == plugin_library.sha256
    assert (
        "plugin   tensorrt_rtx needs libdlcv_lrn.so (DlcvLRN, DlcvLRNMaxPool)"
        in run("inspect", tmp_path / "b.dlcv").out
    )
    assert "LRN by the plugin's CUDA kernels: 2 nodes" in (tmp_path / "b.dlcv/report.md").read_text()

    again = run(*words)
    assert again.code == 0
    assert "is up to date" in again.err
    native = [word for word in words if word not in ("--lrn", "plugin", "--lrn-library", library_file)]
    refused(run(*native), 5, "was built from other inputs")
    library_file.write_bytes(plugin_library.data + b"\0")
    refused(run(*words), 5, "was built from other inputs")
    (tmp_path / "b.dlcv/tensorrt_rtx" / FILE).unlink()
    refused(run("inspect", tmp_path / "b.dlcv"), 5, "lacks tensorrt_rtx/libdlcv_lrn.so")


def test_fp16_with_the_plugin(run, need, library_file, few, tmp_path):
    need("tensorrt_rtx")
    words = [*ALEXNET, "--fp16", "--lrn", "plugin", "--lrn-library", library_file, "--data", few, *RTX]
    result = run(*words, "-o", tmp_path / "b.dlcv")
    assert result.code == 0, result.err
    assert "LRN by the plugin's CUDA kernels: 2 nodes (lrn_1+max_pool_1, lrn_2+max_pool_2)" in " ".join(
        result.out.split()
    )
    assert (tmp_path / "b.dlcv/tensorrt_rtx/model.rtx.engine").read_bytes().count(b"DlcvLRNMaxPool") >= 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["--fp32", "--fp16", "--int8"])
def test_a_race_on_a_gpu(run, need, library_file, few, tmp_path, precision):
    need("tensorrt_rtx")
    if reason := backends.get("tensorrt_rtx").ability().no_run:
        pytest.skip(f"needs gpu: {reason}")
    words = [*ALEXNET, precision, "--lrn", "race", "--lrn-library", library_file, "--data", few, *RTX]
    result = run(*words, "-o", tmp_path / "b.dlcv", "--json")
    assert result.code == 0, result.err
    (engine,) = result.value["engines"]
    times = {(row["name"], row["batch"]): row["p50_ms"] for row in engine["lrn"]["race"]}
    assert set(times) == {(name, batch) for name in ("native", "plugin") for batch in (1, 10)}
    ratio = times["plugin", 1] / times["native", 1] * times["plugin", 10] / times["native", 10]
    assert engine["lrn"]["choice"] == ("plugin" if ratio < 1 else "native")
    assert (FILE in [file["name"] for file in engine["files"]]) == (ratio < 1)


# --- the library where none is named


def test_the_library_is_built_on_demand_and_its_recipe_is_in_the_key(monkeypatch, tmp_path):
    from dlcv_deploy.lrn import Plugin
    from dlcv_deploy.plugin import build
    from dlcv_deploy.plugin.library import read_library
    from dlcv_deploy.spec import BuildSpec
    from dlcv_deploy.stages import Stages
    from dlcv_deploy.store import Store

    built, said = [], []

    def build_library(architectures):
        built.append(architectures)
        return read_library(library(), FILE)

    monkeypatch.setattr(build, "recipe", lambda architectures: {"nvcc": "13.0", "architectures": list(architectures)})
    monkeypatch.setattr(build, "build_library", build_library)
    spec = BuildSpec("alexnet", targets=("tensorrt_rtx",), lrn="plugin")
    for sm, architectures in (((), build.DEFAULT_ARCHITECTURES), ((89, 120), (89, 120))):
        plugin = Plugin.asked(dc.replace(spec, sm=sm), ("openvino", "tensorrt_rtx"))
        assert plugin.key() == {"nvcc": "13.0", "architectures": list(architectures)}
        for _ in range(2):
            assert plugin.library(Stages(Store(tmp_path), said.append)) == library()
        assert built.pop() == architectures
        assert built == []
    assert [line.split()[0] for line in said] == ["compiling", "plugin", "plugin"] * 2


def test_no_compiler_is_said_before_any_work_with_both_ways_out(run, monkeypatch, tmp_path):
    from dlcv_deploy.plugin import build

    def absent(architectures):
        raise MissingBackend("the plugin cannot be compiled here: no nvcc", fix="install nvcc")

    monkeypatch.setattr(build, "recipe", absent)
    result = run(*ALEXNET, "--lrn", "plugin", *RTX, "-o", tmp_path / "b")
    refused(result, 3, "no nvcc", "fix: install nvcc; or name a library built elsewhere: --lrn-library FILE")
    assert "export" not in result.err


# --- wrong requests


def test_the_plugin_is_tensorrts(run, tmp_path):
    result = run(*ALEXNET, "--lrn", "plugin", "--target", "onnxruntime", "-o", tmp_path / "b")
    refused(result, 2, "--lrn plugin is for TensorRT, and the target is onnxruntime", "add --target tensorrt_rtx")


def test_a_library_without_the_plugin(run, tmp_path):
    result = run(*ALEXNET, "--lrn-library", tmp_path / "x.so", *RTX, "-o", tmp_path / "b")
    refused(result, 2, "--lrn-library is the plugin's, and --lrn is native", "add --lrn plugin")


def test_a_network_without_lrn(run, need, tmp_path):
    need("tensorrt_rtx")
    (tmp_path / FILE).write_bytes(library())
    words = ["build", "resnet20", "--weights", "random", "--lrn", "plugin", "--lrn-library", tmp_path / FILE, *RTX]
    result = run(*words, "-o", tmp_path / "b")
    refused(
        result, 2, "--lrn plugin was asked for, and resnet20 has no local response normalization", "leave --lrn out"
    )
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, ("cannot be read: No such file", "dlcv-deploy plugin build -o FILE makes one")),
        (b"", ("is empty", "dlcv-deploy plugin build")),
        (b"\x7fELF" + bytes(99), ("is damaged",)),
        (library()[:64], ("is not the LRN plugin",)),
        (library(architectures=[100, 120]), ("100, 120 and not for 86", "plugin build --arch 86,100,120")),
    ],
    ids=["absent", "empty", "damaged", "other", "architectures"],
)  # fmt: skip
def test_a_library_that_does_not_serve_is_refused_before_any_work(run, need, tmp_path, data, words):
    need("tensorrt_rtx")
    if data is not None:
        (tmp_path / "x.so").write_bytes(data)
    result = run(
        *ALEXNET, "--lrn", "plugin", "--lrn-library", tmp_path / "x.so", *RTX, "--sm", "86", "-o", tmp_path / "b"
    )
    refused(result, 5, *words)
    assert "export" not in result.err


def test_a_race_needs_a_gpu(run, monkeypatch, tmp_path):
    fake.install(monkeypatch, name="tensorrt_rtx", no_run="no NVIDIA driver")
    result = run(*ALEXNET, "--lrn", "race", *RTX, "-o", tmp_path / "b")
    refused(result, 3, "times engines on a GPU, and tensorrt_rtx cannot run here: no NVIDIA driver", "--lrn native or")
    assert "export" not in result.err


def test_an_int8_race_decides_one_graph(monkeypatch, tmp_path):
    from dlcv_deploy.lrn import Plugin
    from dlcv_deploy.spec import BuildSpec

    both = ("tensorrt", "tensorrt_rtx")
    for name in both:
        fake.install(monkeypatch, name=name)
    (tmp_path / FILE).write_bytes(library())
    spec = BuildSpec("alexnet", "int8", lrn="race", lrn_library=tmp_path / FILE)
    with pytest.raises(SpecError, match=r"decides which graph the bundle holds.*\n  fix: build a bundle for each"):
        Plugin.asked(spec, both)
    assert Plugin.asked(spec, both[:1]).given.data == library()
    assert Plugin.asked(BuildSpec("alexnet", lrn="race", lrn_library=tmp_path / FILE), both).key() == sha256(library())


def test_what_the_plugin_cannot_take_is_told(tmp_path):
    from onnx import helper

    from dlcv_deploy.lrn import plugin_graph
    from dlcv_deploy.stages import Stages
    from dlcv_deploy.store import Store
    from dlcv_deploy.types import ExportedModel

    x, y = (helper.make_tensor_value_info(name, 1, ["N", 8, 4, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("LRN", ["x"], ["y"], "wide", size=17)], "g", [x], [y])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]).SerializeToString()
    model = ExportedModel("net", onnx, (), (), "")
    with pytest.raises(SpecError, match=r"the plugin can compute no LRN of net: wide: its window is 17 channels wide"):
        plugin_graph(model, Stages(Store(tmp_path), lambda line: None))


def test_every_name_is_one_of_three():
    from dlcv_deploy.spec import LRN, BuildSpec

    assert [BuildSpec("alexnet", lrn=name).lrn for name in LRN] == ["native", "plugin", "race"]
    with pytest.raises(SpecError, match="no LRN 'cudnn'\n  fix: one of native, plugin, race"):
        BuildSpec("alexnet", lrn="cudnn")
