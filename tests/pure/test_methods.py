"""Each method against its definition, written out slowly; and what holds for all of them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcv_deploy.calibration import methods
from dlcv_deploy.calibration.histogram import BINS, Histogram
from dlcv_deploy.errors import SpecError

NAMES = [*methods.METHODS, "percentile:99", "percentile:50"]


@st.composite
def values(draw):
    """Tensors of the kinds that networks make: bells, long tails, rectified, with outliers, of a few values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([1, 7, 300, 4000]))
    x = draw(st.sampled_from([rng.standard_normal, rng.random, lambda n: rng.standard_t(2, n)]))(size)
    if draw(st.booleans()):
        x = np.maximum(x, 0)
    if draw(st.booleans()):
        x = np.append(x, draw(st.sampled_from([10.0, 100.0, 5000.0])))
    return (x * draw(st.sampled_from([1.0, 0.37, 1e-6, 1e4]))).astype(np.float32)


def quantization_error(x, clip, top_level=127):
    """What INT8 does to the values themselves: sum of squared errors."""
    x, scale = x.astype(np.float64), clip / top_level
    return float(((np.clip(np.rint(x / scale), -top_level, top_level) * scale - x) ** 2).sum())


@pytest.mark.parametrize("method", NAMES)
@settings(max_examples=25)
@given(x=values(), k=st.integers(-20, 20))
def test_a_range_scales_by_powers_of_two_and_never_exceeds_the_largest(method, x, k):
    amax = methods.amax(Histogram.of(x), method)
    assert 0 <= amax <= np.abs(x).max()
    assert (amax == 0) == (not x.any())
    assert methods.amax(Histogram.of(x * np.float32(2.0**k)), method) == amax * 2.0**k


@pytest.mark.parametrize("method", NAMES)
def test_a_tensor_of_zeros_has_no_range(method):
    assert methods.amax(Histogram.of(np.zeros(10)), method) == 0.0


@pytest.mark.parametrize("method", NAMES)
def test_a_single_value_is_its_own_range(method):
    assert methods.amax(Histogram.of([-0.7]), method) == float(np.float32(0.7))


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("tiny", [1e-45, 1e-38, 1e-31])
def test_values_near_the_smallest_float_have_a_range(method, tiny):
    x = np.float32([tiny, -tiny])
    assert 0 < methods.amax(Histogram.of(x), method) <= x[0]


@given(values())
def test_max_is_exact(x):
    assert methods.amax(Histogram.of(x), "max") == np.abs(x).max()


# percentile


@given(values(), st.sampled_from(["0.1", "25", "50", "90", "99", "99.9", "99.99", "100"]))
def test_a_percentile_is_at_most_a_bin_above_the_exact_one(x, percent):
    h = Histogram.of(x)
    magnitudes = np.sort(np.abs(x[x != 0]).astype(np.float64))
    if not magnitudes.size:
        return
    exact = magnitudes[math.ceil(Fraction(percent) * magnitudes.size / 100) - 1]
    assert exact <= methods.amax(h, f"percentile:{percent}") <= exact + h.width


@given(values())
def test_percentiles_rise(x):
    h = Histogram.of(x)
    found = [methods.amax(h, f"percentile:{p}") for p in ("1", "20", "50", "90", "99.9", "99.99", "100")]
    assert found == sorted(found)
    assert found[-1] == h.amax
    assert methods.amax(h, "percentile") == found[-2]


def test_a_percentile_clips_the_large_values():
    x = np.arange(1, 1001, dtype=np.float32)  # bins are 1/8 wide
    assert methods.amax(Histogram.of(x), "percentile:99.9") == 999 + 1 / 8
    assert methods.amax(Histogram.of(x), "percentile:10") == 100 + 1 / 8


def test_zeros_do_not_move_a_percentile():
    x = np.arange(1, 1001, dtype=np.float32)
    sparse = np.concatenate([x, np.zeros(10**6, np.float32)])
    assert methods.amax(Histogram.of(sparse), "percentile:90") == methods.amax(Histogram.of(x), "percentile:90")


# entropy


def divergence(counts, clip):
    """KL(P || Q) of a clip of so many bins, spread out over its bins."""
    p = counts[:clip].astype(float)
    levels = np.arange(clip) * 128 // clip
    mass, bins = np.bincount(levels, p), np.bincount(levels, p > 0)
    q = np.where(p > 0, mass[levels] / np.maximum(bins[levels], 1), 0)
    p[-1] += counts[clip:].sum()
    if p[-1] > 0 and q[-1] == 0:
        return math.inf
    p, q = p[p > 0], q[q > 0]
    return float((p / p.sum() * np.log((p / p.sum()) / (q / q.sum()))).sum())


