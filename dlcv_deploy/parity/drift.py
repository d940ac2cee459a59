"""How far each layer of a graph drifts from the fp32 graph's, and the first that falls out of line."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TYPICAL = 1e-3
"""The most that is taken for one layer's own noise, as a share of its power (30 dB): INT8's rounding alone, over a
range of eight standard deviations, is 12 * 127^2 / 8^2, which is 35 dB. It holds where a fault early in a network has
spoilt every layer after it, so that what is typical there says nothing."""
OUT_OF_LINE_DB = 10.0
"""A layer with ten times the noise that is expected of it is out of line, and one with less is not. The layers of the
bundled INT8 networks stay below 4 dB on their own images and below 9 on drawn ones."""


@dc.dataclass(frozen=True, slots=True)
class TensorError:
    """A tensor beside its exact values: a fold over batches, in the square of the tensor's unit.

    ``signal``, ``power`` and ``noise`` are sums of squares of the exact values, of those found, and of the difference.
    They are NaN or infinite once a value is.
    """

    signal: float = 0.0
    power: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, exact: npt.ArrayLike, found: npt.ArrayLike) -> TensorError:
        """The error of one batch; two arrays of one shape. Sums are in float64."""
        one, other = (np.asarray(x, np.float64).ravel() for x in (exact, found))
        with np.errstate(invalid="ignore", over="ignore"):
            apart = other - one
            return cls(float(one @ one), float(other @ other), float(apart @ apart))

    def merge(self, other: TensorError) -> TensorError:
        """The error of both."""
        return TensorError(self.signal + other.signal, self.power + other.power, self.noise + other.noise)

    @property
    def share(self) -> float:
        """Noise over signal: infinite where there is no signal beside noise, NaN where a value was not finite."""
        if not (math.isfinite(self.signal) and math.isfinite(self.noise)):
            return math.nan
        if self.noise == 0:
            return 0.0
        return self.noise / self.signal if self.signal > 0 else math.inf

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise); infinite where nothing differs, NaN where a value was not finite."""
        share = self.share
        return -10 * math.log10(share) if 0 < share < math.inf else math.inf if share == 0 else -share

    @property
    def cosine(self) -> float:
        """Of the angle between the two, each as one vector; 1 where nothing differs, 0 where one is all zeros."""
        if math.isnan(self.share):
            return math.nan
        if self.noise == 0:
            return 1.0
        norms = math.sqrt(self.signal) * math.sqrt(self.power)
        return max(-1.0, min(1.0, (self.signal + self.power - self.noise) / 2 / norms)) if norms > 0 else 0.0


def outlier(errors: Sequence[TensorError], reads: Sequence[Sequence[int]]) -> int | None:
    """The first layer that falls out of line, by its place; ``None`` where none does.

    SQNR falls with depth, so a layer is held against what it reads. Expected of it is the noise of the worst of its
    inputs, and what a layer of this network typically adds: the median over the layers that add any, at most
    ``TYPICAL``. Both are shares of the power of the tensor they are in. Out of line is a layer whose noise is over that
    by more than ``OUT_OF_LINE_DB``, or that gives NaN or infinity where the exact values are finite.

    So a scale that is 8 times too small, which cuts off most of a tensor, is named wherever it stands. One that is 8
    times too large has 64 times the rounding noise: deep in a network that may be no more than what has gathered there
    already, and is then not named; it does little harm then.

    Args:
        errors: Of the layers in the order of computation, the network's inputs among them.
        reads: For each layer the places of those that it reads; empty for an input, which should be exact.
    """
    shares = [math.inf if math.isnan(error.share) else error.share for error in errors]
    inputs = [max((shares[i] for i in places), default=0.0) for places in reads]
    added = [share - before for share, before in zip(shares, inputs, strict=True)]
    own = [noise for noise in added if 0 < noise < math.inf]
    typical = min(float(np.median(own)), TYPICAL) if own else TYPICAL
    return next(
        (
            place
            for place, (error, before) in enumerate(zip(errors, inputs, strict=True))
            if _excess_db(error, before + typical) > OUT_OF_LINE_DB
        ),
        None,
    )


def _excess_db(error: TensorError, expected: float) -> float:
    if math.isfinite(error.signal) and not math.isfinite(error.noise):
        return math.inf
    if not (0 < error.share < math.inf and expected < math.inf):  # nothing can be told of it
        return -math.inf
    return 10 * math.log10(error.share / expected)
