"""Latency under load, in simulated time: each thread has a clock of its own, which its calls and sleeps advance."""

import math
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.latency.load import arrivals, closed, curve, opened
from dlcv_deploy.latency.values import ClientRow, LoadRow


class Clock(threading.local):
    """Seconds of the thread that asks."""

    time = 0.0

    def __call__(self):
        return self.time

    def sleep(self, seconds):
        assert seconds > 0
        self.time += seconds

    def call(self, *seconds):
        """A call that takes these times in turn, over and over; in each thread from the first."""
        mine = threading.local()

        def run():
            count = getattr(mine, "count", 0)
            self.time += seconds[count % len(seconds)]
            mine.count = count + 1

        return run


# --- closed loop


@pytest.mark.parametrize("clients", [1, 2, 7])
def test_clients_call_again_as_soon_as_they_have_their_answer(clients):
    clock = Clock()
    row = closed("a", clock.call(0.25), clients, seconds=10.0, now=clock)
    assert row == ClientRow("a", clients, 250.0, 250.0, 4.0 * clients)


def test_the_first_call_of_a_client_is_not_counted():
    clock = Clock()
    row = closed("a", clock.call(9.0, *[1.0] * 50), 2, seconds=20.0, now=clock)
    assert row == ClientRow("a", 2, 1000.0, 1000.0, 2.0)


def test_percentiles_are_of_all_clients_calls():
    clock = Clock()
    row = closed("a", clock.call(*[1.0] * 98, 5.0, 5.0), 2, seconds=0, at_least=100, now=clock)
    assert (row.p50_ms, row.p99_ms) == (1000.0, 5000.0)
    assert row.images_per_s == pytest.approx(2 * 100 / 108)


def test_a_slow_engine_gets_its_fewest_calls():
    clock = Clock()
    assert closed("a", clock.call(60.0), 1, seconds=1.0, at_least=3, now=clock).p50_ms == 60_000
    assert clock.time == 0  # the time of other threads


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"at_least": 0}, {"seconds": math.inf}, {"seconds": math.nan}])
def test_clients_that_measure_nothing_are_refused(wrong):
    with pytest.raises(SpecError, match="cannot time"):
        closed("a", lambda: None, **{"clients": 1, **wrong})


@pytest.mark.parametrize("calls", [0, 3])
def test_one_clients_error_ends_all(calls):
    """Before the clients begin together, and after."""
    count, turn = [0], threading.Lock()

    def call():
        with turn:
            count[0] += 1
            if count[0] > calls:
                raise ToolError("the runtime died")

    with pytest.raises(ToolError, match="the runtime died"):
        closed("a", call, 3, seconds=3600.0)


# --- open loop


@given(st.floats(0.1, 1e4), st.integers(1, 300), st.integers(0, 9))
def test_arrivals_are_in_order_and_at_the_mean_rate(rate, count, seed):
    times = arrivals(rate, count, seed)
    assert len(times) == count
    assert list(times) == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= count / rate
    assert times == arrivals(rate, count, seed)
    assert count == 1 or times != arrivals(rate, count, seed + 1)


def test_gaps_are_those_of_a_poisson_process():
    gaps = [b - a for a, b in pairwise(arrivals(10.0, 20_000))]
    for t in (0.01, 0.1, 0.3):
        assert sum(gap > t for gap in gaps) / len(gaps) == pytest.approx(math.exp(-10 * t), abs=0.01)


@pytest.mark.parametrize(("rate", "count"), [(0.0, 1), (-1.0, 1), (math.inf, 1), (math.nan, 1), (1.0, 0)])
def test_what_never_arrives_is_refused(rate, count):
    with pytest.raises(SpecError, match="cannot arrive"):
        arrivals(rate, count)


def test_a_request_is_timed_from_its_arrival():
    """Each call takes 1 s; those that arrive together wait for one another."""
    clock = Clock()
    row = opened("a", clock.call(0.0, *[1.0] * 9), (1.0, 1.0, 1.0, 10.0), 0.5, 1, now=clock, sleep=clock.sleep)
    assert row == LoadRow("a", 0.5, 4 / 11, 1000.0, 3000.0, False)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.9])
def test_waits_are_those_of_queueing_theory(share):
    """M/D/1: the mean wait is share / (2 (1 - share)) services (Pollaczek and Khinchine)."""
    clock = Clock()
    times = arrivals(share, 40_000)
    row = opened("a", clock.call(1.0), times, share, 1, now=clock, sleep=clock.sleep)
    simulated, free = [], 0.0
    for arrival in times:  # Lindley's recursion
        begun = max(arrival, free)
        simulated.append(1e3 * (begun - arrival + 1.0))
        free = begun + 1.0
    mean = sum(simulated) / len(simulated) / 1e3 - 1
    assert mean == pytest.approx(share / (2 * (1 - share)), rel=0.1)
    ranked = sorted(simulated)
    assert row.p50_ms == pytest.approx(ranked[len(ranked) // 2 - 1])
    assert row.p99_ms == pytest.approx(ranked[math.ceil(0.99 * len(ranked)) - 1])
    assert row.kept_up
    assert row.served_per_s == pytest.approx(share, rel=0.001)


@pytest.mark.parametrize("seed", range(5))
def test_a_queue_grows_above_capacity_and_not_below(seed):
    clock = Clock()
    rows = curve("a", clock.call(0.5), 2.0, 1, seconds=300.0, seed=seed, now=clock, sleep=clock.sleep)
    assert [row.rate_per_s for row in rows] == [0.5, 1.0, 1.5, 1.8, 2.0, pytest.approx(2.2)]
    assert [row.kept_up for row in rows[:4]] == [True] * 4
    assert not rows[5].kept_up
    assert rows[5].served_per_s == pytest.approx(2.0, rel=0.01)
    assert [row.p99_ms for row in rows] == sorted(row.p99_ms for row in rows)


def test_a_curve_tells_of_each_rate_and_makes_enough_requests():
    told, count = [], []
    clock = Clock()

    def call():
        count.append(1)
        clock.time += 0.001

    rows = curve(
        "a",
        call,
        1000.0,
        1,
        shares=(0.5, 1.0),
        seconds=1.0,
        at_least=600,
        now=clock,
        sleep=clock.sleep,
        done=told.append,
    )
    assert told == [1, 1]
    assert len(rows) == 2
    assert len(count) == 1 + 600 + 1 + 1000  # the first call of the thread is not a request


def test_several_workers_serve_every_request_once():
    lock, served = threading.Lock(), []

    def call():
        with lock:
            served.append(threading.get_ident())

    row = opened("a", call, [0.0] * 500, 1e6, 4)
    assert len(served) == 500 + 4
    assert row.served_per_s > 0


def test_nobody_or_nothing_is_refused():
    with pytest.raises(SpecError, match="0 workers cannot serve 1 requests"):
        opened("a", lambda: None, (0.0,), 1.0, 0)
    with pytest.raises(SpecError, match="1 workers cannot serve 0 requests"):
        opened("a", lambda: None, (), 1.0, 1)
