"""The runtime in a new environment, with NumPy, Pillow and one backend's package, and nothing else."""

import json
import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

import dlcv_deploy

ROOT = Path(dlcv_deploy.__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns("__pycache__", "weights", "cpp", "csrc")
OURS = {"dlcv_deploy": "dlcv_deploy", "calibration": "dlcv_deploy/calibration", "models": "dlcv_deploy/models"}
OTHERS = ("torch", "onnx", "click", "rich", "safetensors", "google.protobuf", "cuda", "tensorrt", "tensorrt_rtx")

PROGRAM = """
import importlib.util, json, sys
import numpy as np
import dlcv_deploy.runtime
lean = [name for name in ("PIL", "openvino", "onnxruntime", "cuda") if name in sys.modules]
from dlcv_deploy.runtime import Engine
path, backend, photograph, *others = sys.argv[1:]
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
with Engine.load(path) as engine:
    x = engine.preprocess(photograph, crops=10)
    rows = engine.run(np.concatenate([x, x]))["y"].shape
    best = engine.classify([photograph] * 3, crops=10)
refused = []
for call in (lambda: Engine.load(path, backend="tensorrt_rtx"), lambda: Engine.load(photograph), lambda: engine.run(x)):
    try:
        call()
    except Exception as e:
        refused.append(f"{type(e).__name__}: {e}")
engine = Engine.load(path, backend=backend)
try:
    engine._session._infer([x[:, :2]])  # what the runtime itself refuses
except Exception as e:
    refused.append(type(e).__name__)
loaded = [name for name in sys.modules if name.split(".")[0] in others]
print(json.dumps({"rows": rows, "best": [[p.label for p in row] for row in best], "refused": refused, "lean": lean,
                  "there": [name for name in others if there(name)], "loaded": loaded}))
"""


def link(distribution, site):
    """An installed package in another environment."""
    found = metadata.distribution(distribution)
    for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
        (site / top).symlink_to(Path(str(found.locate_file(top))))


def new_environment(folder):
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    return folder / "bin" / "python", site


def answers(python, bundle, backend, photograph):
    command = [python, "-I", "-W", "error", "-c", PROGRAM, bundle, backend, photograph, *OTHERS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def check(found, bundle, backend, photograph):
    assert found["there"] == found["loaded"] == found["lean"] == []
    assert found["rows"] == [20, 5]
    assert [len(row) for row in found["best"]] == [5, 5, 5]
    none, other, closed, *failed = found["refused"]
    assert none.startswith("SpecError: the bundle holds no engine for tensorrt_rtx")
    assert other.startswith(f"ArtifactError: {photograph} is no bundle")
    assert closed.startswith("SpecError: the engine is closed")
    assert failed == ["ToolError"]
    here = answers(sys.executable, bundle, backend, photograph)
    assert found["best"] == here["best"]


@pytest.fixture
def photograph(tmp_path):
    from PIL import Image

    Image.effect_mandelbrot((30, 20), (-2, -1.5, 1, 1.5), 100).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def test_nothing_else_is_needed(cpu_bundle, tmp_path, photograph):
    """Its package is put there file by file: what a wheel holds is tested with the wheel."""
    backend = cpu_bundle.stem
    python, site = new_environment(tmp_path / "alone")
    for folder, place in OURS.items():
        shutil.copytree(ROOT / folder, site / place, ignore=LEFT_OUT)
    for distribution in ("numpy", "pillow", backend):
        link(distribution, site)
    check(answers(python, cpu_bundle, backend, photograph), cpu_bundle, backend, photograph)


@pytest.mark.slow
def test_pip_installs_it_so(cpu_bundle, tmp_path, photograph):
    backend = cpu_bundle.stem
    python, site = new_environment(tmp_path / "alone")
    packages = [f"{name}=={metadata.version(name)}" for name in ("numpy", "pillow", backend)]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, *packages, str(ROOT)], check=True, capture_output=True)
    check(answers(python, cpu_bundle, backend, photograph), cpu_bundle, backend, photograph)


def test_the_example_answers(cpu_bundle, photograph):
    script = ROOT / "examples" / "python" / "classify.py"

    def call(*arguments):
        command = [sys.executable, "-W", "error", script, *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)

    done = call(cpu_bundle, photograph, photograph, "--crops", "10", "--top", "2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == lines[3] == str(photograph)
    assert all(re.fullmatch(r" +\d+\.\d\d%  (ant|bee|cat|dog|elk)", line) for line in (*lines[1:3], *lines[4:6]))
    assert re.fullmatch(rf"net fp32 on {cpu_bundle.stem}: \d+\.\d ms an image, decoding included", lines[6])
    for wrong in ((cpu_bundle, "nowhere.jpg"), ("nowhere.dlcv", photograph)):
        done = call(*wrong)
        assert done.returncode == 5
        assert re.fullmatch(r"error: .*nowhere.*\n  fix: .+\n", done.stderr)
