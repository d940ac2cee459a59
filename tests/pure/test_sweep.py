"""Sweeps of threads and batch sizes, and an answer's parts, in simulated time."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from dlcv_deploy.backends.base import Timing
from dlcv_deploy.errors import SpecError
from dlcv_deploy.latency.breakdown import breakdown
from dlcv_deploy.latency.measure import Effort
from dlcv_deploy.latency.sweep import doublings, threads
from dlcv_deploy.latency.values import Part, ThreadRow


class Clock:
    time = 0.0

    def __call__(self):
        return self.time


class Session:
    """Takes its seconds for a call."""

    inputs = (SimpleNamespace(name="x"),)

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.fed = clock, seconds, []

    def run(self, feeds):
        self.fed.append(feeds["x"])
        self.clock.time += self.seconds
        return {}


class Device(Session):
    def run_timed(self, feeds):
        self.clock.time += 100.0  # not counted
        return Timing(h2d_ms=250.0, compute_ms=1000.0, d2h_ms=125.0, enqueue_ms=500.0)


@pytest.mark.parametrize(("most", "steps"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (64, (1, 2, 4, 8, 16, 32, 64))])
def test_doublings_end_with_the_most(most, steps):
    assert doublings(most) == steps


def test_there_is_no_way_up_to_nothing():
    with pytest.raises(SpecError, match="cannot go from 1 up to 0"):
        doublings(0)


def test_each_session_is_loaded_anew_for_each_number_of_threads():
    clock, open_now, told = Clock(), [], []

    @contextmanager
    def loaded(count):
        open_now.append(count)
        yield {"a": Session(clock, 1.0 / count), "b": Session(clock, 2.0), "gpu": "no GPU"}
        assert open_now.pop() == count

    feed = {"x": np.zeros((1, 1))}
    rows = threads(loaded, feed, (1, 2, 4), effort=Effort(limit_s=0), now=clock, done=told.append)
    assert rows == (
        ThreadRow("a", 1, 1000.0, 1000.0, 1.0),
        ThreadRow("b", 1, 2000.0, 2000.0, 0.5),
        ThreadRow("a", 2, 500.0, 500.0, 2.0),
        ThreadRow("b", 2, 2000.0, 2000.0, 0.5),
        ThreadRow("a", 4, 250.0, 250.0, 4.0),
        ThreadRow("b", 4, 2000.0, 2000.0, 0.5),
    )
    assert told == [1, 1, 1]
    assert open_now == []


def steps(clock, log=None):
    """Decoding takes as many seconds as the file has bytes, resizing 0.5."""

    def decode(file):
        clock.time += len(file)
        if log is not None:
            log.append(file)
        return len(file)

    def resize(pixels):
        clock.time += 0.5
        return np.full((1, 3), pixels)

    return {"decode": decode, "resize and crop": resize}


def test_parts_are_medians_and_the_sum_is_that_of_whole_answers():
    clock, log = Clock(), []
    session = Session(clock, 4.0)
    parts = breakdown({"a": session, "no": "no GPU"}, [b"1", b"22", b"333"], steps(clock, log), rounds=2, now=clock)
    assert parts == (
        Part("a", "decode", 2000.0),
        Part("a", "resize and crop", 500.0),
        Part("a", "engine", 4000.0),
        Part("a", "sum", 6500.0),
    )
    assert log == [b"333", b"1", b"22", b"333"] * 2
    assert [fed[0, 0] for fed in session.fed] == [3, 1, 2, 3] * 2


def test_sessions_take_turns_and_the_first_of_a_turn_is_not_counted():
    clock = Clock()

    class Disturbed(Session):
        def run(self, feeds):
            super().run(feeds)
            if len(self.fed) % 2:
                self.clock.time += 99.0

    turns = []

    def turn(name, session):
        run = session.run
        session.run = lambda feeds: (turns.append(name), run(feeds))
        return session

    sessions = {"a": turn("a", Disturbed(clock, 1.0)), "b": turn("b", Session(clock, 2.0))}
    parts = breakdown(sessions, [b"1"], steps(clock), rounds=3, now=clock)
    assert "".join(turns) == "aabb" + "bbaa" + "aabb"
    engine = {part.name: part.p50_ms for part in parts if part.part == "engine"}
    assert engine == {"a": 1000.0, "b": 2000.0}


def test_a_devices_copies_are_told_apart():
    clock = Clock()
    parts = breakdown({"gpu": Device(clock, 2.0)}, [b"1"], steps(clock), now=clock)
    assert {part.part: part.p50_ms for part in parts} == {
        "decode": 1000.0,
        "resize and crop": 500.0,
        "copy in": 250.0,
        "engine": 1000.0,
        "copy out": 125.0,
        "launch and wait": 625.0,
        "sum": 3500.0,
    }


@pytest.mark.parametrize(("files", "rounds"), [([], 1), ([b"1"], 0)])
def test_nothing_to_break_down_is_refused(files, rounds):
    with pytest.raises(SpecError, match="cannot break"):
        breakdown({}, files, {}, rounds=rounds)
