"""A GPU as proofs and measurements need it: memory and streams, copies within it, and what it says of itself."""

from __future__ import annotations

import ctypes
import subprocess
from typing import Any, Protocol

from ..backends import _cuda
from ..errors import ToolError

_MULTIPROCESSORS, _L2_BYTES = 16, 38  # CUdevice_attribute, cuda.h
_ASKED = ("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw")
_ASKED_TIMEOUT_S = 30.0


class Device(Protocol):
    """A GPU, as far as proofs and measurements use it."""

    cuda: _cuda.Cuda
    multiprocessors: int
    l2_bytes: int

    def streams(self, count: int) -> list[Any]:
        """The first ``count`` of its streams, which it keeps."""
        ...

    def copy(self, to: int, source: int, size_bytes: int, stream: Any) -> None:  # noqa: ANN401 - see Cuda
        """Put a copy within its memory on a stream."""
        ...

    def fill(self, memory: int, value: int, size_bytes: int, stream: Any) -> None:  # noqa: ANN401 - see Cuda
        """Put a byte into each of its memory's, on a stream."""
        ...

    def about(self) -> dict[str, Any]:
        """Its name, driver and clocks; None for what it does not say."""
        ...


class Gpu:
    """The first GPU.

    Raises:
        MissingBackend: No driver, no GPU, or no package to reach it.
    """

    def __init__(self) -> None:
        self.cuda = _cuda.device()
        with self.cuda.current():
            self.cuda.free(self.cuda.malloc(1))  # the runtime makes its context now
        self._driver = _driver()
        self._device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        self.multiprocessors, self.l2_bytes = self._attribute(_MULTIPROCESSORS), self._attribute(_L2_BYTES)
        self._streams: list[Any] = []

    def streams(self, count: int) -> list[Any]:
        while len(self._streams) < count:
            self._streams.append(self.cuda.stream())
        return self._streams[:count]

    def copy(self, to: int, source: int, size_bytes: int, stream: Any) -> None:  # noqa: ANN401 - see Cuda
        self._call("cuMemcpyDtoDAsync_v2", to, source, size_bytes, self.cuda.address(stream))

    def fill(self, memory: int, value: int, size_bytes: int, stream: Any) -> None:  # noqa: ANN401 - see Cuda
        self._call("cuMemsetD8Async", memory, value, size_bytes, self.cuda.address(stream))

    def about(self) -> dict[str, Any]:
        name, bus, cuda = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32), ctypes.c_int()
        self._call("cuDeviceGetName", name, len(name), self._device)
        self._call("cuDeviceGetPCIBusId", bus, len(bus), self._device)
        self._call("cuDriverGetVersion", ctypes.byref(cuda))
        return {
            "name": name.value.decode(),
            "capability": _cuda.capability() / 10,
            "multiprocessors": self.multiprocessors,
            "l2_bytes": self.l2_bytes,
            "cuda_of_driver": f"{cuda.value // 1000}.{cuda.value % 1000 // 10}",
            "nvidia_smi": asked(bus.value.decode()),
        }

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        if code := getattr(self._driver, name)(*arguments):
            raise ToolError(f"{name} gave CUDA error {code}", fix="nvidia-smi says whether the GPU is well")


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuDeviceGet": (ctypes.c_void_p, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.c_void_p, ctypes.c_int),
    "cuCtxSetCurrent": (ctypes.c_void_p,),
    "cuDeviceGetAttribute": (ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
    "cuDeviceGetName": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuDeviceGetPCIBusId": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuDriverGetVersion": (ctypes.c_void_p,),
    "cuMemcpyDtoDAsync_v2": (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemsetD8Async": (ctypes.c_uint64, ctypes.c_ubyte, ctypes.c_size_t, ctypes.c_void_p),
}
"""Of the driver's functions, by cuda.h; a CUdevice is an int and a CUdeviceptr has 64 bits."""


def _driver() -> ctypes.CDLL:
    driver = ctypes.CDLL(_cuda.DRIVER)
    for name, types in _SIGNATURES.items():
        function = getattr(driver, name)
        function.argtypes, function.restype = types, ctypes.c_int
    return driver


def asked(bus: str) -> dict[str, str | None]:
    """What nvidia-smi says of the GPU at a PCI bus address, units and all; None for what it does not know."""
    command = ["nvidia-smi", f"--id={bus}", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_ASKED_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return dict.fromkeys(_ASKED)
    values = [value.strip() for value in done.stdout.strip().split(", ")]
    if done.returncode or len(values) != len(_ASKED):
        return dict.fromkeys(_ASKED)
    return {key: None if value.startswith("[") else value for key, value in zip(_ASKED, values, strict=True)}
