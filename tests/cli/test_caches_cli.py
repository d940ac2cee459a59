"""Calibration caches of TensorRT and ModelOpt, as a user calls for them."""

import json
import struct

import numpy as np
import onnx
import pytest

from dlcv_deploy.calibration.caches import read_trt_cache
from dlcv_deploy.calibration.table import CalibrationTable
from dlcv_deploy.graph.qdq import quantize

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from dlcv_deploy.export import from_proto
from dlcv_deploy.subject import graph_sha256

CALIBRATE = ("calibrate", "resnet20", "--weights", "random")
BLOCKS = [f"/layer{stage}/layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
NAMES = [
    *("images", "/conv1/Conv_output_0", "/relu/Relu_output_0"),
    *(f"{block}/{name}_output_0" for block in BLOCKS for name in ("relu/Relu", "relu_1/Relu")),
    *("/avgpool/GlobalAveragePool_output_0", "output"),
]
"""As an exporter named them whose network called its ReLUs as modules."""


def cache_of(names):
    lines = (f"{name}: {struct.pack('>f', (n + 1) / 128).hex()}\n" for n, name in enumerate(names))
    return "TRT-8601-EntropyCalibration2\n" + "".join(lines)


@pytest.fixture
def old(tmp_path):
    """A cache that TensorRT made of the same network, and what the one name means that is not certain."""
    (tmp_path / "r20.cache").write_text(cache_of(NAMES))
    (tmp_path / "names.json").write_text('{"images": "input"}')
    return tmp_path / "r20.cache"


def read(path):
    return CalibrationTable.from_json(path.read_bytes())


def test_a_cache_becomes_a_table_and_the_table_an_int8_graph(run, old, tmp_path):
    table = tmp_path / "t.json"
    words = [*CALIBRATE, "--from-trt-cache", old, "--trt-names", tmp_path / "names.json", "-o", table]
    done = run(*words, "--json")
    assert done.code == 0, done.err
    assert done.value["method"] == "trt-cache"
    assert done.value["images"] == 0
    assert done.value["tensors"] == 20
    assert done.value["matched"] == 22
    assert done.value["unmatched"] == ["output"]
    assert (
        "r20.cache: 22 of 23 names mean tensors of resnet20; 20 of the 20 ranges that INT8 needs are theirs" in done.err
    )
    assert "  not matched: output\n" in done.err
    made = read(table)
    assert made.samples == "scales of the TensorRT cache r20.cache (TRT-8601-EntropyCalibration2)"
    assert made.amax["input"] == 127 / 128
    assert made.amax["relu_1_out"] == 127 * 3 / 128
    assert made.amax["flatten_1_out"] == 127 * 22 / 128
    assert not made.corrections.equalization
    assert run("export", "resnet20", "--weights", "random", "-o", tmp_path / "r20.onnx").code == 0
    exported = from_proto("resnet20", onnx.load(tmp_path / "r20.onnx"), made.weights_sha256)
    assert graph_sha256(exported) == made.graph_sha256
    graph = onnx.load_model_from_string(quantize(exported, made.amax).model.onnx).graph
    scales = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith("_out_scale")}
    assert scales["relu_1_out_scale"] == np.float32(3 / 128)
    assert scales["flatten_1_out_scale"] == np.float32(22 / 128)


@pytest.mark.slow
def test_ranges_that_a_cache_lacks_are_named_or_measured(run, old, photos, tmp_path):
    table = tmp_path / "t.json"
    done = run(*CALIBRATE, "--from-trt-cache", old, "-o", table)
    assert done.code == 5
    assert "error: r20.cache has no range for 1 of the 20 tensors that need one: input (what the network" in done.err
    assert "names in it that mean no tensor: images, output" in done.err
    assert '--trt-names FILE.json, as {"images": "input"}' in done.err
    assert "or --calib DIR too" in done.err
    assert not table.exists()
    done = run(
        *CALIBRATE, "--from-trt-cache", old, "--calib", photos, "--calib-count", 8, "--method", "max", "-o", table
    )
    assert done.code == 0, done.err
    made = read(table)
    assert made.method == "trt-cache and max"
    assert made.images == 8
    assert made.samples.startswith(
        "scales of the TensorRT cache r20.cache (TRT-8601-EntropyCalibration2); input measured"
    )
    assert 0.5 < made.amax["input"] < 3
    assert made.amax["relu_1_out"] == 127 * 3 / 128
    assert set(made.statistics) <= {"input"}


@pytest.mark.slow
def test_a_table_goes_out_as_caches_and_comes_back(run, photos, tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    out = ["--to-trt-cache", tmp_path / "trt.cache", "--to-modelopt", tmp_path / "modelopt.cache"]
    images = ["--calib", photos, "--calib-count", 8, "--quality", "fast"]
    done = run(*CALIBRATE, *images, *out, "-o", one)
    assert done.code == 0, done.err
    cache = read_trt_cache((tmp_path / "trt.cache").read_bytes())
    made = read(one)
    assert cache.scales == {name: float(np.float32(amax / 127)) for name, amax in made.amax.items()}
    assert (tmp_path / "modelopt.cache").read_text() == (tmp_path / "trt.cache").read_text()
    done = run(*CALIBRATE, "--from-trt-cache", tmp_path / "trt.cache", "-o", two)
    assert done.code == 0, done.err
    assert "not matched" not in done.err
    assert {name: np.float32(amax / 127) for name, amax in read(two).amax.items()} == cache.scales


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "error: nothing is given to calibrate on\n  fix: --calib DIR"),
        (["--calib", "random", "--trt-names", "names.json"], 2, "fix: add --from-trt-cache FILE"),
        (
            ["--from-trt-cache", "r20.cache", "--quality", "best"],
            2,
            "--quality best says how to calibrate, and the cache",
        ),
        (["--from-trt-cache", "r20.cache", "--no-bias"], 2, "--no-bias says how to calibrate"),
        (["--from-trt-cache", "absent.cache"], 5, "absent.cache cannot be read: No such file"),
        (["--from-trt-cache", "names.json"], 5, "names.json is no calibration cache of TensorRT"),
        (["--from-trt-cache", "r20.cache", "--trt-names", "r20.cache"], 5, "r20.cache cannot be read: Expecting value"),
        (["--from-trt-cache", "r20.cache", "--trt-names", "other.json"], 5, "'data' is not in the cache"),
        (
            ["--from-trt-cache", "other.cache", "--calib", "random"],
            5,
            "no name in other.cache means a tensor of this network that needs a range; the first is '167'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(run, old, tmp_path, monkeypatch, words, code, said):
    (tmp_path / "other.json").write_text(json.dumps({"data": "input"}))
    (tmp_path / "other.cache").write_text(cache_of(["167", "168"]))
    monkeypatch.chdir(tmp_path)
    done = run(*CALIBRATE, *words, "-o", "t.json")
    assert done.code == code
    assert said in done.err
    assert not (tmp_path / "t.json").exists()
