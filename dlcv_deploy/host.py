"""What this machine has that an engine needs: processor, memory, runtimes and their versions, an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import dataclasses as dc
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from .errors import ToolError
from .messages import message

_NVML = "libnvidia-ml.so.1"
_NAME_BYTES, _BUS_BYTES = 256, 32
_DISTRIBUTIONS = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt_rtx",),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
"""What brings each backend's package, which is called as the backend is."""


@dc.dataclass(frozen=True, slots=True)
class HostGpu:
    """The GPU that engines would run on. ``sm`` is 89 for SM 8.9; ``cuda`` what its driver serves, 13000 for 13.0.

    ``memory_bytes`` is what is free of its memory, 0 where that is not known.
    """

    name: str
    sm: int
    memory_bytes: int
    cuda: int


@dc.dataclass(frozen=True, slots=True)
class Host:
    """One machine, as a pre-flight check sees it; the same value in C++, and the same JSON.

    ``machine`` is the processor as ``uname -m`` names it, ``memory_bytes`` what is available of its memory, 0 where
    that is not known. ``runtimes`` gives the version of each backend's runtime that is installed. Without a GPU,
    ``no_gpu`` says why.
    """

    machine: str
    memory_bytes: int
    runtimes: Mapping[str, str]
    gpu: HostGpu | None = None
    no_gpu: str = ""


def here(device: int = 0) -> Host:
    """This machine, with one of its GPUs. No runtime is imported, and no context is made on the GPU."""
    from .backends import _cuda, optional

    found = {name: optional.version_of(name, *packages) for name, packages in _DISTRIBUTIONS.items()}
    no_gpu, gpu = _cuda.no_gpu(), None
    if not no_gpu:
        try:
            gpu = _gpu(ctypes.CDLL(_cuda.DRIVER), device)
        except ToolError as e:
            no_gpu = e.what
    runtimes = {name: version for name, version in found.items() if version}
    return Host(platform.machine(), memory_bytes(), runtimes, gpu, no_gpu)


# --- memory

Read = Callable[[str], str | None]
"""The text of a file of the system, or None where there is none that may be read."""


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except (OSError, ValueError):
        return None


def memory_bytes(read: Read = _read) -> int:
    """Memory that is available to this process: the machine's, or less where its control groups have less; 0 unknown.

    ``MemAvailable`` of /proc/meminfo; of a group its limit, less what it uses and the kernel cannot take back at once
    (the pages of files not used lately). Versions 1 and 2 of control groups, this process's and those above it.
    """
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", read("/proc/meminfo") or "", re.MULTILINE)
    free = [1024 * int(found[1])] if found else []
    return min([*free, *_of_groups(read)], default=0)


def _of_groups(read: Read) -> Iterator[int]:
    lines = [line.split(":", 2) for line in (read("/proc/self/cgroup") or "").splitlines() if line.count(":") >= 2]
    for _, controllers, group in lines:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = "/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup"
        limit, used = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for count in range(len(parts), -1, -1):
            place = "/".join([root, *parts[:count]])
            most, now = (read(f"{place}/memory.{name}") or "" for name in (limit, used))
            if most.strip().isdecimal() and now.strip().isdecimal():
                old = re.search(r"^inactive_file (\d+)$", read(f"{place}/memory.stat") or "", re.MULTILINE)
                yield max(0, int(most) - int(now) + (int(old[1]) if old else 0))


# --- GPU


def _gpu(driver: ctypes.CDLL, device: int) -> HostGpu:
    """A GPU as its driver describes it, which has started.

    Raises:
        ToolError: There is no such GPU, or the driver does not describe it.
    """
    from .backends import _cuda

    handle, cuda = ctypes.c_int(), ctypes.c_int()
    name, bus = ctypes.create_string_buffer(_NAME_BYTES), ctypes.create_string_buffer(_BUS_BYTES)
    calls = (
        driver.cuDeviceGet(ctypes.byref(handle), device),
        driver.cuDeviceGetName(name, _NAME_BYTES, handle),
        driver.cuDeviceGetPCIBusId(bus, _BUS_BYTES, handle),
        driver.cuDriverGetVersion(ctypes.byref(cuda)),
    )
    if code := next((code for code in calls if code), 0):
        raise ToolError(message("driver_no_device", device=device, code=code).what)
    return HostGpu(name.value.decode(errors="replace"), _cuda.capability(device), _free(bus.value), cuda.value)


def _free(bus: bytes) -> int:
    """Memory that is free on the GPU in a slot, by NVML, which takes no context; 0 where that does not say."""
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:
        return 0
    if nvml.nvmlInit_v2():
        return 0
    handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
    failed = nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle)) or nvml.nvmlDeviceGetMemoryInfo(
        handle, memory
    )
    nvml.nvmlShutdown()
    return 0 if failed else int(memory[1])
