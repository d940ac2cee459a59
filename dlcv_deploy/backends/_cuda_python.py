"""CUDA through cuda-python, on the primary context, where other libraries' memory and streams are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import MissingBackend, ToolError
from ._cuda import Bytes, check_index
from .blame import explained

_ABSENT = ("cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorInitializationError")


class CudaPython:
    """CUDA through cuda-python's runtime API; a ``SharedCuda``.

    The primary context is retained and never released: memory that an application has from here may outlive all else,
    and CUDA's runtime retains it to the process's end as well.
    """

    name = "cuda-python"

    def __init__(self, cudart: Any, driver: Any, index: int = 0) -> None:  # noqa: ANN401 - untyped modules
        self._rt, self._driver, self.index = cudart, driver, index
        check_index(index, int(self._check(cudart.cudaGetDeviceCount(), "cudaGetDeviceCount")))
        device = self._ask(driver.cuDeviceGet(index), "cuDeviceGet")
        self._context = self._ask(driver.cuDevicePrimaryCtxRetain(device), "cuDevicePrimaryCtxRetain")

    @contextmanager
    def current(self) -> Iterator[None]:
        self._ask(self._driver.cuCtxPushCurrent(self._context), "cuCtxPushCurrent")
        try:
            yield
        finally:
            self._ask(self._driver.cuCtxPopCurrent(), "cuCtxPopCurrent")

    def _ask(self, result: tuple[Any, ...], call: str) -> Any:  # noqa: ANN401 - whatever the call returns
        """As ``_check``, for the driver's own calls."""
        error, *values = result
        if int(error) != 0:
            raise ToolError(f"{call}: {error.name}")
        return values[0] if values else None

    def _check(self, result: tuple[Any, ...], call: str) -> Any:  # noqa: ANN401 - whatever the call returns
        """The value of a call that returned (error, value...); its error by name otherwise."""
        error, *values = result
        if int(error) != 0:
            name, text = (self._rt.cudaGetErrorName(error)[1], self._rt.cudaGetErrorString(error)[1])
            what = f"{call}: {name.decode()}: {text.decode()}"
            if name.decode() in _ABSENT:
                told = explained("cuda", what, fix="update the NVIDIA driver, or run on a machine with a GPU")
                raise MissingBackend(told.what, fix=told.fix)
            told = explained("cuda", what)
            raise ToolError(told.what, fix=told.fix, log=what)
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

    def after(self, stream: Any, event: Any) -> None:  # noqa: ANN401 - as above
        self._check(self._rt.cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent")

    def copy(self, to: int, source: int, size_bytes: int, stream: Any) -> None:  # noqa: ANN401 - as above
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._check(self._rt.cudaMemcpyAsync(to, source, size_bytes, kind, stream), "cudaMemcpyAsync")

    def release(self, memory: int, event: Any) -> None:  # noqa: ANN401 - as above
        self._check(self._rt.cudaDeviceSynchronize(), "cudaDeviceSynchronize")  # cudaFree only "may" wait
        self._check(self._rt.cudaFree(memory), "cudaFree")
        self._check(self._rt.cudaEventDestroy(event), "cudaEventDestroy")

    def foreign(self, memory: int) -> tuple[str, str]:
        rt, driver = self._rt, self._driver
        about = self._check(rt.cudaPointerGetAttributes(memory), "cudaPointerGetAttributes")
        if about.type == rt.cudaMemoryType.cudaMemoryTypeUnregistered:
            return "is not in a GPU's memory", "pass it as a NumPy array"
        if about.type == rt.cudaMemoryType.cudaMemoryTypeDevice and int(about.device) != self.index:
            where = int(about.device)
            return f"lies on GPU {where}, and the engine on GPU {self.index}", f"copy it, or load with device={where}"
        error, context = driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT, memory)
        if int(error) == 0 and int(context or 0) not in (0, int(self._context)):  # memory of pools belongs to none
            fix = "use the GPU's primary context: with pycuda, import pycuda.autoprimaryctx, not pycuda.autoinit"
            return "belongs to another CUDA context", fix
        return "", ""
