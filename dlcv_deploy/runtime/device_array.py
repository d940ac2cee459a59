"""Arrays in a GPU's memory, taken from and given to other libraries without a copy."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.base import Array
from . import dlpack

if TYPE_CHECKING:
    from ..backends._cuda import SharedCuda

LEGACY, PER_THREAD = 1, 2  # CUDA's default streams, as both protocols number them
_ALIGNMENT = 256  # bytes, as cudaMalloc's


class Memory:
    """Memory on a GPU, complete when ``ready`` happens; freed when nothing refers to it, after any engine's closing.

    It is plain memory, and freed when the GPU has done all that it was asked for: arrays are used on streams that only
    the libraries know which took them. Memory of a stream's own pool (cudaMallocAsync) could be given to others while
    such a stream still reads it.
    """

    __slots__ = ("__weakref__", "address", "gpu", "ready")

    def __init__(self, gpu: SharedCuda, size_bytes: int) -> None:
        self.gpu = gpu
        with gpu.current():
            self.address = int(gpu.malloc(size_bytes))
            self.ready = gpu.event()
        weakref.finalize(self, _release, gpu, self.address, self.ready).atexit = False  # the process's end frees it


def _release(gpu: SharedCuda, address: int, ready: Any) -> None:  # noqa: ANN401 - an event, see Cuda
    with gpu.current():
        gpu.release(address, ready)


class DeviceArray:
    """An array in a GPU's memory, row by row. torch, CuPy, Numba and pycuda use it where it lies.

    ``stream`` is the stream on which it is complete, as an integer; None where it is complete already.

    Errors of ``__dlpack__`` are BufferError, as that protocol says.
    """

    __slots__ = ("_memory", "address", "dtype", "shape", "stream")

    def __init__(self, memory: Memory, address: int, shape: tuple[int, ...], dtype: str, stream: int | None) -> None:
        self._memory, self.address, self.shape, self.stream = memory, address, shape, stream
        self.dtype = np.dtype(dtype)

    @property
    def device(self) -> int:
        """Which GPU it lies on."""
        return self._memory.gpu.index

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, GPU {self.device})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """CUDA Array Interface, version 3."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> dlpack.Device:
        """See the array API standard."""
        return dlpack.CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: dlpack.Device | None = None,
        copy: bool | None = None,
    ) -> object:
        """See the array API standard; ``stream`` then waits for what is not complete. Copies to the host, if asked."""
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            if dl_device[0] != dlpack.CPU or copy is False:
                raise BufferError(f"{self} is not shared with DLPack's device {tuple(dl_device)} without a copy")
            return dlpack.capsule_of(self.numpy(), max_version)
        if stream is not None and (not isinstance(stream, int) or stream == 0 or stream < -1):
            raise BufferError(f"{stream!r} is no stream: 1 is the default stream, 2 the thread's")
        array = self._copied(stream) if copy else self
        if stream != -1:
            array._wait_on(LEGACY if stream is None else stream)
        where = array._memory, array.address
        return dlpack.lent(*where, self.shape, self.dtype, self.__dlpack_device__(), max_version, copied=bool(copy))

    def numpy(self) -> Array:
        """A copy on the host, with all that its stream was asked for before."""
        host = np.empty(self.shape, self.dtype)
        gpu, stream = self._memory.gpu, PER_THREAD if self.stream is None else self.stream
        with gpu.current():
            gpu.to_host(host.reshape(-1).view(np.uint8), self.address, stream)
            gpu.wait(stream)
        return host

    def _wait_on(self, stream: int) -> None:
        with self._memory.gpu.current():
            self._memory.gpu.after(stream, self._memory.ready)

    def _copied(self, stream: int | None) -> DeviceArray:
        gpu, at = self._memory.gpu, LEGACY if stream in (None, -1) else stream
        copy = Memory(gpu, self.nbytes)
        with gpu.current():
            gpu.after(at, self._memory.ready)
            gpu.copy(copy.address, self.address, self.nbytes, at)
            gpu.record(copy.ready, at)
        return DeviceArray(copy, copy.address, self.shape, self.dtype.name, at)


def reserve(
    gpu: SharedCuda, arrays: Mapping[str, tuple[tuple[int, ...], str]], stream: int | None
) -> tuple[Memory, dict[str, DeviceArray]]:
    """Arrays of given shapes and types, in one piece of memory."""
    starts, size_bytes = {}, 0
    for name, (shape, dtype) in arrays.items():
        starts[name] = size_bytes
        size_bytes += -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT
    memory = Memory(gpu, size_bytes)
    return memory, {n: DeviceArray(memory, memory.address + starts[n], *arrays[n], stream) for n in arrays}
