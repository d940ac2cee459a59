"""A machine, its memory and its GPU are the same in C++ and Python."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dlcv_deploy.plugin import toolchain

HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(scope="session")
def program(cpp_build, need):
    need("openvino")
    return cpp_build("address").program("preflight_cases")


def here(program, **env):
    """This machine as C++ and Python find it, each in a process of its own; memory that is free may differ a little."""
    code = "import dataclasses, json; from dlcv_deploy.host import here; print(json.dumps(dataclasses.asdict(here())))"
    found = []
    for command in ([program], [sys.executable, "-c", code]):
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, env={**os.environ, **env})
        found.append(json.loads(done.stdout))
    cpp, python = found
    assert cpp.pop("memory_bytes") == pytest.approx(python.pop("memory_bytes"), rel=0.3)
    python["runtimes"] = {name: python["runtimes"][name] for name in cpp["runtimes"]}  # built with it, or installed
    assert cpp == python
    return cpp


def compiled(source, library):
    command = [toolchain.find_cxx()[0], "-x", "c", "-shared", "-fPIC", "-Wall", "-Werror", source, "-o", library]
    subprocess.run(command, check=True, timeout=60)


def test_this_machine(program):
    assert here(program)["machine"] == platform.machine()


def test_a_gpu_by_its_driver(program, tmp_path):
    compiled(HELPERS / "libcuda.c", tmp_path / "libcuda.so.1")
    found = here(program, LD_LIBRARY_PATH=str(tmp_path))
    sm = 10 * (1000 + 75) + 1000 + 76  # the driver of the test gives an attribute's number and 1000
    assert found["gpu"] == {"name": "GPU 3", "sm": sm, "memory_bytes": 0, "cuda": 13020}
    compiled(HELPERS / "libnvml.c", tmp_path / "libnvidia-ml.so.1")
    assert here(program, LD_LIBRARY_PATH=str(tmp_path))["gpu"]["memory_bytes"] == 23 << 30


@pytest.mark.parametrize("start", [0, 100, 999])
def test_a_driver_that_does_not_start_or_says_nothing(program, tmp_path, start):
    silent = ("DeviceGet", "DeviceGetName", "DeviceGetPCIBusId", "DriverGetVersion", "DeviceGetAttribute")
    lines = [f"int cuInit(unsigned flags) {{ return {start} + flags; }}"]
    lines += [f"int cu{name}(void) {{ return 7; }}" for name in silent]
    (tmp_path / "driver.c").write_text("\n".join(lines))
    compiled(tmp_path / "driver.c", tmp_path / "libcuda.so.1")
    found = here(program, LD_LIBRARY_PATH=str(tmp_path))
    assert found["gpu"] is None
    words = {0: "does not describe GPU 0 (CUDA error 7)", 100: "sees no GPU", 999: "cuInit gave CUDA error 999"}
    assert words[start] in found["no_gpu"]
