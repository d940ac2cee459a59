"""The main job with the bundled, trained ResNet-20: as the README shows it, and on real labelled images."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("room")


def shell(words, room, cache, **env):
    """One command as a newcomer types it, in an empty folder; without the data sets of this machine."""
    inherited = {name: value for name, value in os.environ.items() if name != "DLCV_DATA"}
    line = [sys.executable, "-m", "dlcv_deploy.cli", *map(str, words)]
    env = {**inherited, "DLCV_CACHE": str(cache), **env}
    return subprocess.run(line, cwd=room, env=env, capture_output=True, text=True, timeout=600)


def test_the_readmes_commands_on_the_bundled_network(room, cache):
    """build, bench and report to the letter; the build needs no images, for a table comes with the weights."""
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"^dlcv-deploy ((?:build resnet20 --int8|bench resnet20-int8.dlcv|report)[^\n]*)$", text, re.M)
    lines = [line for line in shown if not re.search(r"--(weights|batch|also|full)", line)]
    assert [line.split()[0] for line in lines] == ["build", "bench", "report"]
    for line in lines:
        done = shell(line.split(), room, cache)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    report = json.loads((room / "resnet20-int8.dlcv/report.json").read_text())
    assert report["weights"]["trained"]
    assert report["calibration"]["random"] is False
    assert all("drawn images (not photographs)" in parity["source"] for parity in report["parity"])
    assert all(leg["agreement"] > 90 for parity in report["parity"] for leg in parity["legs"])


def accuracy(bundle, cifar10_dir, cache, count, crops):
    words = ["validate", bundle, "--data", "cifar10", "--crops", crops, "--count", count, "--json"]
    done = shell(words, bundle.parent, cache, DLCV_DATA=str(cifar10_dir.parent))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def int8(room, cache, need):
    need("openvino")
    path = room / "both.dlcv"
    words = ["build", "resnet20", "--int8", "--target", "openvino", "--target", "onnxruntime"]
    words += ["--allow-partial", "-o", path]
    done = shell(words, room, cache)
    assert done.returncode == 0, done.stderr
    return path


def test_int8_on_real_images(int8, cifar10_dir, cache):
    def kept():
        return set((cache / "stages").glob("answers/*"))

    before = kept()
    report = accuracy(int8, cifar10_dir, cache, 1000, 1)
    assert report["top1"] > 89
    graph, fast, slow = (leg["name"] for leg in report["legs"])
    assert (graph, fast, slow) == ("fp32 graph on onnxruntime", "int8 on openvino", "int8 on onnxruntime")
    assert [leg["step"]["previous"] for leg in report["legs"]] == ["PyTorch fp32", slow, graph]
    for leg in report["legs"]:
        assert leg["agreement"] >= 98
        loss = leg["losses"][0]
        assert abs(loss["drop"]) <= 1.0
        assert loss["low"] < loss["drop"] < loss["high"]
    answers = kept()
    assert len(answers - before) == 8  # two chunks of four sessions
    assert accuracy(int8, cifar10_dir, cache, 1000, 1) == report
    assert kept() == answers


@pytest.mark.slow
@pytest.mark.parametrize("crops", [1, 10])
def test_int8_on_all_test_images(int8, cifar10_dir, cache, crops):
    report = accuracy(int8, cifar10_dir, cache, 10_000, crops)
    assert report["top1"] >= 91.0
    for leg in report["legs"]:
        assert leg["losses"][0]["drop"] <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "network", "top1"), [("resnet20", "resnet20", 91.73), ("resnet32", "resnet32", 92.63)]
)
def test_checkpoints_of_others(room, cache, need, cifar10_dir, file, network, top1):
    need("checkpoints")
    (weights,) = (cifar10_dir.parent / "checkpoints/akamaster").glob(f"{file}-*.th")
    path = room / f"{network}-fp32.dlcv"
    normal = ["--mean", ".485,.456,.406", "--std", ".229,.224,.225"]
    done = shell(["build", network, "--weights", weights, *normal, "--target", "onnxruntime", "-o", path], room, cache)
    assert done.returncode == 0, done.stderr
    report = accuracy(path, cifar10_dir, cache, 10_000, 1)
    assert report["top1"] == pytest.approx(top1)
    assert report["legs"][0]["top1"] == pytest.approx(top1)


@pytest.mark.slow
def test_the_readmes_two_commands_in_a_clean_clone(tmp_path):
    """make demo and make test, in a new HOME and an environment that knows nothing but how to reach packages."""
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    (tmp_path / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8", **kept}
    for command in ("make demo", "make test"):
        done = subprocess.run(command.split(), cwd=tmp_path / "clone", env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert (tmp_path / "clone/build/resnet20-int8.dlcv/report.md").is_file()
