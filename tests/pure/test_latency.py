"""The measuring protocol under a clock that only the calls advance."""

import math
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.latency.measure import cores, latency, machine, measure, percentile
from dlcv_deploy.latency.values import Latency


class Clock:
    """Seconds, advanced by the calls themselves, which are written down."""

    def __init__(self):
        self.time, self.log = 0.0, []

    def __call__(self):
        return self.time

    def call(self, name, *seconds):
        """A call that takes these times in turn, the last one for ever."""
        taken = []

        def run():
            self.log.append(name)
            self.time += seconds[min(len(taken), len(seconds) - 1)]
            taken.append(name)

        return run


def test_blocks_alternate_and_their_first_call_is_not_counted():
    clock = Clock()
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 2.0)}
    times = measure(calls, warmup=1, at_least=4, block_calls=2, block_s=0, budget_s=0, now=clock)
    assert "".join(clock.log) == "ab" + "aaabbb" + "bbbaaa"
    assert times == {"a": (1.0,) * 4, "b": (2.0,) * 4}


def test_it_is_the_disturbed_call_that_is_left_out():
    clock = Clock()
    slow_first = clock.call("a", 9.0, 1.0, 2.0, 9.0, 3.0, 4.0)
    times = measure({"a": slow_first}, warmup=0, at_least=4, block_calls=2, block_s=0, budget_s=0, now=clock)
    assert times == {"a": (1.0, 2.0, 3.0, 4.0)}


def test_a_block_lasts_its_time():
    clock = Clock()
    calls = {"fast": clock.call("f", 0.25), "slow": clock.call("s", 4.0)}
    times = measure(calls, warmup=0, at_least=1, block_calls=2, block_s=1.0, budget_s=0, now=clock)
    assert "".join(clock.log) == "f" * 5 + "s" * 3
    assert {name: len(t) for name, t in times.items()} == {"fast": 4, "slow": 2}


def test_rounds_go_on_until_the_budget_is_spent():
    clock = Clock()
    times = measure(
        {"a": clock.call("a", 1.0)}, warmup=5, at_least=1, block_calls=1, block_s=0, budget_s=10.0, now=clock
    )
    assert len(times["a"]) == 5  # 2 s a round
    assert clock.time == 15


def test_a_slow_network_ends_after_its_fewest_calls():
    clock = Clock()
    times = measure(
        {"a": clock.call("a", 60.0)}, warmup=1, at_least=3, block_calls=1, block_s=1, budget_s=1.0, now=clock
    )
    assert len(times["a"]) == 3
    assert clock.time == 60 * (1 + 3 * 2)


def test_the_fraction_done_is_that_of_the_later_end():
    clock, told = Clock(), []
    measure(
        {"a": clock.call("a", 1.0)},
        warmup=0,
        at_least=4,
        block_calls=1,
        block_s=0,
        budget_s=4.0,
        now=clock,
        done=told.append,
    )
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_nothing_to_measure_ends():
    assert measure({}, now=Clock()) == {}


@pytest.mark.parametrize(
    "wrong", [{"at_least": 0}, {"block_calls": 0}, {"warmup": -1}, {"budget_s": math.nan}, {"budget_s": math.inf}]
)
def test_what_measures_nothing_is_refused(wrong):
    with pytest.raises(SpecError, match="cannot time"):
        measure({"a": lambda: None}, **wrong)


def test_percentiles_are_values_that_were_measured():
    hundred = tuple(float(v) for v in range(100, 0, -1))
    assert [percentile(hundred, p) for p in (1, 50, 90, 99, 100)] == [1, 50, 90, 99, 100]
    twenty = hundred[:20]
    assert [percentile(twenty, p) for p in (50, 90, 99)] == [90, 98, 100]
    assert percentile((3.0,), 50) == percentile((3.0,), 99) == 3
    assert percentile((1.0, 2.0), 50) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(1, 100))
def test_a_percentile_is_the_least_that_enough_values_do_not_exceed(values, p):
    found = percentile(tuple(values), p)
    assert 100 * sum(v <= found for v in values) >= p * len(values)
    assert all(100 * sum(v <= other for v in values) < p * len(values) for other in values if other < found)


