"""What a machine has, as its system and its driver say."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dlcv_deploy import host
from dlcv_deploy.backends import _cuda, optional
from dlcv_deploy.host import HostGpu, here, memory_bytes
from dlcv_deploy.plugin import toolchain

HELPERS = Path(__file__).parents[1] / "helpers"
MEMINFO = "MemTotal:       32000000 kB\nMemFree:  5 kB\nMemAvailable:   20000000 kB\n"


def test_memory_is_what_the_machine_has():
    assert memory_bytes({"/proc/meminfo": MEMINFO}.get) == 20_000_000 * 1024
    assert memory_bytes({}.get) == 0
    assert memory_bytes({"/proc/meminfo": "MemFree: 5 kB"}.get) == 0


def group(place, limit, used, old=None, names=("max", "current")):
    stat = {} if old is None else {f"{place}/memory.stat": f"active_file 7\ninactive_file {old}\n"}
    return {f"{place}/memory.{names[0]}": f"{limit}\n", f"{place}/memory.{names[1]}": f"{used}\n", **stat}


ROOT = "/sys/fs/cgroup"
OLD = ("limit_in_bytes", "usage_in_bytes")


@pytest.mark.parametrize(
    ("mine", "files", "free"),
    [
        ("0::/\n", group(ROOT, 1000, 300), 700),
        ("0::/\n", group(ROOT, 1000, 300, 200), 900),
        ("0::/\n", group(ROOT, 1000, 1300), 0),
        ("0::/\n", group(ROOT, "max", 300), 20_000_000 * 1024),
        ("0::/a/b\n", {**group(f"{ROOT}/a", 500, 100), **group(f"{ROOT}/a/b", "max", 50)}, 400),
        ("0::/a/b\n", {**group(f"{ROOT}/a", 500, 100), **group(f"{ROOT}/a/b", 60, 50)}, 10),
        ("0::/../b\n", group(f"{ROOT}/b", 60, 50), 10),
        ("3:cpu,memory:/x\n1:cpu:/y\n", group(f"{ROOT}/memory/x", 90, 40, 1, OLD), 51),
        ("3:memory:/x\n", group(f"{ROOT}/memory", 2**63, 40, 1, OLD), 20_000_000 * 1024),
        ("garbage\n\n1:x\n", group(ROOT, 1, 1), 20_000_000 * 1024),
    ],
)
def test_memory_is_what_a_container_may_have(mine, files, free):
    files = {"/proc/meminfo": MEMINFO, "/proc/self/cgroup": mine, **files}
    assert memory_bytes(files.get) == free


def test_the_memory_of_this_machine():
    assert 0 < memory_bytes() < 1 << 50


def test_runtimes_are_found_and_not_imported():
    code = (
        "import sys; from dlcv_deploy.host import here; found = here();"
        "assert not {'openvino', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'torch', 'onnx'} & set(sys.modules);"
        "print(sorted(found.runtimes.items()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    installed = {
        name: version
        for name, packages in host._DISTRIBUTIONS.items()
        if (version := optional.version_of(name, *packages))
    }
    assert done.stdout.strip() == str(sorted(installed.items()))


def test_a_machine_without_gpu(monkeypatch):
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "no driver")
    found = here()
    assert (found.machine, found.gpu, found.no_gpu) == (platform.machine(), None, "no driver")


@pytest.fixture
def driver(need, monkeypatch, tmp_path):
    need("gxx")
    for name, place in (("libcuda.c", (_cuda, "DRIVER")), ("libnvml.c", (host, "_NVML"))):
        library = tmp_path / f"{name}.so"
        words = [toolchain.find_cxx()[0], "-x", "c", "-shared", "-fPIC", "-Wall", "-Werror", HELPERS / name]
        subprocess.run([*words, "-o", library], check=True)
        monkeypatch.setattr(*place, str(library))
    return tmp_path


def test_a_gpu_by_its_driver(driver, monkeypatch):
    found = here()
    sm = 10 * (1000 + 75) + 1000 + 76  # the driver of the test gives an attribute's number and 1000
    assert (found.gpu, found.no_gpu) == (HostGpu("GPU 3", sm, 23 << 30, 13020), "")
    monkeypatch.setattr(host, "_NVML", str(driver / "absent"))
    assert here().gpu.memory_bytes == 0


def test_a_gpu_that_is_not_there(driver):
    found = here(1)
    assert (found.gpu, found.no_gpu) == (None, "the NVIDIA driver does not describe GPU 1 (CUDA error 1)")


@pytest.mark.parametrize("call", ["nvmlInit_v2", "nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetMemoryInfo"])
def test_where_nvml_does_not_say_memory_is_not_known(monkeypatch, call):
    class Nvml:
        def __getattr__(self, name):
            return lambda *arguments: 3 if name == call else 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvml())
    assert host._free(b"0000:03:00.0") == 0
