"""``doctor BUNDLE``: what keeps it from running here, in words and as JSON, and how it exits."""

import pytest
from helpers.bundles import MANIFEST

from dlcv_deploy import backends, host
from dlcv_deploy.bundle import write
from dlcv_deploy.host import Host, HostGpu
from dlcv_deploy.types import Engine

VINO = Engine("openvino", "CPU", "2026.4.1", {"model.xml": b"<net/>"})
RTX = Engine("tensorrt_rtx", "SM 8.0 and later", "1.7.1", {"model.rtx.engine": b"rtx"})
HOST = Host("x86_64", 1 << 34, {"openvino": "2026.4.1", "tensorrt_rtx": "1.7.1"}, HostGpu("A", 86, 1 << 34, 13000))
NO_GPU = Host("x86_64", 1 << 34, HOST.runtimes, None, "no NVIDIA driver (libcuda.so.1 is not on this machine)")


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "b.dlcv", MANIFEST, (VINO, RTX), {"model.onnx": b"graph"}, replace=False).path


@pytest.fixture
def doctor(run, path, monkeypatch):
    def call(here, *words):
        monkeypatch.setattr(host, "here", lambda: here)
        return run("doctor", path, *words)

    return call


def test_all_runs(doctor):
    done = doctor(HOST)
    assert (done.code, done.out) == (0, "runs here by tensorrt_rtx; openvino would run too\n")


def test_one_engine_runs(doctor):
    done = doctor(NO_GPU)
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "the engine for tensorrt_rtx needs an NVIDIA GPU: no NVIDIA driver (libcuda.so.1 is not on this machine)",
            "  fix: run it on a machine with one, or build for the CPU: dlcv-deploy build --target openvino",
            "runs here by openvino",
        ],
    )


def test_none_runs(doctor):
    done = doctor(Host("x86_64", 1 << 34, {}, None, "none"))
    assert (done.code, done.out.count("\n  fix: ")) == (3, 3)
    assert done.out.endswith("\nno engine of it runs here\n")


def test_damaged_files(doctor, path):
    (path / "openvino/model.xml").write_bytes(b"<Net/>")
    (path / "model.onnx").unlink()
    done = doctor(HOST)
    assert done.code == 5
    assert [line for line in done.out.splitlines() if not line.startswith("  ")] == [
        "the bundle lacks model.onnx",
        "openvino/model.xml was altered after the bundle was written: its SHA-256 is not the manifest's",
        "no engine of it runs here",
    ]


def test_as_json(doctor, path):
    value = doctor(NO_GPU, "--json").value
    assert value["host"]["no_gpu"] == NO_GPU.no_gpu
    assert [(found["code"], found["backend"]) for found in value["findings"]] == [("gpu_none", "tensorrt_rtx")]
    assert (value["bundle"], value["runs"], value["exit_code"]) == (str(path), ["openvino"], 0)


def test_no_bundle(run, tmp_path):
    done = run("doctor", tmp_path / "absent.dlcv")
    assert (done.code, done.err) == (5, "")
    assert done.out.splitlines()[0] == f"there is no bundle at {tmp_path / 'absent.dlcv'}"


def test_a_real_one(run, built, need):
    need("onnxruntime")
    done = run("doctor", built[0], "--json")
    assert done.value["runs"] == ["onnxruntime"]
    assert set(done.value["host"]["runtimes"]) <= set(backends.names())