class Timed:
    """A session whose calls take a time for each image; it refuses batches above ``most``."""

    def __init__(self, clock, seconds, most=100):
        self.clock, self.seconds, self.most, self.fed = clock, seconds, most, []

    def run(self, feeds):
        batch = len(feeds["x"])
        self.fed.append(feeds)
        if batch > self.most:
            raise SpecError(f"a batch of {batch} is above {self.most}", fix="a smaller one")
        self.clock.time += self.seconds * batch
        return {}


def feeds(batch):
    return {"x": np.zeros((batch, 1))}


def test_a_report_of_three_sessions():
    clock = Clock()
    sessions = {"PyTorch fp32": Timed(clock, 0.5), "int8": Timed(clock, 0.125, most=1), "gpu": "no GPU"}
    report = latency(sessions, feeds, (1, 2), at_least=10, budget_s=0, now=clock)
    times = [500.0] * 4
    assert report.rows == (
        Latency("PyTorch fp32", 1, 10, *times, 2.0),
        Latency("int8", 1, 10, 125.0, 125.0, 125.0, 125.0, 8.0),
        Latency("gpu", 1, not_run="no GPU"),
        Latency("PyTorch fp32", 2, 10, *(2 * t for t in times), 2.0),
        Latency("int8", 2, not_run="a batch of 2 is above 1"),
        Latency("gpu", 2, not_run="no GPU"),
    )
    assert report.machine == machine()
    assert report.threads == cores() >= 1


def test_the_feed_is_made_once_for_a_batch_size():
    clock, made = Clock(), []
    session = Timed(clock, 1.0)
    latency({"a": session}, lambda batch: made.append(batch) or feeds(batch), (1, 10), budget_s=0, now=clock)
    assert made == [1, 10]
    assert len({id(fed) for fed in session.fed}) == 2


def test_each_session_is_timed_by_its_own_calls():
    clock = Clock()
    report = latency({str(s): Timed(clock, s) for s in (1.0, 2.0, 3.0)}, feeds, (1,), budget_s=0, now=clock)
    assert [row.p50_ms for row in report.rows] == [1000, 2000, 3000]


def test_mean_and_percentiles_of_uneven_calls():
    class Uneven(Timed):
        def run(self, feeds):
            self.clock.time += 1.0 + len(self.fed) % 6  # in blocks of 1 + 5 calls
            self.fed.append(feeds)

    clock = Clock()
    report = latency({"a": Uneven(clock, 0)}, feeds, (3,), warmup=5, at_least=5, budget_s=0, now=clock)
    assert report.rows == (Latency("a", 3, 5, 4000.0, 4000.0, 6000.0, 6000.0, 0.75),)  # 2, 3, 4, 5 and 6 seconds


def test_other_errors_come_through():
    class Broken(Timed):
        def run(self, feeds):
            raise ToolError("the runtime died")

    with pytest.raises(ToolError, match="the runtime died"):
        latency({"a": Broken(Clock(), 1)}, feeds, now=Clock())


def test_progress_is_told_a_hundred_a_batch_size():
    told = []

    @contextmanager
    def progress(what, total):
        told.append((what, total))
        yield told.append

    clock = Clock()
    sessions = {"a": Timed(clock, 1.0, most=1)}
    latency(sessions, feeds, (1, 2), at_least=15, budget_s=0, now=clock, progress=progress)
    assert told[0] == ("latency", 200)
    assert [sum(told[1:-1]), told[-1]] == [100, 100]
    assert len(told) == 1 + 3 + 1 + 1  # three rounds, the end of the first batch size, all of the second


def test_machine_names_the_cpu_and_what_int8_runs_on():
    intel = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu amx_bf16 avx512_vnni amx_int8\n"
    later = "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n"
    assert machine(intel + later) == "Some CPU @ 2.0GHz (AVX512-VNNI, AMX-BF16, AMX-INT8)"
    assert machine("model name : Old CPU\nflags : fpu amx_tile\n") == "Old CPU"
    assert machine("Features : fp asimd asimddp i8mm\n").endswith("(DOTPROD, I8MM)")
    assert machine("")
