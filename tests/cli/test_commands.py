"""Every command, as a user calls it, on a network with random weights."""

import json
import re

import numpy as np
import onnx
import pytest

from dlcv_deploy.bundle import open_bundle

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


def test_build_reports_what_it_did(built):
    path, report, said = built
    assert report["schema"] == 2
    assert report["precision"] == "int8"
    assert report["weights"]["trained"] is False
    assert report["calibration"]["images"] == 16
    assert report["calibration"]["method"] == "mse"
    assert [s["name"] for s in report["stages"]] == [
        "export",
        "calibrate",
        "quantize",
        "compile onnxruntime",
        "audit onnxruntime",
        "parity",
        "drift",
        "consistency",
        "latency",
    ]
    assert not any(stage["reused"] for stage in report["stages"][1:])  # another test may have exported it before
    assert str(path) in said


def test_a_build_measures_on_images_it_did_not_calibrate_on(built):
    one, ten = built[1]["parity"]
    assert one["crops"] == 1
    assert ten["crops"] == 10
    assert one["images"] == 24
    assert "not calibrated on" in one["source"]
    assert one["labelled"]


def test_a_build_times_the_engine_beside_the_original(built):
    rows = built[1]["latency"]["rows"]
    assert [(r["name"], r["batch"]) for r in rows] == [
        ("PyTorch fp32", 1),
        ("int8 on onnxruntime", 1),
        ("PyTorch fp32", 10),
        ("int8 on onnxruntime", 10),
    ]
    assert all(0 < r["quantiles"][0]["ms"] <= r["quantiles"][-1]["ms"] for r in rows)


def test_the_bundle_holds_an_int8_graph(built):
    bundle = open_bundle(built[0])
    graph = onnx.load_model_from_string(bundle.read("model.onnx")).graph
    ops = [node.op_type for node in graph.node]
    assert ops.count("Conv") == 19
    weights = {i.name: i for i in graph.initializer}
    dequantized = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights]
    assert len(dequantized) == 20
    assert all(weights[n.input[0]].data_type == onnx.TensorProto.INT8 for n in dequantized)
    assert bundle.manifest.engines["onnxruntime"]["files"] == {"model.onnx": "model.onnx"}
    assert len(bundle.read("labels.txt").decode().splitlines()) == 10


def test_random_weights_are_marked_everywhere(built, run):
    assert "RANDOM WEIGHTS" in (built[0] / "report.md").read_text()
    assert "UNTRAINED" in run("inspect", built[0]).out
    assert run("inspect", built[0], "--json").value["trained"] is False


def test_the_same_build_again_is_up_to_date(built, run, photos):
    words = ["build", "resnet20", "--int8", "--weights", "random", "--calib", photos, "--calib-count", "16"]
    again = run(*words, "--target", "onnxruntime", "--allow-partial", "-o", built[0], "--json")
    assert again.code == 0
    assert "up to date: every stage is reused" in again.err
    assert again.value == built[1]


def test_the_same_build_elsewhere_reuses_every_stage(built, run, photos, tmp_path):
    words = ["build", "resnet20", "--int8", "--weights", "random", "--calib", photos, "--calib-count", "16"]
    again = run(*words, "--target", "onnxruntime", "--allow-partial", "-o", tmp_path / "other.dlcv", "--json")
    assert again.code == 0, again.err
    assert all(stage["reused"] for stage in again.value["stages"])
    assert again.err.count("reused") == len(again.value["stages"]) == 9
    assert (tmp_path / "other.dlcv/model.onnx").read_bytes() == (built[0] / "model.onnx").read_bytes()


def test_another_build_does_not_overwrite(bundle, run):
    words = ["build", "resnet20", "--fp32", "--weights", "random", "--target", "onnxruntime", "-o", bundle]
    refused = run(*words)
    assert refused.code == 5
    assert "--force" in refused.err
    assert open_bundle(bundle).manifest.precision == "int8"
    assert run(*words, "--force").code == 0
    assert open_bundle(bundle).manifest.precision == "fp32"


def test_validate_on_labelled_images(built, run, photos):
    result = run("validate", built[0], "--data", photos, "--crops", "1", "--json")
    assert result.code == 0, result.err
    assert result.value["images"] == 40
    assert result.value["labelled"]
    assert [leg["name"] for leg in result.value["legs"]] == ["fp32 graph on onnxruntime", "int8 on onnxruntime"]
    assert result.value["failures"] == []


def test_the_gate_is_an_exit_code(built, run, photos, monkeypatch):
    assert run("validate", built[0], "--data", photos, "--crops", "1", "--max-drop", "100").code == 0
    from dlcv_deploy.parity import statistics

    monkeypatch.setattr(statistics, "percent", lambda part, whole: 7.0)
    failed = run("validate", built[0], "--data", photos, "--crops", "1", "--max-drop", "6.9")
    assert failed.code == 1
    assert "FAILED" in failed.out


