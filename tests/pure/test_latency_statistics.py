"""Percentiles, ratios and their intervals, on times that are told."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.latency import statistics
from dlcv_deploy.latency.statistics import drift, percentile, quantiles, ratio, shape, within
from dlcv_deploy.latency.values import Quantile


def test_percentiles_are_values_that_were_measured():
    hundred = tuple(float(v) for v in range(100, 0, -1))
    assert [percentile(hundred, p) for p in (1, 50, 90, 99, 99.9, 100)] == [1, 50, 90, 99, 100, 100]
    twenty = hundred[:20]
    assert [percentile(twenty, p) for p in (50, 90, 99)] == [90, 98, 100]
    assert percentile((3.0,), 50) == percentile((3.0,), 99) == 3
    assert percentile((1.0, 2.0), 50) == 1
    assert percentile(range(1, 1001), 99.9) == 999


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(1, 100))
def test_a_percentile_is_the_least_that_enough_values_do_not_exceed(values, p):
    found = percentile(tuple(values), p)
    assert 100 * sum(v <= found for v in values) >= p * len(values)
    assert all(100 * sum(v <= other for v in values) < p * len(values) for other in values if other < found)


@given(st.lists(st.lists(st.floats(0.001, 1), min_size=1, max_size=9), min_size=6, max_size=20))
def test_quantiles_are_nearest_ranks_inside_their_intervals(blocks):
    pooled = [s for block in blocks for s in block]
    for found in quantiles(blocks):
        assert found.ms == 1e3 * percentile(pooled, found.p)
        assert found.low_ms <= found.high_ms
    assert quantiles(blocks)[0].low_ms <= quantiles(blocks)[0].ms <= quantiles(blocks)[0].high_ms


def test_too_few_blocks_say_nothing_for_sure():
    assert quantiles([[2.0]] * 5, (50,)) == (Quantile(50, 2000.0, 0.0, math.inf),)
    assert quantiles([[2.0]] * 6, (50,)) == (Quantile(50, 2000.0, 2000.0, 2000.0),)
    assert ratio([[2.0]] * 5, [[1.0]] * 5) == (2.0, 0.0, math.inf)


@pytest.mark.parametrize(("p", "calls"), [(90, 36), (95, 72), (99, 368)])
def test_a_high_percentile_of_few_calls_has_no_upper_end(p, calls):
    """p^n falls to 2.5 % there."""
    few, enough = ([[1.0]] * (calls - 1), [[1.0]] * calls)
    assert quantiles(few, (p,))[0].high_ms == math.inf
    assert quantiles(enough, (p,))[0].high_ms == 1000.0
    assert quantiles(enough, (100,))[0].high_ms == math.inf


def test_calls_that_resemble_each_other_count_as_one():
    rng = np.random.default_rng(0)
    levels = rng.normal(1.0, 0.1, 12)
    alike = [[level] * 100 for level in levels]
    mixed = list(rng.permutation(np.repeat(levels, 100)).reshape(12, 100))
    assert within(quantiles(alike, (50,))[0]) > 3 * within(quantiles(mixed, (50,))[0])


def test_intervals_are_those_of_all_ranks_where_calls_are_many(monkeypatch):
    blocks = np.random.default_rng(1).lognormal(0, 0.2, (12, 400)).tolist()
    few = quantiles(blocks)
    monkeypatch.setattr(statistics, "_RANKS", 10**6)
    for a, b in zip(few, quantiles(blocks), strict=True):
        assert a.ms == b.ms
        assert a.low_ms == pytest.approx(b.low_ms, rel=0.005)
        assert a.high_ms == pytest.approx(b.high_ms, rel=0.005)


def test_what_a_round_does_to_both_cancels():
    rounds = np.repeat([1.0, 3.0, 1.0, 5.0, 2.0], 3)
    slow, fast = ([[k * v] * 4 for v in rounds] for k in (4.0, 2.0))
    assert ratio(slow, fast) == (2.0, 2.0, 2.0)
    assert within(quantiles(fast, (50,))[0]) > 0.2


def test_a_clock_that_shows_nothing_has_no_ratio():
    assert ratio([[1.0]] * 6, [[0.0]] * 6) == (math.inf, 0.0, math.inf)
    assert within(Quantile(50, 0.0, 0.0, 0.0)) == 0


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Blocks with a level of their own, 200 times: 95 % of 200 is 190, and 181 is three standard errors below."""
    median = both = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        level = rng.normal(0, 0.02, 12)[:, None]
        fast, slow = (k * np.exp(level + rng.normal(0, 0.02, (12, 20))) for k in (1.0, 2.0))
        found = quantiles(fast.tolist(), (50,))[0]
        _, low, high = ratio(slow.tolist(), fast.tolist())
        median += found.low_ms <= 1000 <= found.high_ms
        both += low <= 2 <= high
    assert median >= 181
    assert both >= 181


def test_drift_is_of_halves():
    assert drift([[1.0], [1.0], [9.0], [2.0], [2.0]]) == 2.0
    assert drift([[1.0], [2.0], [4.0]]) == 1.0
    assert drift([[0.0]] * 4) == 1.0


def test_shape_goes_from_the_fastest_to_the_slowest():
    blocks = [[v / 1000 for v in range(i, 1001, 7)] for i in range(1, 8)]
    found = shape(blocks)
    assert len(found) == 100
    assert found == tuple(sorted(found))
    assert (found[0], found[-1]) == (1.0, 1000.0)
    assert shape([[0.002], [0.001]]) == (1.0, 2.0)
