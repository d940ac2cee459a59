"""What a candidate's answers are worth, and which of several is kept."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.calibration.score import EXACT_DB, best, divergences, score, sqnr_db
from dlcv_deploy.errors import SpecError, ToolError

LN2, LN3 = math.log(2), math.log(3)
REFERENCE = np.array([[LN3, 0.0], [0.0, 0.0], [0.0, 5.0], [2.0, 0.0]], np.float32)
CANDIDATE = np.array([[0.0, LN3], [7.0, 7.0], [0.0, 5.0], [1.0, 2.0]], np.float32)
LABELS = np.array([0, 0, 1, 1])


def test_divergence_is_of_the_softmax_and_in_nats():
    found = divergences(REFERENCE, CANDIDATE)
    assert found[0] == pytest.approx(0.75 * LN3 - 0.25 * LN3, rel=1e-6)  # of (1/4, 3/4) from (3/4, 1/4)
    (skewed,) = divergences(REFERENCE[:1], REFERENCE[1:2])  # of (1/2, 1/2) from (3/4, 1/4): the fp32 network's mean
    assert skewed == pytest.approx(0.75 * LN3 - LN2, rel=1e-6)
    assert found[1] == 0  # the softmax does not see a shift
    assert found[2] == 0
    assert found[3] > 0


def test_sqnr_is_each_images_own_and_blind_to_a_shift():
    signal = np.array([[3.0, 0, -3], [300, 0, -300], [1e-3, 0, -1e-3]])
    noise = np.array([[0.3, 0, -0.3], [0, 6, -6], [0, 1e-3, 1e-3]])
    shift = np.array([[5.0], [-7.0], [0.0]])
    found = sqnr_db(signal, signal + noise + shift)
    # power of the signal over that of the noise; the third noise less its mean is (-2, 1, 1) / 3 thousandths
    expected = [18 / 0.18, 180_000 / 72, 2 / (6 / 9)]
    assert found == pytest.approx(10 * np.log10(expected), rel=1e-9)


def test_sqnr_has_bounds():
    row = np.array([[3.0, 0, -3]])
    assert sqnr_db(row, row) == sqnr_db(row, row * (1 + 1e-12)) == EXACT_DB == 144
    assert sqnr_db(row, row + 9) == EXACT_DB
    assert sqnr_db(0 * row, 0 * row) == EXACT_DB
    assert sqnr_db(0 * row, row) == -EXACT_DB


def test_every_figure():
    found = score("mse", REFERENCE, CANDIDATE, LABELS)
    each = divergences(REFERENCE, CANDIDATE)
    assert (found.name, found.images, found.flips, found.non_finite, found.failed) == ("mse", 4, 2, 0, "")
    assert found.divergence == pytest.approx(each.mean(), rel=1e-12)
    decibels = sqnr_db(REFERENCE, CANDIDATE)
    assert found.sqnr_db == pytest.approx(decibels.mean(), rel=1e-12)
    assert found.sqnr_error_db == pytest.approx(decibels.std(ddof=1) / 2, rel=1e-12)
    assert (found.top1_reference, found.top1, found.drop) == (75.0, 75.0, 0.0)  # one lost, one gained
    assert found.drop_low < 0 < found.drop_high
    assert found.flipped_percent == 50.0


def test_equal_answers_are_without_fault():
    found = score("same", REFERENCE, REFERENCE)
    assert (found.divergence, found.flips, found.sqnr_db, found.sqnr_error_db) == (0, 0, EXACT_DB, 0)
    assert found.top1 is found.top1_reference is found.drop is found.drop_low is found.drop_high is None


def test_answers_that_are_no_numbers_are_counted():
    broken = CANDIDATE.copy()
    broken[1, 0], broken[2, 1] = np.nan, -np.inf
    found = score("broken", REFERENCE, broken, LABELS)
    assert (found.non_finite, found.flips) == (2, 4)
    assert math.isnan(found.divergence)
    assert math.isnan(found.sqnr_db)
    assert math.isnan(found.sqnr_error_db)
    assert found.top1 == 25.0


def test_one_image_has_no_standard_error():
    assert score("one", REFERENCE[:1], CANDIDATE[:1]).sqnr_error_db is None


def test_great_logits_do_not_overflow():
    great = np.array([[3e38, -3e38, 0]], np.float32)
    assert divergences(great, great)[0] == 0
    assert math.isfinite(divergences(great, great[:, ::-1])[0])
    assert sqnr_db(great, great[:, ::-1])[0] == 0  # as much noise as signal


@given(st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 6), min_size=2, max_size=20), st.randoms())
def test_the_order_of_images_does_not_show(rows, random):
    logits = np.array(rows, np.float32)
    order = list(range(len(rows)))
    random.shuffle(order)
    a, b = logits[:, :3], logits[:, 3:]
    found, again = score("a", a, b), score("a", a[order], b[order])
    assert found.divergence >= 0
    assert (found.divergence, found.sqnr_db, found.sqnr_error_db) == (
        again.divergence,
        again.sqnr_db,
        again.sqnr_error_db,
    )


@pytest.mark.parametrize(
    ("reference", "candidate", "labels", "error", "message"),
    [
        (REFERENCE, CANDIDATE[:3], None, SpecError, r"logits of shape \(3, 2\) .* of shape \(4, 2\)"),
        (REFERENCE[0], REFERENCE[0], None, SpecError, r"logits of shape \(2,\)"),
        (REFERENCE[:0], REFERENCE[:0], None, SpecError, r"logits of shape \(0, 2\)"),
        (
            np.where(REFERENCE == 5, np.inf, REFERENCE),
            CANDIDATE,
            None,
            ToolError,
            "held-out image 2 with NaN or inf",
        ),
        (REFERENCE, CANDIDATE, LABELS[:3], SpecError, r"labels of shape \(3,\) for 4 held-out images"),
        (REFERENCE, CANDIDATE, LABELS + 1, SpecError, "labels from 1 to 2 for 2 classes"),
        (REFERENCE, CANDIDATE, LABELS - 1, SpecError, "labels from -1 to 0 for 2 classes"),
    ],
)
def test_what_cannot_be_scored(reference, candidate, labels, error, message):
    with pytest.raises(error, match=message):
        score("x", reference, candidate, labels)


def test_the_highest_sqnr_wins_where_it_is_clear():
    base = np.random.default_rng(0).normal(30, 5, 400)
    assert best({"dear": base, "worse": base - 3, "best": base + 3}) == ("best", "best")


def test_a_tie_goes_to_the_cheaper():
    even, odd = np.tile([30.0, 32.0], 50), np.tile([32.1, 30.0], 50)  # means of 31 and 31.05, far apart on each image
    assert best({"cheap": even, "dear": odd}) == ("dear", "cheap")
    assert best({"dear": odd, "cheap": even}) == ("dear", "dear")
    assert best({"first": even, "second": even.copy()}) == ("first", "first")


def test_a_tie_is_judged_image_by_image():
    """Both scatter widely from image to image, but one is a little worse on every one of them."""
    wide = np.random.default_rng(0).normal(30, 20, 200)
    assert best({"cheap": wide - 0.1, "dear": wide}) == ("dear", "dear")


def test_one_standard_error_is_the_bound():
    level = np.full(4, 30.0)
    below = level - [0.0, 0.0, 2.0, 2.0]  # worse by 1, standard deviation 1.1547, standard error 0.577
    assert best({"cheap": below, "dear": level}) == ("dear", "dear")
    near = level - [-1.0, -1.0, 1.0, 2.0]  # worse by 0.25, standard error 0.75
    assert best({"cheap": near, "dear": level}) == ("dear", "cheap")
    assert best({"cheap": level[:1] - 0.1, "dear": level[:1]}) == ("dear", "dear")


def test_answers_that_are_no_numbers_never_win():
    nan, inf, fair = np.array([90.0, np.nan]), np.array([90.0, np.inf]), np.array([-9.0, -9.0])
    assert best({"nan": nan, "inf": inf, "fair": fair}) == ("fair", "fair")
    with pytest.raises(SpecError, match="no candidate answers every held-out image"):
        best({"nan": nan})