def test_bench(built, run):
    result = run("bench", built[0], "--quick", "--time", "0.1", "--json")
    assert result.code == 0, result.err
    assert {row["batch"] for row in result.value["rows"]} == {1, 10}
    assert [(r["name"], r["against"], r["batch"]) for r in result.value["ratios"]] == [
        ("int8 on onnxruntime", "PyTorch fp32", batch) for batch in (1, 10)
    ]
    assert result.value["validity"]["facts"]["medians"]
    assert result.value["cold"] == []


def test_bench_starts_processes_of_its_own_for_first_answers(built, run, monkeypatch):
    from dlcv_deploy.latency import cold

    monkeypatch.setattr(cold, "_RUNS", 1)
    result = run("bench", built[0], "--batch", "2", "--time", "0", "--within", "50", "--json")
    assert result.code == 0, result.err
    assert {row["batch"] for row in result.value["rows"]} == {2}
    first, engine = result.value["cold"]
    assert (first["name"], engine["name"]) == ("PyTorch fp32", "int8 on onnxruntime")
    for found in (first, engine):
        assert found["not_run"] == ""
        assert min(found["import_ms"], found["load_ms"], found["first_ms"]) > 0
        assert found["memory_bytes"] > found["engine_bytes"]


@pytest.mark.parametrize("sizes", ["0", "1,x", "", "-1"])
def test_bench_refuses_what_is_no_batch_size(built, run, sizes):
    result = run("bench", built[0], f"--batch={sizes}")
    assert result.code == 2
    assert "write it as 1,10" in result.err


def test_inspect(built, run):
    result = run("inspect", built[0])
    assert result.code == 0
    for word in ("resnet20", "int8", "QuantizeLinear", "onnxruntime", "SHA-256"):
        assert word in result.out


def test_export_writes_onnx_that_agrees(run, tmp_path):
    result = run("export", "resnet20", "--weights", "random", "-o", tmp_path / "r.onnx", "--json")
    assert result.code == 0, result.err
    model = onnx.load(tmp_path / "r.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert result.value["inputs"] == [{"name": "input", "shape": [3, 32, 32], "dtype": "float32"}]


def test_export_half(run, tmp_path):
    assert run("export", "resnet20", "--weights", "random", "--fp16", "-o", tmp_path / "h.onnx").code == 0
    model = onnx.load(tmp_path / "h.onnx")
    kinds = {i.data_type for i in model.graph.initializer if onnx.numpy_helper.to_array(i).dtype.kind == "f"}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_calibrate_writes_a_table_that_build_takes(run, photos, tmp_path):
    table = tmp_path / "t.json"
    words = ["calibrate", "resnet20", "--weights", "random", "--calib", photos, "--method", "max", "-o", table]
    result = run(*words, "--json")
    assert result.code == 0, result.err
    amax = json.loads(table.read_text())["amax"]
    assert result.value["tensors"] == len(amax)
    assert np.isfinite(list(amax.values())).all()
    built = run(
        "build", "resnet20", "--int8", "--weights", "random", "--calib", table, "--target", "onnxruntime",
        "--allow-partial", "-o", tmp_path / "b.dlcv", "--json",
    )  # fmt: skip
    assert built.code == 0, built.err
    assert built.value["calibration"]["method"] == "max"


def test_a_table_of_other_weights_is_refused(run, built, tmp_path, akamaster):
    words = ["build", "resnet20", "--int8", "--weights", akamaster, "--calib", built[0] / "calibration.json"]
    result = run(*words, "--target", "onnxruntime", "-o", tmp_path / "b.dlcv")
    assert result.code == 5
    assert "does not belong to this network" in result.err
    assert not (tmp_path / "b.dlcv").exists()


@pytest.fixture
def akamaster(tmp_path):
    """Other weights of the same network, as their makers wrap them."""
    import torch

    from dlcv_deploy.models.resnet import CifarResNet

    torch.manual_seed(3)
    state = {f"module.{key}": value for key, value in CifarResNet(20).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.th")
    return tmp_path / "w.th"


def test_models_lists_every_network(run):
    value = run("models", "--json").value
    sets = {entry["name"]: [each["name"] for each in entry["weights"]] for entry in value}
    assert {"alexnet", "googlenet", "plain-34", "resnet1202"} <= set(sets)
    assert sets["resnet50"] == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert next(entry for entry in value if entry["name"] == "resnet1202")["arguments"] == {"depth": 1202}
    text = run("models").out
    assert all(re.search(rf"(?<![\w-]){name}(?![\w-])", text) for name in sets)
    assert re.search(r"^resnet20 +32x32 +10 +cifar10, bundled +91\.70 +Apache-2\.0$", text, re.M)
    assert re.search(r"^ +IMAGENET1K_V2, download\.pytorch\.org +80\.86 +BSD-3-Clause$", text, re.M)
    assert max(map(len, text.splitlines())) <= 100


def test_doctor_gives_a_reason_for_every_no(run):
    value = run("doctor", "--json").value
    text = run("doctor").out
    assert set(value["backends"]) == {"onnxruntime", "openvino", "tensorrt_rtx", "tensorrt"}
    for name, ability in value["backends"].items():
        for reason in (ability["no_compile"], ability["no_run"]):
            assert reason in text
        assert name in text
    assert value["can_export"]
