"""Arrays of other libraries by the DLPack protocol, taken and lent without a copy.

Layouts are those of dlpack.h 1.1; what capsules are called and who frees what is DLPack's "Python Specification".
"""

from __future__ import annotations

import ctypes
import dataclasses as dc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SpecError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""Of DLDeviceType: the host's memory, a GPU's, the host's that a GPU reaches, and what moves between both."""

Device = tuple[int, int]
"""A DLDeviceType, and which of them."""

VERSION = (1, 1)
_IS_COPIED = 2  # DLPACK_FLAG_BITMASK_IS_COPIED
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}  # DLDataTypeCode


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    NAME, USED = b"dltensor", b"used_dltensor"
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    NAME, USED = b"dltensor_versioned", b"used_dltensor_versioned"
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _of_python(name: str, result: Any, *arguments: Any) -> Any:  # noqa: ANN401 - ctypes' types
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_is_valid = _of_python("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_pointer = _of_python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_rename = _of_python("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)


@dc.dataclass(frozen=True, slots=True)
class Taken:
    """Another library's array; ``strides`` in elements, None for rows that follow each other."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] | None
    device: Device


@contextmanager
def taken(capsule: object) -> Iterator[Taken]:
    """What a capsule holds, which is given back at the end, once.

    Raises:
        SpecError: It is no capsule of DLPack, is used up, or is of a later major version.
    """
    form = next((form for form in (_Versioned, _Managed) if _is_valid(capsule, form.NAME)), None)
    if form is None:
        raise SpecError(f"{capsule!r} holds no array that is still to be taken", fix="pass the array itself")
    pointer = _pointer(capsule, form.NAME)
    managed = form.from_address(pointer)
    _rename(capsule, form.USED)
    try:
        if isinstance(managed, _Versioned) and managed.major > VERSION[0]:
            raise SpecError(
                f"an array comes by DLPack {managed.major}.{managed.minor}, and {VERSION[0]}.{VERSION[1]} is known",
                fix="pass it by __cuda_array_interface__, or update dlcv-deploy",
            )
        yield _read(managed.tensor)
    finally:
        if managed.deleter:
            _Deleter(managed.deleter)(pointer)


def _read(tensor: _Tensor) -> Taken:
    kind = _KINDS.get(tensor.code, f"DLPack type {tensor.code}, ")
    lanes = f"x{tensor.lanes}" if tensor.lanes != 1 else ""
    dtype = kind if (kind, tensor.bits) == ("bool", 8) else f"{kind}{tensor.bits}"  # as NumPy names types
    return Taken(
        (tensor.data or 0) + tensor.byte_offset,
        tuple(tensor.shape[: tensor.ndim]),
        f"{dtype}{lanes}",
        tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None,
        (tensor.device_type, tensor.device_id),
    )


class _View:
    """Memory as NumPy is told of it; ``owner`` lives as long as what NumPy makes of it."""

    def __init__(self, owner: object, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.owner = owner
        typestr = np.dtype(dtype).str
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": typestr, "data": (address, False)}


def lent(
    owner: object,
    address: int,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    device: Device,
    max_version: tuple[int, int] | None,
    *,
    copied: bool = False,
) -> object:
    """A capsule with memory that ``owner`` keeps, of rows that follow each other, on any device.

    It is made by NumPy, of an array over that memory that nothing ever reads, and then told its device. So what frees
    it is compiled code, which may run on any thread, while an error is on its way, and when Python has ended; a
    function of Python's may not.
    """
    capsule = capsule_of(np.asarray(_View(owner, address, shape, dtype)), max_version)
    form = _Versioned if _is_valid(capsule, _Versioned.NAME) else _Managed
    managed = form.from_address(_pointer(capsule, form.NAME))
    managed.tensor.device_type, managed.tensor.device_id = device
    if copied and isinstance(managed, _Versioned):
        managed.flags |= _IS_COPIED
    return capsule


def capsule_of(array: npt.NDArray[Any], max_version: tuple[int, int] | None) -> object:
    """NumPy's own capsule of an array; before NumPy 2.1 it knows no versions."""
    try:
        return array.__dlpack__(max_version=max_version)
    except TypeError:
        return array.__dlpack__()
