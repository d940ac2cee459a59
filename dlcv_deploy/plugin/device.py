"""The kernels on a GPU: the plugin's library itself, called through its C interface with memory of the device.

For proofs and measurements; engines need none of this.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from ..backends._cuda import Bytes
from ..errors import ToolError
from .formats import Array, Format, from_memory, to_memory
from .gpu import Device
from .interface import Operator

GUARD_BYTES = 256
"""Before and behind each tensor; what is written there is found. A multiple of the alignment of device memory."""

_INVALID_VALUE = 1
_ERRORS = {
    _INVALID_VALUE: "cudaErrorInvalidValue",
    2: "cudaErrorMemoryAllocation",
    35: "cudaErrorInsufficientDriver",
    98: "cudaErrorInvalidDeviceFunction",
    100: "cudaErrorNoDevice",
    209: "cudaErrorNoKernelImageForDevice",
    222: "cudaErrorUnsupportedPtxVersion",
    400: "cudaErrorInvalidResourceHandle",
    700: "cudaErrorIllegalAddress",
    701: "cudaErrorLaunchOutOfResources",
    719: "cudaErrorLaunchFailure",
}
"""cudaError_t, driver_types.h: what a launch may give."""


class DeviceKernels:
    """The two operators on a device.

    Args:
        library: As :func:`~dlcv_deploy.plugin.interface.load` gives it.
        device: Where its memory is.
    """

    def __init__(self, library: Any, device: Device) -> None:  # noqa: ANN401 - a ctypes library
        self.library, self.device = library, device

    def run(
        self,
        x: Array,
        form: Format,
        *,
        pool: Sequence[int] | None = None,
        multiprocessors: int | None = None,
        offset: int = 0,
        guard_bytes: int = GUARD_BYTES,
        **attributes: Any,  # noqa: ANN401 - Operator's
    ) -> tuple[Array, Array] | None:
        """As ``HostKernels.run``: the answer, and what is in the padding channels; None where the launch is refused.

        Raises:
            ToolError: The launch failed, or wrote outside its tensor.
        """
        operator = Operator(**attributes, pool=None if pool is None else tuple(pool))
        (stream,) = self.device.streams(1)
        with self.place(x, form, operator, offset=offset, guard_bytes=guard_bytes) as placed:
            placed.send(stream)
            code = placed.launch(stream, multiprocessors)
            answer = placed.fetch(stream)
        return None if code == _INVALID_VALUE else answer

    def place(
        self, x: Array, form: Format, operator: Operator, *, offset: int = 0, guard_bytes: int = GUARD_BYTES
    ) -> Placed:
        """An operator with its tensors' memory; ``offset`` elements stand between that and where alignment ends."""
        return Placed(self, x, form, operator, offset * form.itemsize + guard_bytes, guard_bytes)


class Placed:
    """One operator with its input and its answer in the memory of the device; a context manager."""

    def __init__(
        self, kernels: DeviceKernels, x: Array, form: Format, operator: Operator, before: int, behind: int
    ) -> None:
        self._kernels, self._form, self._operator, self._shape = kernels, form, operator, x.shape
        self._cuda = kernels.device.cuda
        poison = 77 if form.dtype == "int8" else np.nan
        out = np.full(operator.answers(x.shape), poison, form.dtype)
        self._tensors = tuple(_Tensor(to_memory(each, form, poison), before, behind) for each in (x, out))
        self.bytes = sum(tensor.memory.nbytes for tensor in self._tensors)
        """Of both tensors: what is moved if each element is read or written once."""
        self._held: list[Any] = []
        self._pinned: list[Bytes] = []
        for tensor in self._tensors:
            self._held.append(self._cuda.malloc(tensor.size_bytes))
            self._pinned.append(self._cuda.pinned(tensor.size_bytes))
        self._addresses = [int(memory) + before for memory in self._held]
        self._streams: list[Any] = []

    def send(self, stream: Any) -> None:  # noqa: ANN401 - see Cuda
        """Put on a stream: the input, and a value that is no answer in each place of the answer."""
        self._streams.append(stream)
        for tensor, host, memory in zip(self._tensors, self._pinned, self._held, strict=True):
            host[:] = tensor.whole()
            self._cuda.to_device(memory, host, stream)

    def launch(
        self,
        stream: Any,  # noqa: ANN401 - see Cuda
        multiprocessors: int | None = None,
        *,
        shape: Sequence[int] | None = None,
    ) -> int:
        """Put the operator on a stream, cut for so many multiprocessors (None: the device's).

        A ``shape`` that is not the input's is a lie to the kernel.

        Returns the cudaError_t where it is 0, or cudaErrorInvalidValue, with which attributes are refused.

        Raises:
            ToolError: It is another one.
        """
        operator, device = self._operator, self._kernels.device
        code = operator.launch(
            self._kernels.library,
            self._addresses,
            self._form,
            shape or self._shape,
            device.multiprocessors if multiprocessors is None else multiprocessors,
            self._cuda.address(stream),
        )
        if code not in (0, _INVALID_VALUE):
            raise ToolError(f"dlcv_lrn was not launched: CUDA error {code} ({_ERRORS.get(code, 'see driver_types.h')})")
        return code

    def fetch(self, stream: Any) -> tuple[Array, Array]:  # noqa: ANN401 - see Cuda
        """The answer, once the stream is done, and what is in its padding channels.

        Raises:
            ToolError: The stream failed, or something was written around the answer.
        """
        tensor, host, memory = self._tensors[1], self._pinned[1], self._held[1]
        self._cuda.to_host(host, memory, stream)
        self._cuda.wait(stream)
        around = tensor.whole()
        start, stop = tensor.before, tensor.before + tensor.memory.nbytes
        if not (np.array_equal(host[:start], around[:start]) and np.array_equal(host[stop:], around[stop:])):
            raise ToolError("dlcv_lrn wrote outside its tensor")
        answer = host[start:stop].copy().view(self._form.dtype).reshape(tensor.memory.shape)
        return from_memory(answer, self._form, self._shape[1])

    def close(self) -> None:
        """Give the memory back, once the streams are done that were given to ``send``."""
        streams, self._streams = self._streams, []
        for stream in streams:
            self._cuda.wait(stream)
        held, self._held = self._held, []
        pinned, self._pinned = self._pinned, []
        for memory in held:
            self._cuda.free(memory)
        for host in pinned:
            self._cuda.unpin(host)

    def __enter__(self) -> Placed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dc.dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as it lies in memory, with so many bytes before and behind it."""

    memory: Array
    before: int
    behind: int

    @property
    def size_bytes(self) -> int:
        return self.before + self.memory.nbytes + self.behind

    def whole(self) -> Bytes:
        """All of it; around the tensor stands what shows: 127 in int8, NaN in float16, 3.4e38 in float32."""
        whole = np.full(self.size_bytes, 0x7F, np.uint8)
        whole[self.before : self.before + self.memory.nbytes] = self.memory.reshape(-1).view(np.uint8)
        return whole
