"""An engine that disagrees with itself is caught, each fault by the check that is made for it; a sound one by none."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from dlcv_deploy.backends.session import CheckedSession
from dlcv_deploy.errors import ToolError
from dlcv_deploy.parity.consistency import LIMITS, Apart, consistency
from dlcv_deploy.types import BATCH, Dim, TensorSpec

IMAGES = np.random.default_rng(0).normal(0, 1, (5, 6)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(0, 1, (6, 4)).astype(np.float32)
NAMES = ("equal rows", "permuted rows", "batch sizes", "two sessions", "threads")


def answers(x):
    return np.stack([row @ WEIGHTS for row in x])  # a row at a time: no kernel can tell sizes apart


class Engine:
    """Makes sessions with a fault: ``change`` gets the logits of a batch and the number of the session."""

    def __init__(self, change=lambda y, number: y, *, batch=BATCH, further=None):
        self.change, self.batch, self.numbers = change, batch, itertools.count(1)
        self.further = further

    def __call__(self):
        number = next(self.numbers)

        def infer(arrays):
            found = [self.change(answers(arrays[0]), number)]
            return found if self.further is None else [*found, self.further(arrays[0])]

        outputs = (TensorSpec("y", (4,)), *(() if self.further is None else (TensorSpec("map", (6,)),)))
        return CheckedSession((TensorSpec("x", (6,)),), outputs, self.batch, infer)


def tried(engine, **options):
    return {check.name: check for check in consistency("fake", engine, IMAGES, **options).checks}


def failed(engine, **options):
    return {name for name, check in tried(engine, **options).items() if check.passed is False}


def test_a_sound_engine_passes_every_check():
    found = tried(Engine())
    assert tuple(found) == NAMES
    assert all(check.passed is True for check in found.values())
    assert found["equal rows"].said == "5 rows equal bit for bit"
    assert found["batch sizes"].said == "batches of 1, 3, 64 beside 10: 75 rows equal bit for bit"
    assert found["threads"].said == "4 threads at once on one session: 8 rows equal bit for bit"


def test_rows_that_mix():
    def mixed(y, number):
        return y + 1e-6 * np.roll(y, 1, axis=0) * (len(y) > 3)

    found = tried(Engine(mixed))
    assert found["equal rows"].passed is False
    assert "bit for bit" in found["equal rows"].said


def test_an_answer_that_depends_on_the_place_alike_from_both_ends():
    def placed(y, number):
        place = np.arange(len(y))
        return y + 1e-5 * np.minimum(place, place[::-1])[:, None] * (len(y) == 10)

    assert failed(Engine(placed), precision="int8") == {"permuted rows"}


@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_batch_of_a_size_that_is_answered_otherwise(size):
    def sized(y, number):
        return y * (1.1 if len(y) == size else 1)

    wrong = failed(Engine(sized))
    assert wrong - {"threads"} == {"batch sizes"}  # threads run batches of one, alone and together alike
    assert not failed(Engine(sized), edges=False) or size != 64


def test_a_row_of_the_largest_batch_alone():
    def last(y, number):
        return np.concatenate([y[:-1], y[-1:] + 1]) if len(y) == 64 else y

    found = tried(Engine(last))["batch sizes"]
    assert found.passed is False
    assert "of 75 rows (0.0001 of it is allowed)" in found.said


@pytest.mark.parametrize("precision", LIMITS)
def test_other_sizes_may_round_otherwise_up_to_a_limit(precision):
    spread = np.ptp(answers(IMAGES))

    def off(by):
        return Engine(lambda y, number: y + np.float32(by * spread) * (len(y) == 3))

    assert not failed(off(0.9 * LIMITS[precision]), precision=precision)
    assert failed(off(1.1 * LIMITS[precision]), precision=precision) == {"batch sizes"}
    said = tried(off(0.5 * LIMITS[precision]), precision=precision)["batch sizes"].said
    assert f"answers differ by up to {0.5 * LIMITS[precision]:.1e} of their spread" in said
    assert "top-1 changed in 0 of 75 rows" in said


def test_a_second_session_that_answers_otherwise():
    def by_session(y, number):
        return y + 1e-6 * (number == 2)

    assert failed(Engine(by_session)) == {"two sessions"}


def test_a_second_session_that_disturbs_the_first():
    seen = set()

    def disturbed(y, number):
        seen.add(number)
        return y + 1e-6 * (number == 1 and len(seen) > 1 and len(y) == 10)

    assert failed(Engine(disturbed)) == {"two sessions"}


class Buffer:
    """A session's one buffer, which another thread overwrites before the answer is read."""

    def __init__(self):
        self.of = {}

    def __call__(self, y, number):
        self.of[number] = y
        time.sleep(0.01)
        return self.of[number].copy() if self.of[number].shape == y.shape else y


