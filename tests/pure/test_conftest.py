"""The rules that tests live under: a required capability is not skipped, and the network is not reached."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = """
import pytest
def test_need(need): need("torch")
def test_import(): pytest.importorskip("torch")
@pytest.mark.skipif(True, reason="no cifar10 in DLCV_DATA")
def test_mark(): pass
@pytest.mark.gpu
def test_gpu(): pass
def test_other(): pytest.skip("torch runs elsewhere, and needs tensorrt_rtx")
@pytest.mark.xfail(reason="needs torch")
def test_expected(): assert False
def test_fixture(cifar10_dir): pass
"""
WHOLE = 'import pytest\npytest.importorskip("torch")\n'


@pytest.fixture
def run(tmp_path):
    def run(source, *names, require=""):
        conftest = (Path(__file__).parents[1] / "conftest.py").read_text()
        absent = "\nCAPABILITIES.update(torch=lambda: 'gone', gpu=lambda: 'gone', cifar10=lambda: 'gone')\n"
        (tmp_path / "conftest.py").write_text(conftest + absent + "import sys; sys.modules['torch'] = None\n")
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: x\n")
        (tmp_path / "test_it.py").write_text(source)
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *names]
        env = {**os.environ, "DLCV_REQUIRE": require}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


def test_a_skip_is_visible(run):
    done = run(SKIPS)
    assert done.returncode == 0, done.stdout
    assert "6 skipped, 1 xfailed" in done.stdout
    assert "needs torch: gone" in done.stdout


@pytest.mark.parametrize(
    ("require", "failed"),
    [
        ("torch", ["test_need", "test_import"]),
        ("cifar10", ["test_mark", "test_fixture"]),
        ("gpu, torch", ["test_need", "test_import", "test_gpu"]),
        ("tensorrt", []),
        ("tensorrt_rtx", ["test_other"]),
    ],
)
def test_a_required_capability_is_not_skipped(run, require, failed):
    done = run(SKIPS, require=require)
    lines = done.stdout.splitlines()
    found = {line.split("::")[1].split()[0] for line in lines if line.startswith(("FAILED", "ERROR")) and "::" in line}
    assert found == set(failed), done.stdout
    assert done.returncode == (1 if failed else 0)
    assert ("DLCV_REQUIRE names" in done.stdout) == bool(failed)


def test_nor_is_a_whole_file(run):
    assert run(WHOLE).returncode == 5  # nothing collected
    done = run(WHOLE, require="torch")
    assert done.returncode not in (0, 5)
    assert "DLCV_REQUIRE names torch" in done.stdout


def test_a_mistyped_capability_is_an_error(run):
    done = run(SKIPS, require="opnvino")
    assert done.returncode == 4
    assert "no capability 'opnvino'; there are onnxruntime, openvino" in done.stderr


def test_the_network_is_out_of_reach():
    import socket
    import urllib.request

    for address in (("192.0.2.1", 80), ("example.org", 80)):
        with socket.socket() as sock, pytest.raises(RuntimeError, match="a test tried to reach"):
            sock.connect(address)
    with pytest.raises(RuntimeError, match=r"a test tried to reach 'example\.org'"):
        urllib.request.urlopen("http://example.org/")


def test_this_machine_is_within_reach():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1]), timeout=5).close()
