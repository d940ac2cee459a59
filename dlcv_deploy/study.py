"""What was tried on the way to an INT8 graph and how it answered: plain values, for tables and reports."""

from __future__ import annotations

import dataclasses as dc
import math
import statistics
from typing import Literal


@dc.dataclass(frozen=True, slots=True)
class Score:
    """How far a candidate's answers to held-out images are from those of the fp32 network.

    ``divergence`` is the mean Kullback-Leibler divergence of its softmax from the fp32 network's, in nats. ``sqnr_db``
    is the mean over the images of each one's signal to noise of the logits, by which candidates are told apart, and
    ``sqnr_error_db`` the standard error of that mean. Accuracies are percent, ``None`` without labels; ``drop`` is the
    fp32 network's minus the candidate's top-1 in points, with a paired 95 % interval. ``non_finite`` counts the images
    answered with NaN or infinity: wrong, flipped, and without a divergence or an SQNR (NaN). ``failed`` says why there
    is no candidate; every figure is then ``None``.
    """

    name: str
    images: int = 0
    flips: int | None = None
    divergence: float | None = None
    sqnr_db: float | None = None
    sqnr_error_db: float | None = None
    top1: float | None = None
    top1_reference: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    non_finite: int = 0
    failed: str = ""

    @property
    def flipped_percent(self) -> float | None:
        """The share of images that got another class."""
        return None if self.flips is None or not self.images else 100 * self.flips / self.images


Measure = Literal["top-1", "flips"]
"""What may not be lost: points of top-1, or, without labels, the percent of images that flipped."""


def lost(score: Score, measure: Measure) -> float:
    """How much a candidate lost; infinite where that is not known, or an answer was NaN or infinite."""
    loss = score.drop if measure == "top-1" else score.flipped_percent
    return math.inf if loss is None or score.non_finite else loss


@dc.dataclass(frozen=True, slots=True)
class Tournament:
    """Candidates in the order given, the cheapest first; ``closest`` has the highest SQNR.

    ``winner`` is the first that is not worse than ``closest`` by more than a standard error.
    """

    scores: tuple[Score, ...]
    closest: str
    winner: str


@dc.dataclass(frozen=True, slots=True)
class Spread:
    """The smallest and the largest range of a tensor among calibrations, and their difference over their mean."""

    tensor: str
    low: float
    high: float
    percent: float


@dc.dataclass(frozen=True, slots=True)
class Robustness:
    """What several calibrations gave, on ``images`` random images each; ``worst`` are the tensors that differ most."""

    images: int
    scores: tuple[Score, ...]
    worst: tuple[Spread, ...]

    @property
    def flips(self) -> tuple[int, float, int]:
        """Fewest, median and most flips."""
        counts = [score.flips for score in self.scores if score.flips is not None]
        return min(counts), statistics.median(counts), max(counts)

    @property
    def divergence(self) -> tuple[float, float]:
        """Mean and standard deviation of the divergence, in nats; NaN where an answer was NaN or infinite."""
        found = [score.divergence for score in self.scores if score.divergence is not None]
        if any(score.non_finite for score in self.scores):
            return math.nan, math.nan
        mean = math.fsum(found) / len(found)
        squares = math.fsum((value - mean) ** 2 for value in found)
        return mean, math.sqrt(squares / max(1, len(found) - 1))


@dc.dataclass(frozen=True, slots=True)
class LayerDamage:
    """What one layer costs when it alone is in INT8; ``module`` is its name in PyTorch."""

    node: str
    module: str
    multiply_adds: int
    score: Score


@dc.dataclass(frozen=True, slots=True)
class Point:
    """A mixture of precisions: the share of multiply-adds in INT8, what is left in floating point, and its score.

    ``latency_ms`` is one image's, ``None`` where it was not measured.
    """

    share_int8: float
    float_nodes: tuple[str, ...]
    float_modules: tuple[str, ...]
    score: Score
    latency_ms: float | None = None


@dc.dataclass(frozen=True, slots=True)
class Mixed:
    """The mixture with the most multiply-adds in INT8 of those found to stay within ``max_drop``.

    ``measure`` is what was to stay there: the fall of top-1 in points, or, without labels, the percent of images that
    flipped. ``curve`` has every mixture that was tried, the most INT8 first. Where none stayed within, ``reached`` is
    false and ``chosen`` is the one that fell the least.
    """

    max_drop: float
    measure: Measure
    reached: bool
    chosen: Point
    curve: tuple[Point, ...]


@dc.dataclass(frozen=True, slots=True)
class QuantizationStudy:
    """What was tried for an INT8 graph; ``source`` says in words on which held-out images."""

    source: str
    tournament: Tournament | None = None
    robustness: Robustness | None = None
    sensitivity: tuple[LayerDamage, ...] = ()
    mixed: Mixed | None = None
