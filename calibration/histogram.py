"""A streaming histogram of |x|: every batch folds into one value of fixed size, in any order, without rounding."""

from __future__ import annotations

import dataclasses as dc
import math

import numpy as np
import numpy.typing as npt

from ..errors import ToolError

BINS = 8192
"""Bins over [0, top). The largest value lies in the upper half, so at least 4,096 of them resolve the range.

Measured on a million values each (half a Gaussian, Laplace, Student's t with 3 degrees, a Gaussian with one value at
60): the clip that minimizes the squared error of the histogram costs at most 0.01 % more than the best clip for the
values themselves; with 1,024 bins 0.02 %, with 512 bins 1.7 %. The time to fill it does not depend on the bins.
"""
_LOWEST = -100
"""Exponent of the smallest top: 2**113 * x is then finite in float32 for every x below it."""
_CHUNK = 1 << 15
"""Values counted at a time; what is allocated beside the tensor is 256 KiB, whatever its size."""


@dc.dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often |x| fell into each of ``BINS`` equal bins of [0, top), in the unit of x.

    ``top`` is the power of two next above the largest value, so that bin edges of any two histograms nest:
    ``of(a).merge(of(b))`` equals ``of`` of both together, count for count, and merging is associative and commutative.
    ``amax`` is the largest |x| itself, a float32 value. Zeros are counted in ``zeros`` and nowhere else: zero is exact
    at every scale, and half of what a ReLU gives would otherwise drown the first bin.
    """

    counts: npt.NDArray[np.int64] = dc.field(repr=False)
    top: float
    amax: float
    zeros: int

    @classmethod
    def none(cls) -> Histogram:
        """Of no values; merging with it changes nothing."""
        return cls(np.zeros(BINS, np.int64), 2.0**_LOWEST, 0.0, 0)

    @classmethod
    def of(cls, x: npt.ArrayLike) -> Histogram:
        """Count the values of one tensor.

        Args:
            x: Of any shape; taken as float32.

        Raises:
            ToolError: A value is NaN or infinite.
        """
        values = np.asarray(x, np.float32).reshape(-1)
        if not values.size:
            return cls.none()
        highest, lowest = float(values.max()), float(values.min())
        if not (math.isfinite(highest) and math.isfinite(lowest)):
            raise ToolError("a value is NaN or infinite")
        amax = max(highest, -lowest)
        exponent = max(math.frexp(amax)[1], _LOWEST) if amax else _LOWEST
        scale = np.float32(math.ldexp(BINS, -exponent))  # a power of two: the product is exact, floor is the bin
        counts, zeros = np.zeros(BINS, np.int64), 0
        scaled, bins = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.int32)
        for start in range(0, values.size, _CHUNK):
            part = values[start : start + _CHUNK]
            a, b = scaled[: part.size], bins[: part.size]
            np.multiply(part, scale, out=a)
            np.abs(a, out=a)
            np.copyto(b, a, casting="unsafe")
            counts += np.bincount(b, minlength=BINS)
            zeros += part.size - int(np.count_nonzero(part != 0))
        counts[0] -= zeros
        return cls(counts, math.ldexp(1.0, exponent), amax, zeros)

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values together."""
        top = max(self.top, other.top)
        counts = self._counts_up_to(top) + other._counts_up_to(top)
        return Histogram(counts, top, max(self.amax, other.amax), self.zeros + other.zeros)

    @property
    def width(self) -> float:
        """Width of a bin, in the unit of x: a power of two."""
        return self.top / BINS

    @property
    def nonzero(self) -> int:
        """How many values are not zero."""
        return int(self.counts.sum())

    def _counts_up_to(self, top: float) -> npt.NDArray[np.int64]:
        """The counts over bins of [0, top): runs of 2**k bins added up."""
        doublings = min(math.frexp(top)[1] - math.frexp(self.top)[1], BINS.bit_length() - 1)
        counts = np.zeros(BINS, np.int64)
        counts[: BINS >> doublings] = self.counts.reshape(-1, 1 << doublings).sum(1)
        return counts
