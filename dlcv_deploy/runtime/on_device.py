"""Runs engines on arrays that lie in a GPU's memory."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.base import Array, Session
from ..backends.session import OnDevice, describe
from ..errors import SpecError
from ..types import TensorSpec
from . import dlpack
from .device_array import LEGACY, DeviceArray, reserve

if TYPE_CHECKING:
    from ..backends._cuda import SharedCuda


@dc.dataclass(frozen=True, slots=True)
class Borrowed:
    """Somebody's array on the GPU; ``stream`` is where it is complete, None where the engine's stream waits for it."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    in_rows: bool
    stream: int | None = None


def is_on_device(array: object, spec: TensorSpec) -> bool:
    """Whether an array for an input lies in a GPU's memory, by its own word."""
    if hasattr(array, "__dlpack_device__"):
        return _device(array, spec)[0] in (dlpack.CUDA, dlpack.CUDA_MANAGED)
    return getattr(array, "__cuda_array_interface__", None) is not None


def _device(array: Any, spec: TensorSpec) -> dlpack.Device:  # noqa: ANN401 - any library's
    try:
        kind, index = array.__dlpack_device__()
    except _REFUSALS as e:
        raise _unshared(array, spec, e) from e
    return int(kind), int(index)


def host_array(array: object, spec: TensorSpec) -> Array:
    """Another library's array on the host as NumPy's, without a copy.

    Raises:
        SpecError: It is no array, or the library does not share it.
    """
    if not hasattr(array, "__dlpack__"):
        fix = f"feed a NumPy array or one of torch, CuPy, pycuda or Numba: {describe(spec)}"
        raise SpecError(f"input {spec.name!r} is a {type(array).__name__}", fix=fix)
    try:
        return np.from_dlpack(array)
    except _REFUSALS as e:
        raise _unshared(array, spec, e) from e


def run_on_device(session: Session, array: object, stream: object) -> dict[str, DeviceArray]:
    """The outputs for an array on the session's GPU, which are on it too.

    Args:
        session: One of a single input.
        array: With ``__dlpack__`` or ``__cuda_array_interface__``.
        stream: The caller's, as torch, CuPy, pycuda, Numba or cuda-python have it, or an integer: the work follows what
            is on it and is complete on it, and this returns before that. None for the stream that the array itself
            names; where it names none, this returns when all is complete.

    Raises:
        MissingBackend: cuda-python is not installed.
        SpecError: The array is on another device, has another shape or type, or is not in rows; or no stream is one.
        ToolError: The engine or CUDA failed.
    """
    spec = session.inputs[0]
    if not isinstance(session, OnDevice):
        raise SpecError(
            f"input {spec.name!r} is on a GPU, and the engine is not",
            fix="copy it to the host, by .cpu() or .get(), or load an engine with backend='tensorrt_rtx' or 'tensorrt'",
        )
    gpu, then = session.shared, None if stream is None else handle(stream)
    with _borrowed(array, spec, gpu, session.stream) as given:
        _check(given, spec, gpu)
        after = [one for one in (given.stream, then) if one is not None]
        then = given.stream if then is None else then
        rows = given.shape[0]
        shapes = {out.name: ((rows, *out.shape), out.dtype) for out in session.outputs}
        memory, answers = reserve(gpu, shapes, then)
        places = {name: answer.address for name, answer in answers.items()}
        session.run_device(rows, {spec.name: given.address}, places, after=after, done=memory.ready, then=then)
    return answers


def handle(stream: Any) -> int:  # noqa: ANN401 - any library's
    """A stream as an integer, the default stream as 1.

    Raises:
        SpecError: It is none of any library that is known.
    """
    number = stream
    if hasattr(stream, "__cuda_stream__"):  # cuda-python's protocol: version, handle
        number = stream.__cuda_stream__()[1]
    else:
        for name in ("cuda_stream", "ptr", "handle"):  # torch; CuPy; pycuda and Numba
            number = getattr(stream, name, number)
    number = getattr(number, "value", number)  # Numba's is of ctypes, whose null is None
    number = 0 if number is None and number is not stream else number
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise SpecError(
            f"{stream!r} is no CUDA stream", fix="pass a stream of torch, CuPy, pycuda or cuda-python, or its handle"
        )
    return number or LEGACY


