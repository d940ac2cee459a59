"""What is OpenVINO's own: its files, its precision and its telemetry."""

import dataclasses as dc
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.errors import ToolError
from dlcv_deploy.types import CompileOptions


@pytest.fixture(scope="module", autouse=True)
def _openvino(need):
    need("openvino")


def test_importing_it_reports_to_nobody(tmp_path):
    """Imported as it comes, it makes ``~/intel/openvino_ga_cid`` and posts to Google Analytics."""
    code = (
        "import socket, sys, urllib.request, multiprocessing\n"
        "def no(*a, **k): raise SystemExit('phoned home')\n"
        "urllib.request.urlopen = socket.getaddrinfo = multiprocessing.Process.start = no\n"
        "from dlcv_deploy.backends import openvino\n"
        "ov = openvino._openvino(); ov.Core()\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "import openvino_telemetry"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run([sys.executable, "-c", code], env={**env, "HOME": str(tmp_path)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_signal_after_several_sessions_is_survived():
    """Each core of OpenVINO 2026.4 leaves the one before's stack for signal handlers behind, which may be gone."""
    code = (
        "import os, signal\n"
        "from dlcv_deploy import backends\n"
        "from dlcv_deploy.types import CompileOptions\n"
        "from helpers import models\n"
        "backend = backends.get('openvino')\n"
        "engine = backend.compile(models.linear(), CompileOptions())\n"
        "held = [backend.load(engine) for _ in range(3)]\n"
        "while held: held.pop(0).close()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard', flush=True))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_files_are_those_that_benchmark_app_reads():
    engine = backends.get("openvino").compile(models.net(), CompileOptions())
    assert list(engine.files) == ["model.xml", "model.bin"]
    root = ET.fromstring(engine.files["model.xml"])
    assert root.tag == "net"
    kinds = {port.get("precision") for port in root.iter("port")} - {None}
    assert "FP32" in kinds
    assert "FP16" not in kinds
    assert len(engine.files["model.bin"]) >= 4 * (8 * 3 * 9 + 8 + 8 * 8 * 9 + 8 * 5)


def test_fp32_means_fp32():
    """Its own default on CPUs with bf16 is bf16, which errs a hundred times more than this."""
    backend, x = backends.get("openvino"), {"x": models.images(8)}
    got = backend.load(backend.compile(models.net(), CompileOptions())).run(x)["y"]
    np.testing.assert_allclose(got, models.reference(models.net(), x)["y"], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("after", "pairs"), [("", False), ("Relu", False), ("", True)])
def test_an_int8_concat_keeps_its_steps(after, pairs):
    """OpenVINO 2026.4 rounds what an int8 Concat joins to whole numbers, unless ``graph.guard`` keeps it from it."""
    backend, x = backends.get("openvino"), {"x": models.images(8)}
    onnx = models.concat_int8(after, pairs=pairs)
    got, want = backend.load(backend.compile(onnx, CompileOptions())).run(x)["y"], models.reference(onnx, x)["y"]
    assert np.abs(got - want).max() < 1.01 * 2 / 127  # one step, where a value lies between two
    assert len(np.unique(np.round(want, 4))) > 60


class FakeCore:
    """A CPU with given abilities that takes a hint, or its own default."""

    def __init__(self, abilities, follows=True):
        self.abilities, self.follows = abilities, follows

    def get_property(self, device, name):
        return self.abilities

    def compile_model(self, model, device, config):
        hint = config["INFERENCE_PRECISION_HINT"] if self.follows else "bf16"
        return type("Compiled", (), {"get_property": lambda s, n: type("T", (), {"to_string": lambda s: hint})()})()


@pytest.mark.parametrize(
    ("build", "abilities", "precision"),
    [
        (models.net, ["FP32", "BF16", "FP16"], "f32"),
        (models.net_fp16, ["FP32", "BF16"], "f32"),
        (models.net_fp16, ["FP32", "BF16", "FP16"], "f16"),
        (models.net_int8, ["FP32", "INT8", "FP16"], "f32"),
    ],
)
def test_the_precision_is_the_graphs(monkeypatch, build, abilities, precision):
    module = backends.get("openvino")
    ov = module._openvino()
    model = module._core().read_model(build())
    monkeypatch.setattr(module, "_core", lambda: FakeCore(abilities))
    assert module._compiled(ov, model).get_property("").to_string() == precision


def test_another_precision_than_asked_for_is_an_error(monkeypatch):
    module = backends.get("openvino")
    ov = module._openvino()
    model = module._core().read_model(models.net())
    monkeypatch.setattr(module, "_core", lambda: FakeCore(["BF16"], follows=False))
    with pytest.raises(ToolError, match="OpenVINO would compute in bf16, though f32 was asked for"):
        module._compiled(ov, model)


def test_fp16_without_fp16_arithmetic_is_noted():
    module = backends.get("openvino")
    native = "FP16" in module._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    notes = module.compile(models.net_fp16(), CompileOptions()).notes
    assert [("no fp16 arithmetic" in note) for note in notes] == ([] if native else [True])
    assert module.compile(models.net(), CompileOptions()).notes == ()


def test_names_survive_a_graph_that_does_nothing():
    onnx = models.model("g (float[N,3] x) => (float[N,3] y, float[N,3] r) { y = Identity(x) r = Relu(x) }")
    backend = backends.get("openvino")
    session = backend.load(backend.compile(onnx, CompileOptions()))
    assert ([s.name for s in session.inputs], [s.name for s in session.outputs]) == (["x"], ["y", "r"])
    x = models.weights(2, 3)
    got = session.run({"x": x})
    np.testing.assert_array_equal(got["y"], x)
    np.testing.assert_array_equal(got["r"], np.maximum(x, 0))


def test_names_survive_where_operators_melt():
    """OpenVINO drops what does nothing in inference, and then calls the input ``i``."""
    text = "g (float[N,3] x) => (float[N,3] z, float[N,3] y) "
    text += "{ i = Dropout(x) r = Relu(i) a = Dropout(r) y = Identity(a) z = Neg(r) }"
    backend, x = backends.get("openvino"), models.weights(2, 3)
    session = backend.load(backend.compile(models.model(text), CompileOptions()))
    assert ([s.name for s in session.inputs], [s.name for s in session.outputs]) == (["x"], ["z", "y"])
    got = session.run({"x": x})
    np.testing.assert_array_equal(got["y"], np.maximum(x, 0))
    np.testing.assert_array_equal(got["z"], -np.maximum(x, 0))


def test_an_input_that_nothing_uses_is_an_error():
    onnx = models.model("g (float[N,3] x, float[N,3] spare) => (float[N,3] y) { y = Relu(x) }")
    with pytest.raises(ToolError, match="OpenVINO keeps 1 of the tensors x, spare"):
        backends.get("openvino").compile(onnx, CompileOptions())


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    backend = backends.get("openvino")
    backend.compile(models.linear(), CompileOptions())
    with pytest.raises(ToolError):
        backend.compile(models.linear(), dc.replace(CompileOptions(), timeout_s=0.05))
    assert list(tmp_path.iterdir()) == []
