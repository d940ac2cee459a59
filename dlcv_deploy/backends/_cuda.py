"""The few CUDA calls that running an engine takes, through cuda-python or, where only that is installed, pycuda.

Never both, and nothing happens on import: ``no_gpu`` asks the driver, ``device`` opens the first GPU.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import MissingBackend, ToolError
from . import optional

Bytes = npt.NDArray[np.uint8]
_EXTRA = "gpu"
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CUDA_SUCCESS, _CUDA_NO_DEVICE = 0, 100  # CUresult in cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute in cuda.h
_ABSENT = ("cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorInitializationError")


class Cuda(Protocol):
    """One GPU. Streams and events are what the package at work calls so; ``address`` makes a stream an integer.

    ``captured`` is a graph of what ``work`` enqueues, which does not run then: ``launch`` runs it. ToolError where the
    package, or what is enqueued, cannot be captured; the stream is as before.
    """

    name: str

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


def no_gpu() -> str:
    """Why no NVIDIA GPU can be used here; empty where one can. Asks the driver itself, so it needs no package."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return f"no NVIDIA driver ({_DRIVER} is not on this machine)"
    code = driver.cuInit(0)
    if code == _CUDA_NO_DEVICE:
        return "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES?)"
    if code != _CUDA_SUCCESS:
        return f"the NVIDIA driver does not start (cuInit gave CUDA error {code})"
    return ""


def capability() -> int:
    """Compute capability of the first GPU, 89 for SM 8.9; where ``no_gpu`` says nothing."""
    driver, device, found = ctypes.CDLL(_DRIVER), ctypes.c_int(), []
    driver.cuDeviceGet(ctypes.byref(device), 0)
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        if code := driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            raise ToolError(f"the NVIDIA driver does not name its GPU (CUDA error {code})")
        found.append(value.value)
    return 10 * found[0] + found[1]


def no_binding() -> str:
    """Why CUDA cannot be called from Python; empty where it can."""
    if optional.version_of("cuda.bindings.runtime", "cuda-bindings") or optional.version_of("pycuda"):
        return ""
    return f"neither cuda-python nor pycuda is installed; pip install 'dlcv-deploy[{_EXTRA}]'"


def device() -> Cuda:
    """The first GPU.

    Raises:
        MissingBackend: No driver, no GPU, or no package to reach it.
    """
    if reason := no_gpu() or no_binding():
        raise MissingBackend(reason, fix="run on a machine with an NVIDIA GPU, its driver and cuda-python")
    if optional.version_of("cuda.bindings.runtime", "cuda-bindings"):
        return CudaPython(optional.module("cuda.bindings.runtime", extra=_EXTRA))
    return PyCuda(optional.module("pycuda.driver", extra="pycuda"))