@pytest.mark.parametrize("seed", range(6))
def test_the_divergence_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(50 * np.exp(-np.arange(300) / rng.uniform(10, 200)))
    counts = np.append(counts * (rng.random(300) < 0.9), 1)
    clips = np.arange(128, len(counts) + 1)
    found = methods._divergence(counts.astype(float), clips)
    np.testing.assert_allclose(found, [divergence(counts, clip) for clip in clips], rtol=1e-9, atol=1e-12)
    assert np.isinf(found).any()
    assert np.isfinite(found[-1])


def test_entropy_takes_the_clip_of_least_divergence():
    rng = np.random.default_rng(5)
    h = Histogram.of(np.append(rng.standard_normal(20_000), [9.0, -9.5]))
    counts = h.counts.reshape(2048, -1).sum(1)
    used = np.flatnonzero(counts)[-1] + 1
    clips = range(128, used + 1)
    costs = [divergence(counts, clip) for clip in clips]
    best = clips[int(np.argmin(costs))]
    assert methods.amax(h, "entropy") == best * h.top / 2048
    assert methods.amax(h, "entropy") < 4.5


def test_entropy_clips_a_few_outliers_and_keeps_many():
    """The reason for adding what is clipped to the last bin: clipping much must cost much."""
    rng = np.random.default_rng(0)
    bell = np.abs(rng.standard_normal(100_000))
    few = Histogram.of(np.append(bell, [20.0]))
    many = Histogram.of(np.append(bell, rng.uniform(15, 20, 20_000)))
    assert methods.amax(few, "entropy") < 6
    assert methods.amax(many, "entropy") > 14.5


# mse


@settings(max_examples=40)
@given(values())
def test_mse_never_errs_more_than_max(x):
    h = Histogram.of(x)
    if h.amax:
        best = methods.squared_error(h, methods.amax(h, "mse"))
        assert best <= methods.squared_error(h, h.amax)
        for clip in h.amax * np.linspace(0.02, 1, 12):
            assert best <= methods.squared_error(h, clip) * (1 + 1e-3) + 1e-12 * h.amax**2


def test_the_error_is_that_of_quantizing_the_values():
    """Half a million values, even within bins: the error of the histogram is that of the values."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(500_000) * 3).astype(np.float32)
    h = Histogram.of(x)
    for clip in (h.amax, 9.0, 5.0, 1.0):
        assert methods.squared_error(h, clip) == pytest.approx(quantization_error(x, clip), rel=2e-3)


def test_the_error_of_even_values_is_a_twelfth_of_the_step():
    """Values even over [0, 127.5 s): every one lies within half a step of a level, and the error is exact."""
    counts = np.full(BINS, 3, np.int64)
    h = Histogram(counts, 1.0, 0.0, float(np.nextafter(np.float32(1), np.float32(0))), 0)
    step = 1 / 127.5
    assert methods.squared_error(h, 127 * step) == pytest.approx(3 * BINS * step**2 / 12, rel=1e-9)


def test_what_lies_above_the_clip_errs_by_its_distance():
    h = Histogram.of([4.0])  # spread over [4, 4 + 1/1024)
    offset = 4 + h.width / 2 - 1
    assert methods.squared_error(h, 1.0) == pytest.approx(offset**2 + h.width**2 / 12, rel=1e-9)


def test_a_clip_above_everything_is_allowed():
    h = Histogram.of([0.5, 1.0])
    assert methods.squared_error(h, 127 * 8.0) == pytest.approx(0.25 + 1.0, rel=1e-3)  # both round to 0


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("bell", np.random.default_rng(0).standard_normal(200_000)),
        ("rectified", np.maximum(np.random.default_rng(1).standard_normal(200_000), 0)),
        ("laplace", np.random.default_rng(2).laplace(size=200_000)),
        ("long tail", np.random.default_rng(3).standard_t(3, 200_000)),
        ("an outlier", np.append(np.random.default_rng(4).standard_normal(200_000), 60)),
    ],
)
def test_mse_finds_the_best_clip_of_the_values(name, x):
    x = x.astype(np.float32)
    h = Histogram.of(x)
    best = min(quantization_error(x, clip) for clip in h.amax * 2.0 ** (-np.arange(0, 128) / 16))
    assert quantization_error(x, methods.amax(h, "mse")) <= best * 1.0005


def test_mse_of_even_values_clips_half_a_step():
    """The best clip for values even over [0, top) is 127/127.5 of it; 255 levels a side would give 255/255.5."""
    counts = np.full(BINS, 1000, np.int64)
    h = Histogram(counts, 1.0, 0.0, float(np.nextafter(np.float32(1), np.float32(0))), 0)
    assert methods.amax(h, "mse") == pytest.approx(127 / 127.5, rel=1.4e-3)
    assert methods.amax(h, "mse") < 0.998


# names


@pytest.mark.parametrize(
    "name", ["", "minmax", "mse:3", "percentile:", "percentile:0", "percentile:101", "percentile:nan", "percentile:1/0"]
)
def test_unknown_methods_are_refused_with_the_names(name):
    with pytest.raises(SpecError, match=r"percentile:99\.9"):
        methods.resolve(name)
