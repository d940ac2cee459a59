"""Engines that answer with more than the logits, from the command line to the report."""

import json
import re

import numpy as np
import onnx
import pytest

from dlcv_deploy import backends
from dlcv_deploy.bundle import MANIFEST, open_bundle
from dlcv_deploy.graph.modules import modules
from dlcv_deploy.parity.crops import to_input
from dlcv_deploy.types import Preprocess

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

ENGINES = ("int8 on openvino", "int8 on onnxruntime")
WORDS = (
    "build",
    "resnet20",
    "--int8",
    "--allow-partial",
    "--outputs",
    "logits,features",
    "--target",
    "openvino",
    "--target",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return {}


@pytest.fixture
def several(run, photos, made, need, tmp_path_factory):
    """The bundled ResNet-20 with its bundled table, which was measured on the graph without features; built once."""
    need("openvino")
    if not made:
        path = tmp_path_factory.mktemp("several") / "r20.dlcv"
        result = run(*WORDS, "onnxruntime", "--data", photos, "-o", path, "--json")
        assert result.code == 0, result.err
        made.update(path=path, report=result.value, err=result.err)
    return made


def test_the_bundled_table_serves_a_graph_with_features(several):
    assert several["report"]["weights"]["trained"]
    assert several["report"]["calibration"]["source"] == "1024 of 50000 CIFAR-10 train images"
    assert "calibrate" not in [stage["name"] for stage in several["report"]["stages"]]
    bundle = open_bundle(several["path"])
    assert [(spec.name, spec.shape, spec.dtype) for spec in bundle.manifest.outputs] == [
        ("logits", (10,), "float32"),
        ("features", (64,), "float32"),
    ]


def test_the_report_compares_the_features(several):
    one, ten = several["report"]["parity"]
    assert [leg["name"] for leg in one["legs"]] == ["fp32 graph on onnxruntime", *ENGINES]
    for leg in one["legs"]:
        (features,) = leg["outputs"]
        exact = leg["name"].startswith("fp32")
        assert features["name"] == "features"
        assert features["cosine_mean"] >= features["cosine_min"] > (0.999999 if exact else 0.97)
        assert 0 < features["error_percent"] < (0.01 if exact else 20)
        assert features["neighbours_of"] == 40
        assert features["neighbours_percent"] == 100 if exact else 80 < features["neighbours_percent"] <= 100
        assert features["non_finite"] == 0
    assert all(leg["outputs"] == [] for leg in ten["legs"])
    page = (several["path"] / "report.md").read_text()
    assert page.count("| int8 on openvino | features |") == 1


def test_engines_answer_alike(several):
    bundle, pre = open_bundle(several["path"]), Preprocess(32, 40, "pad", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    pixels = to_input(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8), pre)
    answers = []
    for name in ("openvino", "onnxruntime"):
        with backends.get(name).load(bundle.engine(name)) as session:
            answers.append(session.run({"input": pixels}))
    one, other = (answer["features"] for answer in answers)
    assert one.dtype == np.float32
    assert np.abs(one - other).max() < 0.1 * np.abs(one).max()


def test_validate_compares_the_centre_crop_of_ten(several, run, photos):
    result = run("validate", several["path"], "--data", photos, "--target", "openvino", "--json")
    assert result.code == 0, result.err
    (features,) = next(leg for leg in result.value["legs"] if leg["name"] == ENGINES[0])["outputs"]
    (built,) = next(leg for leg in several["report"]["parity"][0]["legs"] if leg["name"] == ENGINES[0])["outputs"]
    for name in ("cosine_mean", "cosine_min", "error_percent", "neighbours_percent"):
        assert features[name] == pytest.approx(built[name], rel=1e-3)


def test_validate_shows_it_in_words(several, run, photos):
    result = run("validate", several["path"], "--data", photos, "--crops", "1", "--count", "12", "--target", "openvino")
    assert result.code == 0, result.err
    assert "the share of the original's five nearest other images" in " ".join(result.out.split())
    (row,) = [line for line in result.out.splitlines() if re.match(r"int8 on openvino +features ", line)]
    assert re.search(r" 0\.9\d{5} +0\.9\d{5} ", row)


def test_validate_of_a_bundle_whose_engine_lacks_an_output(bundle, run, photos):
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["outputs"].append({"name": "features", "shape": [64], "dtype": "float32"})
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    result = run("validate", bundle, "--data", photos, "--crops", "1")
    assert result.code == 2
    assert "int8 on onnxruntime lacks the output 'features'; it answers with logits" in result.err
    assert "fix: build it again, with --outputs logits,features" in result.err


def test_a_half_graph_answers_in_float32(run, tmp_path):
    words = ["export", "resnet20", "--weights", "random", "--fp16", "--outputs", "features", "-o", tmp_path / "h.onnx"]
    result = run(*words, "--json")
    assert result.code == 0, result.err
    assert [(o["name"], o["dtype"]) for o in result.value["outputs"]] == [
        ("logits", "float32"),
        ("features", "float32"),
    ]
    model = onnx.load(tmp_path / "h.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node if node.output[0] in ("logits", "features")] == ["Cast"] * 2
    found = modules(model)
    assert [found[f"conv_{n}"] for n in (1, 2, 19)] == ["conv1", "layer1.0.conv1", "layer3.2.conv2"]
    assert found["gemm_1"] == "linear"
    assert not any(name.startswith("net") for name in found.values())


@pytest.mark.parametrize(
    ("network", "outputs", "message"),
    [
        ("resnet20", "logits,feature", "no output of resnet20 'feature'\n  fix: did you mean features?"),
        ("resnet20", "c2", "no output of resnet20 'c2'\n  fix: one of logits, features"),
        ("resnet18", "c6", "no output of resnet18 'c6'\n  fix: one of logits, features, c2, c3, c4, c5"),
    ],
)
def test_an_output_that_the_network_lacks_is_refused_before_any_work(run, tmp_path, network, outputs, message):
    result = run("build", network, "--weights", "random", "--outputs", outputs, "-o", tmp_path / "b.dlcv")
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "b.dlcv").exists()
