"""The few CUDA calls that running an engine takes, through cuda-python or, where only that is installed, pycuda.

Never both, and nothing happens on import: ``no_gpu`` asks the driver, ``device`` opens the first GPU.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import MissingBackend, SpecError, ToolError
from ..messages import message
from . import optional

Bytes = npt.NDArray[np.uint8]
_EXTRA = "gpu"
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CUDA_SUCCESS, _CUDA_NO_DEVICE = 0, 100  # CUresult in cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute in cuda.h


class Cuda(Protocol):
    """One GPU. Streams and events are what the package at work calls so; ``address`` makes a stream an integer.

    All calls are made within ``current``: the GPU's primary context, which TensorRT, PyTorch and CuPy use, is then the
    thread's, and afterwards what the application had there is again.

    ``captured`` is a graph of what ``work`` enqueues, which does not run then: ``launch`` runs it. ToolError where the
    package, or what is enqueued, cannot be captured; the stream is as before.
    """

    name: str

    def current(self) -> AbstractContextManager[None]: ...
    def malloc(self, size_bytes: int) -> Any: ...  # noqa: ANN401 - a handle of the package
    def free(self, memory: Any) -> None: ...  # noqa: ANN401 - as above
    def pinned(self, size_bytes: int) -> Bytes: ...
    def unpin(self, host: Bytes) -> None: ...
    def stream(self) -> Any: ...  # noqa: ANN401 - as above
    def event(self) -> Any: ...  # noqa: ANN401 - as above
    def address(self, handle: Any) -> int: ...  # noqa: ANN401 - as above
    def to_device(self, memory: Any, host: Bytes, stream: Any) -> None: ...  # noqa: ANN401 - as above
    def to_host(self, host: Bytes, memory: Any, stream: Any) -> None: ...  # noqa: ANN401 - as above
    def record(self, event: Any, stream: Any) -> None: ...  # noqa: ANN401 - as above
    def wait(self, stream: Any) -> None: ...  # noqa: ANN401 - as above
    def elapsed_ms(self, start: Any, end: Any) -> float: ...  # noqa: ANN401 - as above
    def captured(self, stream: Any, work: Callable[[], None]) -> Any: ...  # noqa: ANN401 - as above
    def launch(self, graph: Any, stream: Any) -> None: ...  # noqa: ANN401 - as above
    def drop(self, graph: Any) -> None: ...  # noqa: ANN401 - as above
    def close(self, stream: Any, events: list[Any]) -> None: ...  # noqa: ANN401 - as above


class SharedCuda(Cuda, Protocol):
    """One GPU whose memory and streams other libraries use too; theirs are integers.

    ``after`` lets a stream's later work wait for an event, ``release`` frees memory that anything may still use,
    ``foreign`` says why memory cannot be used here, and what to do (both empty where it can).
    """

    index: int

    def after(self, stream: Any, event: Any) -> None: ...  # noqa: ANN401 - see Cuda
    def copy(self, to: int, source: int, size_bytes: int, stream: Any) -> None: ...  # noqa: ANN401 - see Cuda
    def release(self, memory: int, event: Any) -> None: ...  # noqa: ANN401 - see Cuda
    def foreign(self, memory: int) -> tuple[str, str]: ...


def no_gpu() -> str:
    """Why no NVIDIA GPU can be used here; empty where one can. Asks the driver itself, so it needs no package."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return message("driver_missing", library=DRIVER).what
    code = driver.cuInit(0)
    if code == _CUDA_NO_DEVICE:
        return message("driver_no_gpu").what
    if code != _CUDA_SUCCESS:
        return message("driver_fails", code=code).what
    return ""


def capability(device: int = 0) -> int:
    """Compute capability of a GPU, 89 for SM 8.9; where ``no_gpu`` says nothing."""
    driver, handle, found = ctypes.CDLL(DRIVER), ctypes.c_int(), []
    driver.cuDeviceGet(ctypes.byref(handle), device)
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        if code := driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle):
            raise ToolError(f"the NVIDIA driver does not name its GPU (CUDA error {code})")
        found.append(value.value)
    return 10 * found[0] + found[1]


