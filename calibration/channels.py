"""The largest |x| of each channel of a tensor, over all images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ToolError


class ChannelPeaks:
    """The largest |x| by channel, so far: a fold of ``collect``."""

    __slots__ = ("amax",)

    def __init__(self) -> None:
        self.amax = np.zeros(1, np.float32)
        """(C,), in the unit of x; (1,) and zero as long as nothing was taken in."""

    def add(self, x: npt.ArrayLike) -> None:
        """Take in values, (N, C, ...); taken as float32.

        Raises:
            ToolError: A value is NaN or infinite; nothing is taken in then.
        """
        values = np.asarray(x, np.float32)
        rows = values.reshape(*values.shape[:2], -1)
        amax = np.abs(np.maximum(rows.max((0, 2)), -rows.min((0, 2))))  # abs: -0.0 becomes 0.0
        if not np.isfinite(amax).all():
            raise ToolError("a value is NaN or infinite")
        self.amax = np.maximum(self.amax, amax)

    def merge(self, other: ChannelPeaks) -> None:
        """Take in what another one has taken in."""
        self.amax = np.maximum(self.amax, other.amax)
