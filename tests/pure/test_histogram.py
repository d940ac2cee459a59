"""Histograms count exactly, and merging them is the same as counting all at once."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlcv_deploy.calibration.histogram import BINS, Histogram, Tally
from dlcv_deploy.errors import ToolError

FINITE = (
    st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.floats(-4, 4, width=32)
    | st.floats(-(2.0**-95), 2.0**-95, width=32)
)
ARRAYS = hnp.arrays(np.float32, st.integers(0, 40), elements=FINITE)


def counted(x):
    """By the definition, in float64: bin i holds i * top / BINS <= |x| < (i + 1) * top / BINS."""
    magnitudes = np.abs(np.asarray(x, np.float64).reshape(-1))
    amax = magnitudes.max(initial=0.0)
    top = 2.0**-100
    while top <= amax:
        top *= 2
    counts = np.zeros(BINS, np.int64)
    for value in magnitudes[magnitudes > 0]:
        counts[int(np.floor(value / (top / BINS)))] += 1
    return counts, top, amax, int((magnitudes == 0).sum())


def assert_same(a, b):
    assert (a.top, a.lowest, a.highest, a.zeros) == (b.top, b.lowest, b.highest, b.zeros)
    assert np.array_equal(a.counts, b.counts)


@given(ARRAYS)
def test_counts_are_those_of_the_definition(x):
    h = Histogram.of(x)
    counts, top, amax, zeros = counted(x)
    assert (h.top, h.amax, h.zeros) == (top, amax, zeros)
    assert np.array_equal(h.counts, counts)


@given(ARRAYS, ARRAYS, ARRAYS)
def test_merging_is_counting_together_in_any_order(a, b, c):
    ha, hb, hc = map(Histogram.of, (a, b, c))
    whole = Histogram.of(np.concatenate([a, b, c]))
    for merged in (ha.merge(hb).merge(hc), ha.merge(hb.merge(hc)), hc.merge(ha).merge(hb)):
        assert_same(merged, whole)


@given(st.lists(ARRAYS, max_size=5))
def test_a_tally_counts_piece_by_piece_and_merges(pieces):
    whole = Histogram.of(np.concatenate([np.zeros(0, np.float32), *pieces]))
    one, other = Tally(), Tally()
    for i, piece in enumerate(pieces):
        (one if i % 2 else other).add(piece)
    one.merge(other)
    assert_same(one.histogram(), whole)


@given(ARRAYS)
def test_the_extremes_keep_their_signs(x):
    h = Histogram.of(x)
    assert (h.lowest, h.highest) == (x.min(initial=np.inf), x.max(initial=-np.inf))
    assert h.constant == (len({float(v) for v in x}) <= 1)


def test_negative_zero_is_zero_and_leaves_no_sign():
    h = Histogram.of([-0.0])
    assert [str(v) for v in (h.lowest, h.highest, h.amax)] == ["0.0"] * 3
    assert h.constant
    assert h.zeros == 1


def test_what_was_counted_stays_as_it_was():
    tally = Tally()
    tally.add([1.0])
    before = tally.histogram()
    tally.add([0.5, 3.0])
    assert (before.nonzero, before.top) == (1, 2.0)
    with pytest.raises(ToolError, match="NaN"):
        tally.add([8.0, np.nan])
    assert_same(tally.histogram(), Histogram.of([1.0, 0.5, 3.0]))


@given(ARRAYS, st.integers(-10, 10))
def test_a_power_of_two_moves_the_top_and_no_count(x, k):
    x = x[(np.abs(x) > 1e-25) & (np.abs(x) < 1e30)]
    h, scaled = Histogram.of(x), Histogram.of(x * np.float32(2.0**k))
    assert np.array_equal(h.counts, scaled.counts)
    if x.size:
        assert (scaled.top, scaled.amax) == (h.top * 2.0**k, h.amax * 2.0**k)


def test_bin_edges_belong_to_the_upper_bin():
    edges = np.arange(BINS, dtype=np.float32) / np.float32(BINS)
    h = Histogram.of(np.append(edges, np.float32(0.75)))
    assert h.top == 1.0
    assert h.zeros == 1
    assert np.array_equal(h.counts, [0, *np.ones(BINS - 1)] + (np.arange(BINS) == 0.75 * BINS))


def test_a_power_of_two_is_below_its_top():
    h = Histogram.of([1.0, -2.0])
    assert h.top == 4.0
    assert np.flatnonzero(h.counts).tolist() == [BINS // 4, BINS // 2]


def test_every_chunk_is_counted():
    """More values than are counted at a time, and a last chunk that is not full."""
    x = np.arange(-100_000, 100_001, dtype=np.float32)
    h = Histogram.of(x.reshape(3, -1))
    assert h.zeros == 1
    assert h.nonzero == 200_000
    assert h.top == 131072.0
    per_bin = np.diff(np.minimum(np.arange(BINS + 1) * 16, 100_001))
    per_bin[0] -= 1  # zero
    assert np.array_equal(h.counts, 2 * per_bin)


def test_only_zeros_resolve_nothing_and_cost_no_resolution():
    zeros, small = Histogram.of(np.zeros(5)), Histogram.of([3e-20, -0.0])
    assert (zeros.amax, zeros.zeros, zeros.nonzero) == (0.0, 5, 0)
    merged = zeros.merge(small)
    assert merged.top == small.top
    assert merged.zeros == 6
    assert_same(Histogram.none().merge(small), small)


def test_the_smallest_and_the_largest_float_are_counted():
    tiny, huge = float(np.float32(1e-45)), float(np.finfo(np.float32).max)
    assert Histogram.of([tiny]).counts[0] == 1
    h = Histogram.of([tiny, huge])
    assert h.top == 2.0**128
    assert (h.counts[0], h.counts[-1]) == (1, 1)


def test_views_that_are_not_contiguous_are_counted():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert_same(Histogram.of(x.T[::2]), Histogram.of(np.ascontiguousarray(x.T[::2])))


def test_the_values_given_are_left_as_they_are():
    x = np.array([-1.0, 2.0], np.float32)
    Histogram.of(x)
    assert x.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 50_000])
def test_nan_and_infinity_are_refused(bad, where):
    x = np.ones(50_001, np.float32)
    x[where] = bad
    with pytest.raises(ToolError, match="NaN or infinite"):
        Histogram.of(x)


def test_counting_takes_little_memory_beside_the_tensor():
    x = np.random.default_rng(0).standard_normal((4, 500_000)).astype(np.float32)
    tracemalloc.start()
    Histogram.of(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20  # the tensor has 8 MB