def no_binding() -> str:
    """Why CUDA cannot be called from Python; empty where it can."""
    if optional.version_of("cuda.bindings.runtime", "cuda-bindings") or optional.version_of("pycuda"):
        return ""
    return f"neither cuda-python nor pycuda is installed; pip install 'dlcv-deploy[{_EXTRA}]'"


def device(index: int = 0) -> Cuda:
    """A GPU, the first by default.

    Raises:
        MissingBackend: No driver, no GPU, or no package to reach it.
        SpecError: This machine has fewer.
    """
    if reason := no_gpu() or no_binding():
        raise MissingBackend(reason, fix="run on a machine with an NVIDIA GPU, its driver and cuda-python")
    if optional.version_of("cuda.bindings.runtime", "cuda-bindings"):
        from ._cuda_python import CudaPython

        runtime, driver = (optional.module(f"cuda.bindings.{name}", extra=_EXTRA) for name in ("runtime", "driver"))
        return CudaPython(runtime, driver, index)
    return PyCuda(optional.module("pycuda.driver", extra="pycuda"), index)


def check_index(index: int, count: int) -> None:
    """Refuse a GPU that is not there.

    Raises:
        SpecError: There are ``count``, from 0 on.
    """
    if index >= count:
        raise SpecError(f"there is no GPU {index}: CUDA sees {count}", fix=f"name one from 0 to {count - 1}")


class PyCuda:
    """CUDA through pycuda, in the primary context, which is the one that TensorRT and PyTorch use."""

    name = "pycuda"

    def __init__(self, driver: Any, index: int = 0) -> None:  # noqa: ANN401 - an untyped module
        driver.init()
        check_index(index, driver.Device.count())
        self._driver = driver
        self._context = driver.Device(index).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def malloc(self, size_bytes: int) -> Any:  # noqa: ANN401 - a handle of the package
        return self._driver.mem_alloc(size_bytes)

    def free(self, memory: Any) -> None:  # noqa: ANN401 - as above
        memory.free()

    def pinned(self, size_bytes: int) -> Bytes:
        host: Bytes = self._driver.pagelocked_empty(size_bytes, np.uint8)
        return host

    def unpin(self, host: Bytes) -> None:
        host.base.free()  # type: ignore[union-attr]  # pycuda's PagelockedHostAllocation

    def stream(self) -> Any:  # noqa: ANN401 - as above
        return self._driver.Stream()

    def event(self) -> Any:  # noqa: ANN401 - as above
        return self._driver.Event()

    def address(self, handle: Any) -> int:  # noqa: ANN401 - as above
        return int(getattr(handle, "handle", handle))

    def to_device(self, memory: Any, host: Bytes, stream: Any) -> None:  # noqa: ANN401 - as above
        self._driver.memcpy_htod_async(memory, host, stream)

    def to_host(self, host: Bytes, memory: Any, stream: Any) -> None:  # noqa: ANN401 - as above
        self._driver.memcpy_dtoh_async(host, memory, stream)

    def record(self, event: Any, stream: Any) -> None:  # noqa: ANN401 - as above
        event.record(stream)

    def wait(self, stream: Any) -> None:  # noqa: ANN401 - as above
        stream.synchronize()

    def elapsed_ms(self, start: Any, end: Any) -> float:  # noqa: ANN401 - as above
        return float(start.time_till(end))

    def captured(self, stream: Any, work: Callable[[], None]) -> Any:  # noqa: ANN401 - as above
        raise ToolError("pycuda has no CUDA graphs", fix="pip install cuda-python")

    def launch(self, graph: Any, stream: Any) -> None:  # noqa: ANN401 - as above
        raise ToolError("pycuda has no CUDA graphs", fix="pip install cuda-python")

    def drop(self, graph: Any) -> None:  # noqa: ANN401 - as above
        """Nothing was captured."""

    def close(self, stream: Any, events: list[Any]) -> None:  # noqa: ANN401 - as above
        stream.synchronize()
        self._context.detach()