_REFUSALS = (AssertionError, BufferError, RuntimeError, TypeError, ValueError)  # all seen of libraries' ``__dlpack__``


def _unshared(array: object, spec: TensorSpec, error: Exception) -> SpecError:
    what = f"input {spec.name!r}, a {type(array).__name__}, is not shared: {error}"
    return SpecError(what, fix="in torch, pass x.detach() of the current device")


@contextmanager
def _borrowed(array: Any, spec: TensorSpec, gpu: SharedCuda, stream: int) -> Iterator[Borrowed]:  # noqa: ANN401
    """An array while it is used; by DLPack if it can, as ``stream`` then waits for what its library has still to do."""
    if not hasattr(array, "__dlpack__"):
        yield _by_interface(array.__cuda_array_interface__, spec)
        return
    kind, index = _device(array, spec)
    if kind == dlpack.CUDA and index != gpu.index:  # before the library is asked to use a stream that is not there
        raise SpecError(
            f"input {spec.name!r} lies on GPU {index}, and the engine on GPU {gpu.index}",
            fix=f"copy it, or load with device={index}",
        )
    try:
        capsule = _capsule(array, stream)
    except _REFUSALS as e:
        raise _unshared(array, spec, e) from e
    with dlpack.taken(capsule) as got:
        yield Borrowed(got.address, got.shape, got.dtype, _in_rows(got.shape, got.strides, 1))


def _capsule(array: Any, stream: int) -> object:  # noqa: ANN401 - any library's
    try:
        return array.__dlpack__(stream=stream, max_version=dlpack.VERSION)
    except TypeError:  # a library from before there were versions
        return array.__dlpack__(stream=stream)


def _by_interface(told: Mapping[str, Any], spec: TensorSpec) -> Borrowed:
    """What the CUDA Array Interface says; streams are in it from version 3 on."""
    if told.get("mask") is not None:
        raise SpecError(f"input {spec.name!r} has a mask", fix="fill in what it hides")
    stream = told.get("stream")
    if stream is not None and (not isinstance(stream, int) or stream < 1):
        fix = "1 is the default stream, 2 the thread's"
        raise SpecError(f"input {spec.name!r} names as its stream {stream!r}, which is none", fix=fix)
    dtype, shape = np.dtype(told["typestr"]), tuple(told["shape"])
    in_rows = _in_rows(shape, told.get("strides"), dtype.itemsize)
    return Borrowed(int(told["data"][0]), shape, dtype.name if dtype.isnative else dtype.str, in_rows, stream)


def _in_rows(shape: tuple[int, ...], strides: tuple[int, ...] | None, unit: int) -> bool:
    """Whether elements follow each other, the last axis first; an axis of one element may have any stride."""
    if strides is None or 0 in shape:
        return True
    wanted = [unit * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return all(size == 1 or a == b for size, a, b in zip(shape, strides, wanted, strict=True))


def _check(given: Borrowed, spec: TensorSpec, gpu: SharedCuda) -> None:
    """As ``backends.session.ordered``, where nothing can be converted."""
    if given.dtype != spec.dtype:
        raise SpecError(
            f"input {spec.name!r} is {given.dtype}, not {spec.dtype}", fix=f"convert it on the GPU: {describe(spec)}"
        )
    if given.shape[1:] != spec.shape or len(given.shape) != len(spec.shape) + 1:
        raise SpecError(f"input {spec.name!r} has shape {given.shape}", fix=f"feed {describe(spec)}")
    if not given.shape[0]:
        raise SpecError(f"input {spec.name!r} is a batch of 0", fix="feed at least one row")
    if not given.in_rows:
        raise SpecError(
            f"input {spec.name!r} does not lie row by row in memory",
            fix="x.contiguous() in torch, cupy.ascontiguousarray(x) in CuPy",
        )
    with gpu.current():
        why, fix = gpu.foreign(given.address)
    if why:
        raise SpecError(f"input {spec.name!r} {why}", fix=fix)
