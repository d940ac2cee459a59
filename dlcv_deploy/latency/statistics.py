"""What calls' times say and how surely: percentiles and ratios with bootstrap intervals that resample whole rounds.

Consecutive calls resemble each other (caches, clocks, other processes), so a bootstrap that draws single calls is too
sure of itself. What is drawn are blocks of consecutive calls (Künsch, The jackknife and the bootstrap for general
stationary observations, Annals of Statistics 17, 1989), here those that the rounds of a run are made of, which do not
overlap (Carlstein, The use of subseries values, Annals of Statistics 14, 1986). Blocks are few, so the interval leaves
out less at either end, by Student's t in place of the normal (Hesterberg, What teachers should know about the
bootstrap, The American Statistician 69, 2015, the expanded percentile interval).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist, median

import numpy as np
import numpy.typing as npt

from .values import POINTS, Quantile

FEWEST_BLOCKS = 6
"""Blocks below which there is no interval: of five values all may lie on one side of the median (1/16 > 5 %)."""
MOST_BLOCKS = 16
"""Blocks above which rounds are put together: long blocks know of slow changes, and more say little more (Schmeiser,
Batch size effects in the analysis of simulation output, Operations Research 30, 1982)."""
_REPLICATES = 2000
_RANKS = 1000
_TAIL_RANKS = 500

Blocks = Sequence[Sequence[float]]
"""Seconds of the calls of each round, in order."""
Floats = npt.NDArray[np.float64]


def percentile(values: Sequence[float], p: float) -> float:
    """The least of the values that at least ``p`` percent of them do not exceed (nearest rank, no interpolation).

    p99 of fewer than 100 values is therefore the greatest.
    """
    return sorted(values)[_rank(p, len(values)) - 1]


def quantiles(blocks: Blocks, points: Sequence[float] = POINTS) -> tuple[Quantile, ...]:
    """Percentiles of all calls in milliseconds, each with a 95 % interval.

    An interval has no upper end (infinite) where even the slowest of so many calls may lie below the percentile
    (probability p^n above 2.5 %), as it always may for the hundredth; and none at all (0 to infinity) where there are
    fewer than ``FEWEST_BLOCKS`` blocks.

    Args:
        blocks: Seconds of the calls of each round; one call or more in all.
        points: Percentiles, above 0 and up to 100.
    """
    pooled = np.sort(np.concatenate([np.asarray(block, np.float64) for block in blocks]))
    found = [1e3 * float(pooled[_rank(p, len(pooled)) - 1]) for p in points]
    if len(blocks) < FEWEST_BLOCKS:
        return tuple(Quantile(p, ms, 0.0, math.inf) for p, ms in zip(points, found, strict=True))
    groups = _merged(blocks)
    drawn = 1e3 * _resampled(groups, pooled, points)
    rows = []
    for p, ms, values in zip(points, found, drawn, strict=True):
        low, high = _interval(values, len(groups))
        rows.append(Quantile(p, ms, low, math.inf if (p / 100) ** len(pooled) > 0.025 else high))
    return tuple(rows)


def within(median: Quantile) -> float:
    """Half the width of an interval as a fraction of the value: 0.01 is known to 1 %, infinity not known."""
    return (median.high_ms - median.low_ms) / 2 / median.ms if median.ms > 0 else 0.0


def ratio(slow: Blocks, fast: Blocks) -> tuple[float, float, float]:
    """How many times as fast ``fast`` is, and the 95 % interval of that: the median over rounds of a round's ratio.

    A round's ratio is that of the medians of the blocks that both had in it, one right after the other, so whatever the
    machine did to both cancels. The ratio of the medians of all calls is as good where the machine is steady; where its
    speed changes from time to time, that one's interval is up to ten times as wide. Below ``FEWEST_BLOCKS`` rounds the
    interval is 0 to infinity.
    """
    pairs = ((median(a), median(b)) for a, b in zip(slow, fast, strict=True))  # nearest ranks favour short blocks
    rounds = np.array([a / b if b > 0 else math.inf for a, b in pairs])
    found = float(np.median(rounds))
    if len(rounds) < FEWEST_BLOCKS or not np.isfinite(rounds).all():
        return found, 0.0, math.inf
    drawn = np.random.default_rng(0).integers(0, len(rounds), (_REPLICATES, len(rounds)))
    low, high = _interval(np.median(rounds[drawn], axis=1), len(rounds))
    return found, low, high


def drift(blocks: Blocks) -> float:
    """The median of the later half of the rounds over that of the earlier; 1 where there are fewer than four."""
    if len(blocks) < 4:
        return 1.0
    half = len(blocks) // 2
    early, late = (percentile([s for block in part for s in block], 50) for part in (blocks[:half], blocks[-half:]))
    return late / early if early > 0 else 1.0


def shape(blocks: Blocks, count: int = 100) -> tuple[float, ...]:
    """Milliseconds of at most ``count`` calls, evenly spaced in rank from the fastest to the slowest, to 1 ns."""
    pooled = sorted(s for block in blocks for s in block)
    ranks = np.linspace(0, len(pooled) - 1, min(count, len(pooled))).round().astype(int)
    return tuple(round(1e3 * pooled[rank], 6) for rank in ranks)


def _rank(p: float, count: int) -> int:
    """Of the percentile among ``count`` values in ascending order, from 1; 99.9 % of 1000 is 999."""
    return max(1, math.ceil(round(p * count / 100, 6)))


def _merged(blocks: Blocks) -> Blocks:
    """Blocks of so many consecutive rounds each that ``MOST_BLOCKS`` are left at the most."""
    size = -(-len(blocks) // MOST_BLOCKS)
    return [[s for block in blocks[at : at + size] for s in block] for at in range(0, len(blocks), size)]


def _resampled(blocks: Blocks, pooled: Floats, points: Sequence[float]) -> Floats:
    """Percentiles of each replicate: (points, replicates), in seconds.

    Of more than 1500 calls a replicate's percentile is sought among 1500 of them, the slowest more densely.

    Args:
        blocks: Seconds of the calls of each round.
        pooled: All of them in ascending order.
        points: Percentiles.
    """
    last = len(pooled) - 1
    ranks = np.arange(len(pooled))
    if len(pooled) > _RANKS + _TAIL_RANKS:
        tail = last + 1 - np.geomspace(1, len(pooled), _TAIL_RANKS)
        ranks = np.unique(np.concatenate([np.linspace(0, last, _RANKS), tail]).round().astype(int))
    candidates = pooled[ranks]
    below = np.stack([np.searchsorted(np.sort(block), candidates, side="right") for block in blocks])
    draws = _draws(len(blocks))
    reached = draws @ below.astype(np.float64)  # (replicates, candidates): calls of the replicate not above each
    return np.stack(
        [
            candidates[(reached >= np.ceil(np.round(p * reached[:, -1:] / 100, 6)).clip(1)).argmax(axis=1)]
            for p in points
        ]
    )


@functools.lru_cache(maxsize=4)
def _draws(blocks: int) -> Floats:
    """How often each replicate draws each block, with replacement: (replicates, blocks)."""
    return np.random.default_rng(0).multinomial(blocks, np.full(blocks, 1 / blocks), _REPLICATES).astype(np.float64)


def _interval(values: Floats, blocks: int) -> tuple[float, float]:
    """What the widened middle 95 % of replicates reach from and to."""
    tail = NormalDist().cdf(-math.sqrt(blocks / (blocks - 1)) * _student(blocks - 1))
    low, high = np.quantile(values, (tail, 1 - tail), method="inverted_cdf")
    return float(low), float(high)


def _student(freedom: int) -> float:
    """The 97.5th percentile of Student's t, to 0.2 % from five degrees of freedom (Abramowitz and Stegun, 26.7.5)."""
    z, n = NormalDist().inv_cdf(0.975), freedom
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
