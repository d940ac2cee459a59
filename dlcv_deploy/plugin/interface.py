"""The C interface of the kernels (``csrc/lrn_c.cpp``), which the plugin's library and the host's both have."""

from __future__ import annotations

import ctypes
import dataclasses as dc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .formats import Format


def load(library: Path) -> Any:  # noqa: ANN401 - a ctypes library
    """A library of kernels, with the signatures of its C functions; TensorRT is not needed."""
    found = ctypes.CDLL(str(library))
    integers, numbers = ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_float)
    tensors = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, integers)
    found.dlcv_lrn.argtypes = (*tensors, ctypes.c_int, numbers, integers, ctypes.c_int, ctypes.c_void_p)
    found.dlcv_problem.argtypes, found.dlcv_problem.restype = (
        (ctypes.c_int, numbers, integers, ctypes.c_int),
        ctypes.c_char_p,
    )
    return found


@dc.dataclass(frozen=True, slots=True)
class Operator:
    """``DlcvLRN``, or with a ``pool`` (kernel 2, strides 2, pads 4) ``DlcvLRNMaxPool``.

    ``scales`` are those of the input and the output, in int8.
    """

    size: int
    alpha: float
    beta: float
    bias: float
    scales: tuple[float, float] = (0.0, 0.0)
    pool: tuple[int, ...] | None = None

    def answers(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of what it gives for an (N, C, H, W)."""
        return tuple(shape) if self.pool is None else (*shape[:2], *pooled(shape[2:], self.pool))

    def launch(
        self,
        library: Any,  # noqa: ANN401 - a ctypes library
        addresses: Sequence[int],
        form: Format,
        shape: Sequence[int],
        multiprocessors: int,
        stream: int | None = None,
    ) -> int:
        """Call it on the tensors at two addresses; returns the cudaError_t."""
        numbers, pool = self._numbers(), self._pool()
        sizes = (ctypes.c_int * 4)(*shape)
        return int(library.dlcv_lrn(*addresses, form.number, sizes, self.size, numbers, pool, multiprocessors, stream))

    def problem(self, library: Any, *, int8: bool) -> str:  # noqa: ANN401 - a ctypes library
        """What is wrong with its attributes, in words; empty where nothing is."""
        found = library.dlcv_problem(self.size, self._numbers(), self._pool(), int(int8))
        return "" if found is None else str(found.decode())

    def _numbers(self) -> ctypes.Array[ctypes.c_float]:
        return (ctypes.c_float * 5)(self.alpha, self.beta, self.bias, *self.scales)

    def _pool(self) -> ctypes.Array[ctypes.c_int] | None:
        return None if self.pool is None else (ctypes.c_int * 8)(*self.pool)


def pooled(sizes: Sequence[int], pool: Sequence[int]) -> tuple[int, int]:
    """Height and width behind a pool, given as kernel (2), strides (2) and pads (4)."""
    tall, wide = ((sizes[i] + pool[4 + i] + pool[6 + i] - pool[i]) // pool[2 + i] + 1 for i in (0, 1))
    return tall, wide
