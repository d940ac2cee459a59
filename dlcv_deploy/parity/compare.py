"""Statistics of two classifiers' answers to the same images. NaN and infinity are findings: they never pass.

An answer is a row of scores, one a class. Equal scores rank by class index, the lower first, so that every figure is
one number. A row that holds a NaN or an infinity names no class (``NONE``), is wrong at every k and agrees with none.
"""

from __future__ import annotations

import dataclasses as dc
import math

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.int64]

NONE = -1
"""The class of an image whose scores are not all finite."""

NEAREST = 5
FEWEST = 2 * NEAREST + 1
_CHUNK = 1 << 20
_ROUNDING = 2.0**-40
"""Squared distances below this share of the squared norms they come from are the rounding of float64 products."""


def softmax(logits: Scores) -> npt.NDArray[np.float64]:
    """Probabilities over the last axis, in float64; all NaN where a logit is NaN or +infinity."""
    with np.errstate(invalid="ignore"):
        shifted = np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True)
        weights = np.exp(shifted)
        return np.asarray(weights / weights.sum(-1, keepdims=True))


def finite_rows(scores: Scores) -> Flags:
    """Whether every value of a row is finite: (N, ...) -> (N,)."""
    return np.asarray(np.isfinite(scores).reshape(len(scores), -1).all(1))


def predictions(scores: Scores) -> Classes:
    """The class with the highest score, the lowest of equals; ``NONE`` in a row that is not finite: (N, K) -> (N,)."""
    return np.where(finite_rows(scores), scores.argmax(1), NONE).astype(np.int64)


def hits(scores: Scores, labels: Classes, k: int) -> Flags:
    """Whether the label is among the ``k`` best classes: (N, K) and (N,) -> (N,). Never so in a row not finite."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    lower = np.arange(scores.shape[1]) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & lower)).sum(1)
    return np.asarray((rank < k) & finite_rows(scores))


def flipped(reference: Classes, candidate: Classes) -> Flags:
    """Where two sets of predictions differ; an image that either could not answer counts as flipped."""
    return np.asarray((reference != candidate) | (reference == NONE))


@dc.dataclass(frozen=True, slots=True)
class LogitError:
    """How far logits are from the reference's: a fold over batches, in the logits' own unit.

    ``max_abs`` is the greatest difference, ``signal`` and ``noise`` are sums of squares of the reference and of the
    difference. All are NaN once any logit on either side was NaN or infinite.
    """

    max_abs: float = 0.0
    signal: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, reference: Scores, candidate: Scores) -> LogitError:
        """The error of one batch; arrays of one shape."""
        if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
            return cls(math.nan, math.nan, math.nan)
        exact = np.asarray(reference, np.float64)
        error = np.asarray(candidate, np.float64) - exact
        return cls(float(np.abs(error).max(initial=0.0)), float(np.square(exact).sum()), float(np.square(error).sum()))

    def merge(self, other: LogitError) -> LogitError:
        """The error of both batches."""
        worst = float(np.maximum(self.max_abs, other.max_abs))  # np.maximum keeps a NaN, max() may lose it
        return LogitError(worst, self.signal + other.signal, self.noise + other.noise)

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise); infinite where the logits are equal, NaN where any is not finite."""
        if math.isnan(self.noise):
            return math.nan
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf


def vector_errors(reference: Scores, candidate: Scores) -> npt.NDArray[np.float64]:
    """Cosine similarity, squared norm of the reference and of the difference, a row: twice (N, ...) -> (N, 3).

    Whatever shape a row has, it is one vector; sums are in float64. Equal vectors have a cosine of 1, also two zeros; a
    zero beside another vector has 0. A row with a value on either side that is not finite is NaN throughout.
    """
    found = np.full((len(reference), 3), np.nan)
    for row, a, b in zip(found, reference, candidate, strict=True):
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            continue
        one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
        signal, noise = float(np.square(one).sum()), float(np.square(other - one).sum())
        norms = math.sqrt(signal) * math.sqrt(float(np.square(other).sum()))
        cosine = 1.0 if noise == 0 else float((one * other).sum()) / norms if norms > 0 else 0.0
        row[:] = max(-1.0, min(1.0, cosine)), signal, noise
    return found


def relative_percent(noise: float, signal: float) -> float:
    """100 times the root of noise over signal: 0 where there is no noise, infinite where there is nothing else."""
    if noise == 0:
        return 0.0
    return math.nan if math.isnan(noise) else 100 * math.sqrt(noise / signal) if signal > 0 else math.inf


def neighbours_percent(reference: Scores, candidate: Scores) -> float | None:
    """How far two sets of vectors agree on what is near: the mean share of a row's ``NEAREST`` that both name.

    The nearest of a row are among the other rows, by Euclidean distance. Distances that are equal in float32 share the
    places that are left, in equal parts: the figure depends neither on the order of the rows nor on who wins a tie,
    and vectors that are all the same agree entirely.

    Args:
        reference: (N, D).
        candidate: (N, E), of the same images in the same order.

    Returns:
        Percent; by chance it would be 100 ``NEAREST`` / (N - 1). NaN where any value is not finite. ``None`` for fewer
        than ``FEWEST`` rows, where chance alone would reach more than 50.

    Source: the retrieval of Krizhevsky, Sutskever, Hinton (2012), figure 4 (right) and section 6.1.
    """
    rows = len(reference)
    if rows < FEWEST:
        return None
    if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        return math.nan
    sides = [np.asarray(side, np.float64) for side in (reference, candidate)]
    step = max(1, _CHUNK // rows)
    shares = []
    for start in range(0, rows, step):
        one, other = (_places(side, start, min(start + step, rows)) for side in sides)
        shares += np.minimum(one, other).sum(1).tolist()
    return 100 * math.fsum(shares) / (NEAREST * rows)


def _places(vectors: npt.NDArray[np.float64], start: int, stop: int) -> npt.NDArray[np.float64]:
    """For rows ``start`` to ``stop``, the part of a place among the nearest that each row has: (stop - start, N)."""
    own, norms = np.arange(start, stop), np.square(vectors).sum(1)
    squares = norms[start:stop, None] + norms
    noise = squares * _ROUNDING
    squares -= 2 * (vectors[start:stop] @ vectors.T)
    squares[squares < noise] = 0.0
    with np.errstate(over="ignore"):
        distances = np.sqrt(squares).astype(np.float32)
    distances[own - start, own] = np.inf
    last = np.partition(distances, NEAREST - 1, axis=1)[:, NEAREST - 1 : NEAREST]
    nearer, level = distances < last, distances == last
    left = NEAREST - nearer.sum(1, keepdims=True)
    return np.asarray(nearer + level * (left / level.sum(1, keepdims=True)))
