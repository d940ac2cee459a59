"""Answers to the same images compared, against values worked out by hand and laws that must hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.parity.compare import (
    NONE,
    LogitError,
    finite_rows,
    flipped,
    hits,
    predictions,
    softmax,
)

NAN, INF = math.nan, math.inf


def array(*rows):
    return np.array(rows, np.float32)


def labels(*values):
    return np.array(values, np.int64)


def test_equal_scores_rank_by_class():
    scores = array([1, 3, 3, 2], [5, 5, 5, 5])
    assert predictions(scores).tolist() == [1, 0]
    assert hits(scores, labels(1, 0), 1).tolist() == [True, True]
    assert hits(scores, labels(2, 1), 1).tolist() == [False, False]
    assert hits(scores, labels(2, 1), 2).tolist() == [True, True]
    assert hits(scores, labels(3, 3), 3).tolist() == [True, False]


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5))
def test_the_prediction_is_the_one_label_that_hits_at_one(rows):
    scores = np.array(rows, np.float32)
    found = np.array([hits(scores, np.full(len(rows), c), 1) for c in range(6)])
    assert found.sum(0).tolist() == [1] * len(rows)
    assert found.argmax(0).tolist() == predictions(scores).tolist()
    for k in range(7):
        assert sum(hits(scores, np.full(len(rows), c), k)[0] for c in range(6)) == k


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_is_not_finite_is_wrong_at_every_k(bad, place):
    scores = array([3, 2, 1], [3, 2, 1])
    scores[0, place] = bad
    assert finite_rows(scores).tolist() == [False, True]
    assert predictions(scores).tolist() == [NONE, 0]
    for k in (1, 2, 3, 5):
        for label in range(3):
            assert not hits(scores, labels(label, 0), k)[0]


def test_finite_rows_looks_at_every_axis():
    scores = np.zeros((2, 10, 3))
    scores[1, 9, 2] = NAN
    assert finite_rows(scores).tolist() == [True, False]


def test_two_that_cannot_answer_do_not_agree():
    assert flipped(labels(1, 1, NONE, NONE), labels(1, 2, 0, NONE)).tolist() == [False, True, True, True]


def test_softmax():
    assert softmax(array([0, math.log(3)])).tolist() == [pytest.approx([0.25, 0.75])]
    assert softmax(array([1e30, 0])).tolist() == [[1, 0]]
    assert softmax(array([0, -INF])).tolist() == [[1, 0]]
    assert np.isnan(softmax(array([NAN, 0], [INF, 0], [-INF, -INF]))).all()
    assert softmax(np.zeros((2, 10, 4), np.float16)).dtype == np.float64


def test_logit_errors_by_hand():
    error = LogitError.of(array([3, 4]), array([3, 4.5]))
    assert error == LogitError(0.5, 25.0, 0.25)
    assert error.sqnr_db == pytest.approx(20.0)
    assert LogitError.of(array([1, 2]), array([1, 2])).sqnr_db == INF
    assert LogitError.of(array([0, 0]), array([1, 0])).sqnr_db == -INF
    assert LogitError.of(array([-2, 0]), array([3, 0])).max_abs == 5


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("first", [True, False])
def test_one_value_that_is_not_finite_makes_every_error_nan_for_good(bad, first):
    clean = LogitError.of(array([1, 2]), array([1, 3]))
    for pair in ((array([1, 2]), array([1, bad])), (array([1, bad]), array([1, 2])), (array([bad]), array([bad]))):
        tainted = LogitError.of(*pair)
        merged = tainted.merge(clean) if first else clean.merge(tainted)
        assert math.isnan(merged.max_abs)
        assert math.isnan(merged.sqnr_db)


BATCH = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), max_size=6)


@given(BATCH, BATCH)
def test_merging_batches_is_as_one_batch(one, two):
    def of(pairs):
        both = np.array(pairs, np.float64).reshape(-1, 2)
        return LogitError.of(both[:, 0], both[:, 1])

    assert of(one).merge(of(two)) == of(two).merge(of(one)) == of(one + two)
