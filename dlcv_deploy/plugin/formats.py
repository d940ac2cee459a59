"""TensorRT's tensor formats, as far as the plugin knows them: NCHW arrays to memory and back.

Source: TensorRT documentation, "Data Format Descriptions": kLINEAR, kHWC8 ([N][H][W][C rounded up to 8]), kCHW4 and
kCHW32 ([N][C/4 or C/32, rounded up][H][W][4 or 32]).
"""

from __future__ import annotations

import dataclasses as dc

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


@dc.dataclass(frozen=True, slots=True)
class Format:
    """A type and a layout; ``number`` is that of the launch header's enumeration.

    ``vector`` channels stand together in memory; ``pixel_major`` says that all channels of a pixel do.
    """

    number: int
    dtype: str
    vector: int = 1
    pixel_major: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize


FORMATS = {
    "fp32 linear": Format(0, "float32"),
    "fp16 linear": Format(1, "float16"),
    "fp16 kHWC8": Format(2, "float16", 8, True),
    "int8 kCHW4": Format(3, "int8", 4),
    "int8 kCHW32": Format(4, "int8", 32),
}


def to_memory(x: Array, form: Format, padding: float = 0) -> Array:
    """An (N, C, H, W) array as it lies in memory; channels that pad the last vector hold ``padding``."""
    n, c, h, w = x.shape
    vectors = -(-c // form.vector)
    room = np.full((n, vectors * form.vector, h, w), padding, form.dtype)
    room[:, :c] = x
    if form.pixel_major:
        return np.ascontiguousarray(room.transpose(0, 2, 3, 1))
    return np.ascontiguousarray(room.reshape(n, vectors, form.vector, h, w).transpose(0, 1, 3, 4, 2))


def from_memory(memory: Array, form: Format, channels: int) -> tuple[Array, Array]:
    """Inverse of :func:`to_memory`; the (N, C, H, W) array, and what stands in the padding channels."""
    if form.pixel_major:
        whole = memory.transpose(0, 3, 1, 2)
    else:
        n, vectors, h, w, v = memory.shape
        whole = memory.transpose(0, 1, 4, 2, 3).reshape(n, vectors * v, h, w)
    return whole[:, :channels], whole[:, channels:]
