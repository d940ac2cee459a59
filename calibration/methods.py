"""From a histogram of |x| to amax, the largest magnitude that INT8 keeps; what lies above it is clipped.

INT8 here is symmetric, one scale a tensor: x is held as ``scale * q`` with scale = amax / 127 and q in -127..127.
All is computed in units of a bin, whose width is a power of two: x scaled by 2**k gives amax scaled by 2**k, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ..errors import SpecError
from .histogram import BINS, Histogram

Method = Callable[[Histogram], float]
LEVELS = 127
"""Positive levels of symmetric INT8."""
DEFAULT = "mse"
_PERCENTILE = "99.99"
_KL_BINS = 2048
"""Bins over [0, top) for the entropy method, as many as TensorRT's calibrator and its successors take."""
_KL_LEVELS = 128
_OCTAVES, _STEPS = 8, 256
"""Clips tried by the MSE method: amax * 2**(-i / 256) down to amax / 256, neighbours 0.27 % apart."""


def amax(histogram: Histogram, method: str = DEFAULT) -> float:
    """The largest magnitude to keep, by a method's name; 0 where every value was zero.

    Raises:
        SpecError: No method of that name.
    """
    return resolve(method)(histogram)


def resolve(method: str) -> Method:
    """The method of a name: one of ``METHODS``, or "percentile:P" with P in (0, 100].

    Raises:
        SpecError: No method of that name, or a percentile out of range.
    """
    name, colon, argument = method.partition(":")
    if colon and name == "percentile":
        share = _percent(argument)
        return lambda histogram: percentile(histogram, share)
    if method not in METHODS:
        raise SpecError(f"no calibration method {method!r}", fix=f"one of {', '.join(METHODS)}, percentile:99.9")
    return METHODS[method]


