"""A streaming histogram of |x|: values fold into one of fixed size piece by piece, in any order, without rounding."""

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
_SMALLEST_TOP = 2.0**-100
"""2**113 * x is finite in float32 for every x below it."""
_CHUNK = 1 << 15
"""Values counted at a time; what is allocated beside the tensor is 576 KiB at most, whatever its size."""


@dc.dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often |x| fell into each of ``BINS`` equal bins of [0, top), in the unit of x.

    ``top`` is the power of two next above the largest value, so that bin edges of any two histograms nest:
    ``of(a).merge(of(b))`` equals ``of`` of both together, count for count, and merging is associative and commutative.
    ``lowest`` and ``highest`` are the extreme values themselves, with their signs (of no values: inf and -inf). Zeros
    are counted in ``zeros`` and nowhere else: zero is exact at every scale, and half of what a ReLU gives would
    otherwise drown the first bin.
    """

    counts: npt.NDArray[np.int64] = dc.field(repr=False)
    top: float
    lowest: float
    highest: float
    zeros: int

    @classmethod
    def none(cls) -> Histogram:
        """Of no values; merging with it changes nothing."""
        return Tally().histogram()

    @classmethod
    def of(cls, x: npt.ArrayLike) -> Histogram:
        """Count the values of one tensor.

        Args:
            x: Of any shape; taken as float32.

        Raises:
            ToolError: A value is NaN or infinite.
        """
        tally = Tally()
        tally.add(x)
        return tally.histogram()

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values together."""
        top = max(self.top, other.top)
        counts = _folded(self.counts, self.top, top) + _folded(other.counts, other.top, top)
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        return Histogram(counts, top, lowest, highest, self.zeros + other.zeros)

    @property
    def amax(self) -> float:
        """The largest |x| itself, a float32 value; 0 of no values."""
        return max(self.highest, -self.lowest, 0.0)

    @property
    def constant(self) -> bool:
        """Whether every value is the same one; so also where all are zero, or there is none."""
        return self.lowest >= self.highest

    @property
    def width(self) -> float:
        """Width of a bin, in the unit of x: a power of two."""
        return self.top / BINS

    @property
    def nonzero(self) -> int:
        """How many values are not zero."""
        return int(self.counts.sum())


class Tally:
    """A histogram in the making, by one thread."""

    __slots__ = ("_counts", "_highest", "_lowest", "_top", "_zeros")

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        self._top, self._lowest, self._highest, self._zeros = _SMALLEST_TOP, math.inf, -math.inf, 0

    def add(self, x: npt.ArrayLike) -> None:
        """Count the values of one more tensor.

        Args:
            x: Of any shape; taken as float32.

        Raises:
            ToolError: A value is NaN or infinite; nothing is counted then.
        """
        values = np.asarray(x, np.float32).reshape(-1)
        if not values.size:
            return
        highest, lowest = float(values.max()) + 0.0, float(values.min()) + 0.0  # -0.0 becomes 0.0
        if not (math.isfinite(highest) and math.isfinite(lowest)):
            raise ToolError("a value is NaN or infinite")
        self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
        if (amax := max(highest, -lowest)) >= self._top:
            top = math.ldexp(1.0, math.frexp(amax)[1])
            self._counts, self._top = _folded(self._counts, self._top, top), top
        scale = np.float32(BINS / self._top)  # a power of two: the product is exact, floor is the bin
        at_a_time = min(values.size, _CHUNK)
        scaled, bins = np.empty(at_a_time, np.float32), np.empty(at_a_time, np.int32)
        for start in range(0, values.size, _CHUNK):
            part = values[start : start + _CHUNK]
            a, b = scaled[: part.size], bins[: part.size]
            np.multiply(part, scale, out=a)
            if lowest < 0:
                np.abs(a, out=a)
            np.copyto(b, a, casting="unsafe")
            found = np.bincount(b)
            if found[0]:  # zeros are among them
                zeros = part.size - int(np.count_nonzero(part != 0))
                found[0] -= zeros
                self._zeros += zeros
            self._counts[: found.size] += found

    def merge(self, other: Tally) -> None:
        """Count what another one has counted."""
        both = self.histogram().merge(other.histogram())
        self._counts, self._top, self._zeros = both.counts, both.top, both.zeros
        self._lowest, self._highest = both.lowest, both.highest

    def histogram(self) -> Histogram:
        """What was counted so far."""
        return Histogram(self._counts.copy(), self._top, self._lowest, self._highest, self._zeros)


def _folded(counts: npt.NDArray[np.int64], top: float, wider: float) -> npt.NDArray[np.int64]:
    """Counts over bins of [0, top) as counts over bins of [0, wider): runs of 2**k bins added up."""
    doublings = min(math.frexp(wider)[1] - math.frexp(top)[1], BINS.bit_length() - 1)
    result = np.zeros(BINS, np.int64)
    result[: BINS >> doublings] = counts.reshape(-1, 1 << doublings).sum(1)
    return result
