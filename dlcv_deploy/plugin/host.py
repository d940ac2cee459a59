"""The kernels' own source on the host: compiled by a C++ compiler, each block and each thread run in turn."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ToolError
from .formats import FORMATS, Array, Format, from_memory, to_memory
from .interface import Operator, load
from .toolchain import find_cxx

_SOURCE = Path(__file__).parent / "csrc/host/lrn_host.cpp"
_FLAGS = ("-std=c++17", "-O2", "-g", "-fPIC", "-shared", "-DDLCV_ON_HOST", "-Wall", "-Wextra", "-Werror", "-x", "c++")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
MULTIPROCESSORS = 108
ORDERS = (0, 1, 2)
"""Ways to put the threads of a block in order between two barriers."""


def compile_host(output: Path, flags: Sequence[str] = (), source: Path = _SOURCE) -> Path:
    """Compile the kernels for the host.

    Args:
        output: The library to write.
        flags: More of them, such as ``SANITIZED``.
        source: ``lrn_host.cpp`` in a folder beside the kernels.

    Raises:
        MissingBackend: There is no C++ compiler.
        ToolError: It refused.
    """
    command = [str(find_cxx()[0]), *_FLAGS, *flags, str(source), "-o", str(output)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError("the kernels do not compile for the host", fix="the log says why", log=done.stderr)
    return output


class HostKernels:
    """The two operators as functions of arrays."""

    def __init__(self, library: Path) -> None:
        self._library = load(library)

    def run(
        self,
        x: Array,
        form: Format,
        *,
        size: int,
        alpha: float,
        beta: float,
        bias: float,
        scales: tuple[float, float] = (0.0, 0.0),
        pool: Sequence[int] | None = None,
        multiprocessors: int = MULTIPROCESSORS,
        order: int = 0,
    ) -> tuple[Array, Array] | None:
        """The answer of a kernel and what it wrote into the padding channels; None where it refused.

        Args:
            x: (N, C, H, W) of the format's type.
            form: Of both tensors; the padding of the input holds a value that must not matter.
            size, alpha, beta, bias: As in :func:`~dlcv_deploy.plugin.reference.lrn`.
            scales: Of the input and the output, in int8.
            pool: Kernel (2), strides (2) and pads (4) of ``DlcvLRNMaxPool``.
            multiprocessors: Of the device to cut the work for.
            order: One of ``ORDERS``.
        """
        operator = Operator(size, alpha, beta, bias, scales, None if pool is None else tuple(pool))
        poison = 77 if form.dtype == "int8" else np.nan
        memory = to_memory(x, form, poison)
        room = to_memory(np.full(operator.answers(x.shape), poison, form.dtype), form, poison)
        self._library.dlcv_host_order(order)
        addresses = memory.ctypes.data, room.ctypes.data
        error = operator.launch(self._library, addresses, form, x.shape, multiprocessors)
        return None if error else from_memory(room, form, x.shape[1])

    def refuses(self, shape: Sequence[int], pool: Sequence[int]) -> bool:
        """Whether ``DlcvLRNMaxPool`` in fp32 refuses a shape, before any memory is touched."""
        operator, form = Operator(5, 1e-4, 0.75, 1.0, pool=tuple(pool)), FORMATS["fp32 linear"]
        return operator.launch(self._library, (0, 0), form, shape, MULTIPROCESSORS) != 0

    def problem(
        self,
        size: int,
        numbers: Sequence[float],
        pool: Sequence[int] | None = None,
        *,
        int8: bool = False,
    ) -> str:
        """What is wrong with attributes, in words; ``numbers`` are alpha, beta, bias and both scales."""
        alpha, beta, bias, *scales = numbers
        operator = Operator(size, alpha, beta, bias, (scales[0], scales[1]), None if pool is None else tuple(pool))
        return operator.problem(self._library, int8=int8)

    def halves(self, halves: Array, floats: Array) -> tuple[Array, Array]:
        """The shim's float32 of every float16, and its float16 of every float32; arrays of one length."""
        wide, narrow = np.empty(halves.size, np.float32), np.empty(halves.size, np.uint16)
        places = [ctypes.c_void_p(a.ctypes.data) for a in (halves, wide, floats, narrow)]
        self._library.dlcv_host_halves(*places, halves.size)
        return wide, narrow
