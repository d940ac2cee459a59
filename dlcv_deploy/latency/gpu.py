"""The first GPU through NVML, where the package nvidia-ml-py is installed: clock, heat, throttling, other processes."""

from __future__ import annotations

import dataclasses as dc
import importlib
import os
from typing import Any

SLOWED = {
    0x04: "its power limit",
    0x08: "a hardware slowdown",
    0x20: "heat (by the driver)",
    0x40: "heat (by the hardware)",
    0x80: "a power brake",
}
"""Why a clock is held down: the bits of NVML's nvmlClocksEventReasons that are no setting of the user's own."""


@dc.dataclass(frozen=True, slots=True)
class GpuLook:
    """One look at a GPU; ``slowed`` are bits of ``SLOWED`` among others, ``others`` processes that compute on it."""

    name: str
    clock_mhz: int
    celsius: int
    slowed: int
    others: tuple[int, ...]


class Gpu:
    """The GPU that CUDA calls the first, through a module with the functions of ``pynvml``."""

    def __init__(self, nvml: Any, visible: str = "") -> None:  # noqa: ANN401 - an untyped package
        self._nvml = nvml
        nvml.nvmlInit()
        first = visible.split(",")[0].strip()
        if first.startswith("GPU-"):
            self._handle = nvml.nvmlDeviceGetHandleByUUID(first)
        else:
            self._handle = nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdecimal() else 0)
        self._name = nvml.nvmlDeviceGetName(self._handle)

    def look(self) -> GpuLook | None:
        """How it is now; None where the driver does not say."""
        nvml, handle = self._nvml, self._handle
        try:
            return GpuLook(
                str(self._name),
                nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
                tuple(p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid != os.getpid()),
            )
        except nvml.NVMLError:
            return None


def first_gpu() -> Gpu | str:
    """The first GPU, or why it cannot be looked at."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return "not looked at (no nvidia-ml-py)"
    try:
        return Gpu(nvml, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    except nvml.NVMLError as e:
        return f"not looked at (NVML: {e})"