def maximum(histogram: Histogram) -> float:
    """The largest magnitude seen: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram, percent: Fraction = Fraction(_PERCENTILE)) -> float:
    """The smallest bin edge that ``percent`` of the values which are not zero do not exceed; at most the largest value.

    Never below the exact percentile, and less than a bin above it. Zeros are left out because they are exact at every
    scale; with them in, a tensor that is almost always zero would be clipped to nothing.

    Source: Wu, Judd, Zhang, Isaev, Micikevicius, "Integer Quantization for Deep Learning Inference" (arXiv:2004.09602),
    section 3.3, which takes the distribution of absolute values with its zeros.
    """
    rank = math.ceil(percent * histogram.nonzero / 100)
    edge = int(np.searchsorted(np.cumsum(histogram.counts), rank)) + 1
    return min(edge * histogram.width, histogram.amax)


def entropy(histogram: Histogram) -> float:
    """The clip whose 128 levels lose the least information on the distribution of |x|.

    For each clip of i bins, P is the clipped distribution: the first i bins, with all that lies above added to the
    last of them. Q is what 128 levels keep of the first i bins alone: every level's mass spread evenly over those of
    its bins that are not empty. The clip with the smallest KL divergence of Q from P wins, the widest on a tie. Where
    the last bin is empty and values lie above it, Q cannot explain P and the clip is not taken.

    Source: Migacz, "8-bit Inference with TensorRT" (GTC 2017); ``_compute_amax_entropy`` of NVIDIA's
    pytorch-quantization. Both make the first bin, which holds the zeros, equal to the second; here zeros are not in it.
    """
    if histogram.amax == 0:
        return 0.0
    fold = BINS // _KL_BINS
    counts = histogram.counts.reshape(-1, fold).sum(1)
    used = int(np.flatnonzero(counts)[-1]) + 1  # more than half of the bins: amax is in the upper half of [0, top)
    divergence = _divergence(counts[:used].astype(np.float64), np.arange(min(_KL_LEVELS, used), used + 1))
    bins = used - int(np.argmin(divergence[::-1]))
    return min(bins * fold * histogram.width, histogram.amax)


def mse(histogram: Histogram) -> float:
    """The clip with the smallest squared error of quantizing, values taken as spread evenly within their bins.

    For scale s the error is E[x^2] - 2 s * sum over k = 1..127 of E[max(|x| - (k - 1/2) s, 0)]: each threshold between
    two levels that |x| exceeds lets q rise by one. The expectations come from one table of the histogram, so that a
    clip costs 127 look-ups whatever the bins. The largest value itself is among the clips: never worse than ``max``.

    Source: the criterion of Nagel et al., "A White Paper on Neural Network Quantization" (arXiv:2106.08295), section
    3.1, with this closed form for the error.
    """
    largest = histogram.amax / histogram.width
    clips = largest * np.exp2(-np.arange(_OCTAVES * _STEPS + 1) / _STEPS)
    best = float(clips[np.argmin(_excess(histogram, clips))])
    return min(best * histogram.width, histogram.amax)


def squared_error(histogram: Histogram, clip: float) -> float:
    """Sum over all values of their squared error when INT8 keeps magnitudes up to ``clip``, values even within bins.

    Args:
        histogram: Of the values.
        clip: Above 0, in the unit of x.
    """
    middles = np.arange(BINS) + 0.5
    squares = float(histogram.counts @ (middles**2 + 1 / 12))  # a value spread over a unit bin has variance 1/12
    return (squares + float(_excess(histogram, np.array([clip / histogram.width]))[0])) * histogram.width**2


METHODS: dict[str, Method] = {"mse": mse, "max": maximum, "entropy": entropy, "percentile": percentile}


def _percent(text: str) -> Fraction:
    try:
        percent = Fraction(text)
    except (ValueError, ZeroDivisionError):
        percent = Fraction(0)
    if not 0 < percent <= 100:
        raise SpecError(f"no percentile {text!r}", fix="give a number above 0 and up to 100: percentile:99.9")
    return percent


def _divergence(counts: npt.NDArray[np.float64], clips: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """KL(P || Q) for clips of so many bins each; infinite where Q is empty and P is not.

    Sums over bins are differences of running sums: of counts, of bins that are not empty, and of c log c.
    """
    total = counts.sum()
    mass, occupied, self_information = (
        np.concatenate([[0.0], np.cumsum(v)]) for v in (counts, counts > 0, _x_log_x(counts))
    )
    edges = -(-clips[:, None] * np.arange(_KL_LEVELS + 1) // _KL_LEVELS)  # bin j of i is in level floor(128 j / i)
    level_mass, level_bins = np.diff(mass[edges], axis=1), np.diff(occupied[edges], axis=1)
    mean_log = np.log(np.divide(level_mass, level_bins, out=np.ones_like(level_mass), where=level_bins > 0))
    last, outliers = counts[clips - 1], total - mass[clips]
    p_log_p = self_information[clips] - _x_log_x(last) + _x_log_x(last + outliers)
    p_log_q = (level_mass * mean_log).sum(1) + outliers * mean_log[:, -1]
    inside = np.log(np.maximum(mass[clips], 1))  # Q is over what lies inside, P over all
    divergence: npt.NDArray[np.float64] = (p_log_p - p_log_q) / total - np.log(total) + inside
    divergence[(last == 0) & (outliers > 0)] = np.inf
    return divergence


def _x_log_x(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return x * np.log(np.where(x > 0, x, 1))


def _excess(histogram: Histogram, clips: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The squared error less E[x^2], for clips in units of a bin; never above 0 by more than rounding.

    ``tail`` is the number of values above a bin's lower edge, ``above`` the sum of what they exceed that edge by;
    within a bin the former falls linearly, the latter as a parabola.
    """
    counts = histogram.counts
    tail = np.cumsum(counts[::-1])[::-1]
    above = np.cumsum((tail - counts / 2)[::-1])[::-1]
    scales = clips / LEVELS
    thresholds = scales[:, None] * (np.arange(1, LEVELS + 1) - 0.5)
    bins = np.minimum(thresholds.astype(np.int64), BINS - 1)
    part = thresholds - bins
    exceeded = above[bins] - part * tail[bins] + part * part / 2 * counts[bins]
    result: npt.NDArray[np.float64] = -2 * scales * np.where(part <= 1, exceeded, 0).sum(1)
    return result
