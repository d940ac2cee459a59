"""What a candidate's answers are worth, and which of several is kept."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.calibration.score import best, divergences, score
from dlcv_deploy.errors import SpecError, ToolError

LN2, LN3 = math.log(2), math.log(3)
REFERENCE = np.array([[LN3, 0.0], [0.0, 0.0], [0.0, 5.0], [2.0, 0.0]], np.float32)
CANDIDATE = np.array([[0.0, LN3], [7.0, 7.0], [0.0, 5.0], [1.0, 2.0]], np.float32)
LABELS = np.array([0, 0, 1, 1])


def test_divergence_is_of_the_softmax_and_in_nats():
    found = divergences(REFERENCE, CANDIDATE)
    assert found[0] == pytest.approx(0.75 * LN3 - 0.25 * LN3, rel=1e-6)  # (3/4, 1/4) from (1/4, 3/4)
    assert found[1] == 0  # the softmax does not see a shift
    assert found[2] == 0
    assert found[3] > 0
    assert not np.array_equal(found, divergences(CANDIDATE, REFERENCE))  # the fp32 network's expectation


def test_every_figure():
    found = score("mse", REFERENCE, CANDIDATE, LABELS)
    each = divergences(REFERENCE, CANDIDATE)
    assert (found.name, found.images, found.flips, found.non_finite, found.failed) == ("mse", 4, 2, 0, "")
    assert found.divergence == pytest.approx(each.mean(), rel=1e-12)
    assert found.divergence_error == pytest.approx(each.std(ddof=1) / 2, rel=1e-12)
    noise, signal = (np.square(a.astype(np.float64)).sum() for a in (CANDIDATE - REFERENCE, REFERENCE))
    assert found.sqnr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-6)
    assert (found.top1_reference, found.top1, found.drop) == (75.0, 75.0, 0.0)  # one lost, one gained
    assert found.drop_low < 0 < found.drop_high
    assert found.flipped_percent == 50.0


def test_equal_answers_are_without_fault():
    found = score("same", REFERENCE, REFERENCE)
    assert (found.divergence, found.divergence_error, found.flips, found.sqnr_db) == (0, 0, 0, math.inf)
    assert found.top1 is found.top1_reference is found.drop is found.drop_low is found.drop_high is None


def test_answers_that_are_no_numbers_are_counted():
    broken = CANDIDATE.copy()
    broken[1, 0], broken[2, 1] = np.nan, -np.inf
    found = score("broken", REFERENCE, broken, LABELS)
    assert (found.non_finite, found.flips) == (2, 4)
    assert math.isnan(found.divergence)
    assert math.isnan(found.divergence_error)
    assert math.isnan(found.sqnr_db)
    assert found.top1 == 25.0


def test_one_image_has_no_standard_error():
    assert score("one", REFERENCE[:1], CANDIDATE[:1]).divergence_error is None


def test_great_logits_do_not_overflow():
    great = np.array([[3e38, -3e38, 0]], np.float32)
    assert divergences(great, great)[0] == 0
    assert math.isfinite(divergences(great, great[:, ::-1])[0])


@given(st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 6), min_size=2, max_size=20), st.randoms())
def test_the_order_of_images_does_not_show(rows, random):
    logits = np.array(rows, np.float32)
    order = list(range(len(rows)))
    random.shuffle(order)
    a, b = logits[:, :3], logits[:, 3:]
    found, again = score("a", a, b), score("a", a[order], b[order])
    assert found.divergence >= 0
    assert (found.divergence, found.divergence_error) == (again.divergence, again.divergence_error)


@pytest.mark.parametrize(
    ("reference", "candidate", "labels", "error", "message"),
    [
        (REFERENCE, CANDIDATE[:3], None, SpecError, r"logits of shape \(3, 2\) .* of shape \(4, 2\)"),
        (REFERENCE[0], REFERENCE[0], None, SpecError, r"logits of shape \(2,\)"),
        (REFERENCE[:0], REFERENCE[:0], None, SpecError, r"logits of shape \(0, 2\)"),
        (np.where(REFERENCE == 5, np.inf, REFERENCE), CANDIDATE, None, ToolError, "held-out image 2 with NaN or infinity"),
        (REFERENCE, CANDIDATE, LABELS[:3], SpecError, r"labels of shape \(3,\) for 4 held-out images"),
        (REFERENCE, CANDIDATE, LABELS + 1, SpecError, "labels from 1 to 2 for 2 classes"),
        (REFERENCE, CANDIDATE, LABELS - 1, SpecError, "labels from -1 to 0 for 2 classes"),
    ],
)
def test_what_cannot_be_scored(reference, candidate, labels, error, message):
    with pytest.raises(error, match=message):
        score("x", reference, candidate, labels)


def test_the_smallest_divergence_wins_where_it_is_clear():
    rng = np.random.default_rng(0)
    base = rng.exponential(1, 400)
    found = {"dear": base, "worse": 2 * base, "best": 0.5 * base}
    assert best(found) == ("best", "best")


def test_a_tie_goes_to_the_cheaper():
    even, odd = np.tile([1.0, 1.2], 50), np.tile([1.2, 0.99], 50)  # means 1.1 and 1.095, far apart on each image
    assert best({"cheap": even, "dear": odd}) == ("dear", "cheap")
    assert best({"dear": odd, "cheap": even}) == ("dear", "dear")
    assert best({"first": even, "second": even.copy()}) == ("first", "first")


def test_a_tie_is_judged_image_by_image():
    """Both scatter widely from image to image, but one is a little worse on every one of them."""
    heavy = np.random.default_rng(0).pareto(1.5, 200)
    assert best({"cheap": 1.01 * heavy + 0.01, "dear": heavy}) == ("dear", "dear")


def test_one_standard_error_is_the_bound():
    level = np.zeros(4)
    above = np.array([0.0, 0.0, 2.0, 2.0])  # mean 1, standard deviation 1.1547, standard error 0.577
    assert best({"cheap": above, "dear": level}) == ("dear", "dear")
    near = np.array([-1.0, -1.0, 1.0, 2.0])  # mean 0.25, standard error 0.75
    assert best({"cheap": near, "dear": level}) == ("dear", "cheap")
    assert best({"cheap": np.array([1.1]), "dear": np.array([1.0])}) == ("dear", "dear")


def test_answers_that_are_no_numbers_never_win():
    nan, inf, fair = np.array([0.0, np.nan]), np.array([0.0, np.inf]), np.array([9.0, 9.0])
    assert best({"nan": nan, "inf": inf, "fair": fair}) == ("fair", "fair")
    with pytest.raises(SpecError, match="no candidate answers every held-out image"):
        best({"nan": nan})