def test_threads_that_share_what_they_must_not():
    found = tried(Engine(Buffer()))
    assert {name for name, check in found.items() if check.passed is False} == {"threads"}
    assert found["threads"].said.startswith("4 threads at once on one session: answers differ by up to")


def test_such_a_session_is_sound_where_each_thread_has_its_own():
    found = tried(Engine(Buffer()), shared=False)
    assert not any(check.passed is False for check in found.values())
    assert found["threads"].said == "2 threads at once on a session each: 4 rows equal bit for bit"


def test_threads_do_run_at_once():
    at_work, most, lock = 0, 0, threading.Lock()

    def counted(y, number):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.01)
        with lock:
            at_work -= 1
        return y

    tried(Engine(counted))
    assert most > 1


def test_an_output_besides_the_logits_counts_too():
    engine = Engine(further=lambda x: x + 0.1 * (len(x) == 3))
    assert failed(engine) == {"batch sizes"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_nan_passes(bad):
    def poisoned(y, number):
        y[-1, 0] = bad
        return y

    found = tried(Engine(poisoned))
    assert all(check.passed is False for check in found.values())
    assert found["equal rows"].said == "an answer is NaN or infinite"


def test_nan_everywhere_does_not_equal_itself():
    assert failed(Engine(lambda y, number: np.full_like(y, np.nan))) == set(NAMES)


def test_an_engine_that_always_says_the_same_is_consistent():
    assert not failed(Engine(lambda y, number: np.zeros_like(y)))


def test_a_size_that_the_engine_refuses():
    def refused(y, number):
        if len(y) == 64:
            raise ToolError("no memory for 64")
        return y

    found = tried(Engine(refused))["batch sizes"]
    assert (found.passed, found.said) == (
        False,
        "batches of 1, 3, 64 beside 10: the engine does not run: no memory for 64",
    )


def test_a_second_session_that_cannot_be_opened_is_not_a_fault():
    first = Engine()
    calls = itertools.count()

    def load():
        if next(calls):
            raise ToolError("no memory for another")
        return first()

    found = tried(load, shared=False)
    assert found["two sessions"].passed is found["threads"].passed is None
    assert found["two sessions"].said == "a second session cannot be opened: no memory for another"


@pytest.mark.parametrize(
    ("batch", "untried"),
    [
        (Dim(1, 1, 1), {"equal rows", "permuted rows", "batch sizes"}),
        (Dim(2, 2, 2), {"batch sizes"}),
        (Dim(16, 16, 16), {"batch sizes"}),
        (Dim(1, 2, 3), set()),
    ],
)
def test_an_engine_of_few_batch_sizes(batch, untried):
    found = tried(Engine(batch=batch))
    assert {name for name, check in found.items() if check.passed is None} == untried
    assert not any(check.passed is False for check in found.values())


def test_it_is_a_fold():
    parts = [Apart(2, 0.5, 1, equal=False), Apart(3), Apart(1, 0.25, 0, equal=False, finite=False)]
    whole = parts[0].merge(parts[1]).merge(parts[2])
    assert whole == parts[0].merge(parts[1].merge(parts[2])) == Apart(6, 0.5, 1, equal=False, finite=False)
    assert not whole.within(1.0)
    assert parts[0].within(0.5)
    assert not parts[0].within(0.4)
    assert not parts[0].within(0.0)
