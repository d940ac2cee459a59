"""A network of the user's own, of no family in the catalogue, through the command line from another folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlcv_deploy.bundle import open_bundle

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

HERE = Path(__file__).parents[1] / "helpers/own"
BIRDS = ["wren", "robin", "crane", "heron", "crow", "swift", "owl", "finch", "stork", "gull"]
WORDS = ["--input", "3x32x32", "--mean", ".5,.5,.5", "--std", ".25,.25,.25", "--int8", "--outputs", "logits,features"]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Code, weights and labels as a user has them, in a folder with a blank in its name."""
    import torch

    from dlcv_deploy.models import catalogue, own
    from dlcv_deploy.spec import BuildSpec

    room = tmp_path_factory.mktemp("room")
    shutil.copytree(HERE, room / "my nets", ignore=shutil.ignore_patterns("__pycache__"))
    spec = BuildSpec("net.py:f", input_shape=(3, 32, 32))
    network = own.network(f"{room}/my nets/small.py:factory", own.preprocess(spec))
    torch.save({"state_dict": catalogue.build(network).state_dict()}, room / "my nets/w.pth")
    (room / "my nets/birds.txt").write_text("\n".join(BIRDS) + "\n\n")
    (room / "here").mkdir()
    return room


@pytest.fixture(scope="module")
def made(room, cache, photos):
    """Built once, with relative paths from a folder beside the code's."""
    nets = Path("../my nets")
    words = ["build", f"{nets}/small.py:factory", "--weights", nets / "w.pth", "--labels", nets / "birds.txt", *WORDS]
    words += ["--calib", photos, "--calib-count", "16", "--target", "onnxruntime", "--allow-partial", "--json"]
    line = [sys.executable, "-m", "dlcv_deploy.cli", *map(str, words)]
    env = {**os.environ, "DLCV_CACHE": str(cache)}
    done = subprocess.run(line, cwd=room / "here", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return room / "here/small-factory-int8.dlcv", json.loads(done.stdout), done.stderr


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the bundle, and what changes its manifest."""
    path = shutil.copytree(made[0], tmp_path / "copy.dlcv")

    def change(**values):
        document = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**document, **values}))
        return path

    return change


def test_the_engine_answers_like_the_original(made):
    legs = [leg for parity in made[1]["parity"] for leg in parity["legs"]]
    exact = [leg for leg in legs if leg["name"] == "fp32 graph on onnxruntime"]
    assert all(leg["agreement"] == 100 for leg in exact)
    assert all(leg["logit_sqnr_db"] > 20 for leg in legs)
    assert made[1]["warnings"] == []


def test_what_the_code_prints_is_talk(made):
    assert "imported []" in made[2]
    assert "made" in made[2].split()


def test_the_report_names_what_is_in_int8_and_gives_a_reason_for_the_rest(made):
    report = made[1]
    graph = onnx.load_model_from_string(open_bundle(made[0]).read("model.onnx")).graph
    ops = {node.name: node.op_type for node in graph.node}
    # a stem, a fire module of 3, an inverted block of 5 whose depthwise one stays in float, a grouped bottleneck of 3
    assert sorted(ops[name] for name in report["quantized"]) == ["Add"] * 2 + ["Conv"] * 11 + ["Gemm"]
    alone = {entry["op_type"] for entry in report["left_alone"]}
    assert {"HardSwish", "GlobalAveragePool", "Sigmoid", "Mul", "ReduceMean", "LayerNormalization", "Erf"} <= alone
    assert all(" " in entry["reason"] for entry in report["left_alone"])
    moving = {"Relu", "Clip", "MaxPool", "Concat", "Flatten", "Identity", "Pad", "QuantizeLinear", "DequantizeLinear"}
    named = {*report["quantized"], *(entry["node"] for entry in report["left_alone"])}
    assert {op for name, op in ops.items() if name not in named} <= moving


def test_the_bundle_knows_where_its_original_is(made, room, run):
    manifest = open_bundle(made[0]).manifest
    assert manifest.factory == f"{(room / 'my nets/small.py').resolve()}:factory"
    assert manifest.weights == str((room / "my nets/w.pth").resolve())
    assert [(t.name, t.shape) for t in manifest.outputs] == [("logits", (10,)), ("features", (32,))]
    assert (manifest.preprocess.mean, manifest.preprocess.std) == ((0.5,) * 3, (0.25,) * 3)
    assert open_bundle(made[0]).read("labels.txt").decode().split() == BIRDS
    said = run("inspect", made[0]).out
    assert manifest.factory in said
    assert "10 classes" in said


def test_validate_from_elsewhere(made, photos, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("validate", made[0], "--data", photos, "--crops", "1", "--count", "12", "--json")
    assert result.code == 0, result.err
    assert result.value["images"] == 12
    assert result.value["labelled"]


def test_folders_named_by_the_labels_are_classes(made, photos, run, tmp_path):
    for name in ("owl", "wren"):
        (tmp_path / "d" / name).mkdir(parents=True)
        shutil.copy(photos / "000.png", tmp_path / "d" / name / "a.png")
    result = run("validate", made[0], "--data", tmp_path / "d", "--crops", "1", "--json")
    assert result.code == 0, result.err
    assert result.value["labelled"]


def test_the_same_build_again_reuses_it(made, room, photos, run, monkeypatch):
    monkeypatch.chdir(room / "my nets")
    words = ["build", "small.py:factory", "--weights", "w.pth", "--labels", "birds.txt", *WORDS]
    words += ["--calib", photos, "--calib-count", "16", "--target", "onnxruntime", "--allow-partial", "-o", made[0]]
    again = run(*words)
    assert again.code == 0, again.err
    assert "up to date: every stage is reused" in again.err
    blocks = (room / "my nets/blocks.py").read_text()
    (room / "my nets/blocks.py").write_text(blocks + "# a change\n")
    changed = run(*words)
    (room / "my nets/blocks.py").write_text(blocks)
    assert changed.code == 5
    assert "was built from other inputs" in changed.err


def test_code_that_moved(copy, room, photos, run):
    path = copy(factory="/gone/small.py:factory")
    words = ["validate", path, "--data", photos, "--crops", "1", "--count", "8"]
    refused = run(*words)
    assert refused.code == 5
    assert "was built from /gone/small.py:factory, and there is no file /gone/small.py" in refused.err
    assert "fix: --model FILE.py:factory" in refused.err
    assert run(*words, "--model", room / "my nets/small.py:factory").code == 0


def test_code_that_changed(made, room, photos, run, tmp_path):
    shutil.copytree(room / "my nets", tmp_path / "nets")
    with (tmp_path / "nets/small.py").open("a") as file:
        file.write("# a change\n")
    words = ["validate", made[0], "--data", photos, "--crops", "1", "--count", "8"]
    refused = run(*words, "--model", tmp_path / "nets/small.py:factory")
    assert refused.code == 5
    assert "is not what small-factory-int8.dlcv was built from" in refused.err
    refused = run(*words, "--model", "resnet20")
    assert refused.code == 2
    assert "--model FILE.py:factory" in refused.err


def test_labels_of_the_wrong_length(room, run, tmp_path):
    (tmp_path / "nine.txt").write_text("\n".join(BIRDS[:9]))
    words = ["export", room / "my nets/small.py:factory", "--input", "3x32x32", "-o", tmp_path / "x.onnx"]
    refused = run(*words, "--labels", tmp_path / "nine.txt")
    assert refused.code == 2
    assert "nine.txt names 9 classes, and small-factory tells 10 apart" in refused.err
    refused = run(*words, "--labels", tmp_path / "none.txt")
    assert (refused.code, "none.txt cannot be read" in refused.err) == (5, True)
    (tmp_path / "hole.txt").write_text("wren\n\nowl\n")
    refused = run(*words, "--labels", tmp_path / "hole.txt")
    assert (refused.code, "line 2 is empty" in refused.err) == (5, True)


def test_answers_that_are_not_finite(room, run, tmp_path):
    words = ["export", room / "my nets/bad.py:Broken", "--input", "3x32x32", "-o", tmp_path / "x.onnx"]
    refused = run(*words)
    assert refused.code == 2
    assert "bad-Broken itself answers with NaN or infinity in logits" in refused.err
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(("name", "code"), [("raises", 2), ("ViewOne", 2), ("Branches", 4)])
def test_a_refusal_is_one_message_and_an_exit_code(room, run, tmp_path, name, code):
    refused = run("build", room / f"my nets/bad.py:{name}", "--input", "3x32x32", "-o", tmp_path / "b.dlcv")
    assert refused.code == code
    assert "Traceback" not in refused.err
    assert str(room / "my nets/bad.py") in refused.err
    assert "fix:" in refused.err
    assert not (tmp_path / "b.dlcv").exists()


@pytest.mark.parametrize("size", ["32", "3x32", "3x0x0", "axbxc", "3x-1x-1"])
def test_an_input_that_is_none(run, size):
    refused = run("export", "net.py:f", "--input", size, "-o", "x.onnx")
    assert refused.code == 2
    assert "write it as 3x224x224" in refused.err


def test_a_network_of_the_catalogue_with_other_classes(run, tmp_path, photos):
    (tmp_path / "three.txt").write_text("owl\nwren\ncrow\n")
    words = ["resnet20", "--labels", tmp_path / "three.txt", "-o"]
    refused = run("export", *words, tmp_path / "x.onnx")
    assert refused.code == 2
    assert "three.txt names 3 classes, and resnet20 tells 10 apart" in refused.err
    assert "--weights FILE with weights of 3 classes" in refused.err
    done = run("export", *words, tmp_path / "x.onnx", "--weights", "random", "--json")
    assert done.code == 0, done.err
    assert done.value["outputs"] == [{"name": "logits", "shape": [3], "dtype": "float32"}]