class CudaPython:
    """CUDA through cuda-python's runtime API."""

    name = "cuda-python"

    def __init__(self, cudart: Any) -> None:  # noqa: ANN401 - an untyped module
        self._rt = cudart
        self._check(cudart.cudaGetDeviceCount(), "cudaGetDeviceCount")

    def _check(self, result: tuple[Any, ...], call: str) -> Any:  # noqa: ANN401 - whatever the call returns
        """The value of a call that returned (error, value...); its error by name otherwise."""
        error, *values = result
        if int(error) != 0:
            name, text = (self._rt.cudaGetErrorName(error)[1], self._rt.cudaGetErrorString(error)[1])
            what = f"{call}: {name.decode()}: {text.decode()}"
            if name.decode() in _ABSENT:
                raise MissingBackend(what, fix="update the NVIDIA driver, or run on a machine with a GPU")
            raise ToolError(what, fix="free GPU memory, or use a smaller batch" if "Memory" in what else "")
        return values[0] if values else None

    def malloc(self, size_bytes: int) -> int:
        return int(self._check(self._rt.cudaMalloc(size_bytes), f"cudaMalloc of {size_bytes} bytes"))

    def free(self, memory: int) -> None:
        self._check(self._rt.cudaFree(memory), "cudaFree")

    def pinned(self, size_bytes: int) -> Bytes:
        pointer = int(self._check(self._rt.cudaMallocHost(size_bytes), f"cudaMallocHost of {size_bytes} bytes"))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(pointer))

    def unpin(self, host: Bytes) -> None:
        self._check(self._rt.cudaFreeHost(host.ctypes.data), "cudaFreeHost")

    def stream(self) -> Any:  # noqa: ANN401 - a handle of the package
        return self._check(self._rt.cudaStreamCreate(), "cudaStreamCreate")

    def event(self) -> Any:  # noqa: ANN401 - as above
        return self._check(self._rt.cudaEventCreate(), "cudaEventCreate")

    def address(self, handle: Any) -> int:  # noqa: ANN401 - as above
        return int(handle)

    def to_device(self, memory: int, host: Bytes, stream: Any) -> None:  # noqa: ANN401 - as above
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._check(self._rt.cudaMemcpyAsync(memory, host.ctypes.data, host.nbytes, kind, stream), "cudaMemcpyAsync")

    def to_host(self, host: Bytes, memory: int, stream: Any) -> None:  # noqa: ANN401 - as above
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._check(self._rt.cudaMemcpyAsync(host.ctypes.data, memory, host.nbytes, kind, stream), "cudaMemcpyAsync")

    def record(self, event: Any, stream: Any) -> None:  # noqa: ANN401 - as above
        self._check(self._rt.cudaEventRecord(event, stream), "cudaEventRecord")

    def wait(self, stream: Any) -> None:  # noqa: ANN401 - as above
        self._check(self._rt.cudaStreamSynchronize(stream), "cudaStreamSynchronize")

    def elapsed_ms(self, start: Any, end: Any) -> float:  # noqa: ANN401 - as above
        return float(self._check(self._rt.cudaEventElapsedTime(start, end), "cudaEventElapsedTime"))

    def captured(self, stream: Any, work: Callable[[], None]) -> Any:  # noqa: ANN401 - as above
        rt = self._rt
        mode = rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads may go on calling CUDA
        self._check(rt.cudaStreamBeginCapture(stream, mode), "cudaStreamBeginCapture")
        try:
            work()
        except ToolError:
            error, graph = rt.cudaStreamEndCapture(stream)
            rt.cudaGetLastError()  # what ended the capture is no error of later calls
            if int(error) == 0:
                self._check(rt.cudaGraphDestroy(graph), "cudaGraphDestroy")
            raise
        error, graph = rt.cudaStreamEndCapture(stream)
        if int(error) != 0:
            rt.cudaGetLastError()
        self._check((error, graph), "cudaStreamEndCapture")
        try:
            return self._check(rt.cudaGraphInstantiate(graph, 0), "cudaGraphInstantiate")
        finally:
            self._check(rt.cudaGraphDestroy(graph), "cudaGraphDestroy")

    def launch(self, graph: Any, stream: Any) -> None:  # noqa: ANN401 - as above
        self._check(self._rt.cudaGraphLaunch(graph, stream), "cudaGraphLaunch")

    def drop(self, graph: Any) -> None:  # noqa: ANN401 - as above
        self._check(self._rt.cudaGraphExecDestroy(graph), "cudaGraphExecDestroy")

    def close(self, stream: Any, events: list[Any]) -> None:  # noqa: ANN401 - as above
        for event in events:
            self._check(self._rt.cudaEventDestroy(event), "cudaEventDestroy")
        self._check(self._rt.cudaStreamDestroy(stream), "cudaStreamDestroy")


class PyCuda:
    """CUDA through pycuda, in the primary context, which is the one that TensorRT and PyTorch use."""

    name = "pycuda"

    def __init__(self, driver: Any) -> None:  # noqa: ANN401 - an untyped module
        driver.init()
        self._driver = driver
        self._context = driver.Device(0).retain_primary_context()
        self._context.push()

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
        self._context.pop()
        self._context.detach()
