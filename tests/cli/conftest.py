import json
import shutil
import sys

import pytest

from dlcv_deploy import cli


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def value(self):
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line in this process: exit code, stdout and stderr, as a shell sees them."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["dlcv-deploy", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    """All tests of the command line share one cache, as a user's calls do; the machine's own is left alone."""
    monkeypatch.setenv("DLCV_CACHE", str(cache))


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Forty small images, drawn, with labels, in a folder."""
    from PIL import Image

    from dlcv_deploy.calibration.samples import drawn

    folder = tmp_path_factory.mktemp("photos")
    samples = drawn(40, 32)
    rows = ["file,label"]
    for i in range(len(samples)):
        Image.fromarray(samples.image(i)).save(folder / f"{i:03}.png")
        rows.append(f"{i:03}.png,{i % 10}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory, cache, photos):
    """A ResNet-20 with random weights, calibrated on the photos, for ONNX Runtime; built once."""
    import os
    import subprocess

    path = tmp_path_factory.mktemp("built") / "r20.dlcv"
    words = ["build", "resnet20", "--int8", "--weights", "random", "--calib", photos, "--calib-count", "16"]
    command = [
        sys.executable,
        "-m",
        "dlcv_deploy.cli",
        *words,
        "--target",
        "onnxruntime",
        "--allow-partial",
        "-o",
        path,
        "--json",
    ]
    env = {**os.environ, "DLCV_CACHE": str(cache)}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout), done.stderr


@pytest.fixture
def bundle(built, tmp_path):
    """A copy of the built bundle, to spoil."""
    shutil.copytree(built[0], tmp_path / "copy.dlcv")
    return tmp_path / "copy.dlcv"
