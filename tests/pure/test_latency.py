"""The measuring protocol under a clock that only the calls advance."""

import math
from contextlib import contextmanager

import numpy as np
import pytest

from dlcv_deploy.backends.base import Timing
from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.latency.machine import Watch
from dlcv_deploy.latency.measure import Effort, cores, latency, machine, measure
from dlcv_deploy.latency.values import DeviceTimes, Latency

ONCE = Effort(limit_s=0, rounds=1)


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
    run = measure(calls, Effort(limit_s=0, rounds=2), now=clock)
    assert "".join(clock.log) == "ab" + "aabb" + "bbaa"
    assert run.blocks == {"a": [[1.0]] * 2, "b": [[2.0]] * 2}
    assert run.seconds("b") == [2.0, 2.0]


def test_it_is_the_disturbed_call_that_is_left_out():
    clock = Clock()
    slow_first = clock.call("a", 5.0, 9.0, 1.0, 9.0, 2.0)
    assert measure({"a": slow_first}, Effort(limit_s=0, rounds=2), now=clock).seconds("a") == [1.0, 2.0]


def test_a_block_lasts_its_time():
    clock = Clock()
    calls = {"fast": clock.call("f", 0.03125), "slow": clock.call("s", 4.0)}
    run = measure(calls, Effort(limit_s=4.0, rounds=1), now=clock)  # 0.1 s: two blocks, ten times, in half of 4 s
    assert [len(run.blocks[name][0]) for name in ("fast", "slow")] == [4, 1]
    clock = Clock()
    run = measure({"a": clock.call("a", 0.03125)}, Effort(limit_s=0.625, rounds=1), now=clock)
    assert len(run.blocks["a"][0]) == 1  # 0.03125 s


def test_warming_up_ends_with_two_blocks_that_are_alike():
    clock = Clock()
    cold = clock.call("a", *[4.0, 3.0, 2.0, 1.0, 1.01], 1.0)
    assert measure({"a": cold}, Effort(limit_s=100, rounds=1), now=clock).warm
    assert len(clock.log) >= 5 + 2
    clock = Clock()
    never = clock.call("a", *[float(2**i) for i in range(9)])
    run = measure({"a": never}, Effort(limit_s=100, rounds=1), now=clock)
    assert not run.warm  # 1 + 2 + 4 + 8 + 16 s are above a fifth of the limit
    assert run.blocks["a"][0] == [64.0]


def test_rounds_end_when_every_median_is_known():
    clock, looks = Clock(), []
    calls = {"a": clock.call("a", 0.5), "b": clock.call("b", 0.25)}
    run = measure(calls, Effort(limit_s=1000, rounds=7), now=clock, between=lambda: looks.append(clock.time))
    assert [len(blocks) for blocks in run.blocks.values()] == [7, 7]
    assert len(looks) == 8  # before the first, and after each


def test_one_that_is_not_known_keeps_all_at_it_until_time_is_up():
    clock = Clock()
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", *[1.0, 2.0, 4.0, 8.0, 5.0, 3.0] * 40)}
    run = measure(calls, Effort(limit_s=200.0, rounds=3), now=clock)
    assert len(run.blocks["a"]) == len(run.blocks["b"]) > 7
    assert 200 <= clock.time <= 40 + 8 + 200 + 18  # warm-up, rounds, and the last of each that had begun


def test_a_slow_network_ends_after_its_fewest_rounds():
    clock = Clock()
    run = measure({"a": clock.call("a", 60.0)}, Effort(limit_s=1.0, rounds=3), now=clock)
    assert run.seconds("a") == [60.0] * 3
    assert clock.time == 60 * (1 + 3 * 2)


def test_the_fraction_done_is_that_of_the_later_end():
    clock, told = Clock(), []
    measure({"a": clock.call("a", 1.0)}, Effort(limit_s=4.0, rounds=4), now=clock, done=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_nothing_to_measure_ends():
    assert measure({}, now=Clock()).blocks == {}


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"within": 0.0}, {"within": math.nan}, {"limit_s": -1.0}, {"limit_s": math.inf}]
)
def test_what_measures_nothing_is_refused(wrong):
    with pytest.raises(SpecError, match="cannot time") as e:
        Effort(**wrong)
    assert "finite limit" in e.value.fix


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


def timing(sessions, batches=(1,), effort=ONCE, **more):
    clock = next(session.clock for session in sessions.values() if not isinstance(session, str))
    return latency(
        sessions, feeds, batches, effort=effort, now=clock, watch=Watch(read={"/proc/loadavg": "0.00"}.get), **more
    )


def test_a_report_of_three_sessions():
    clock = Clock()
    sessions = {"PyTorch fp32": Timed(clock, 0.5), "int8": Timed(clock, 0.125, most=1), "gpu": "no GPU"}
    report = timing(sessions, (1, 2), Effort(limit_s=0, rounds=10))
    about = [(r.name, r.batch, r.calls, r.mean_ms, r.p50_ms, r.images_per_s, r.settled, r.not_run) for r in report.rows]
    assert about == [
        ("PyTorch fp32", 1, 10, 500.0, 500.0, 2.0, True, ""),
        ("int8", 1, 10, 125.0, 125.0, 8.0, True, ""),
        ("gpu", 1, 0, None, None, None, True, "no GPU"),
        ("PyTorch fp32", 2, 10, 1000.0, 1000.0, 2.0, True, ""),
        ("int8", 2, 0, None, None, None, True, "a batch of 2 is above 1"),
        ("gpu", 2, 0, None, None, None, True, "no GPU"),
    ]
    assert report.rows[2] == Latency("gpu", 1, not_run="no GPU")
    assert [q.p for q in report.rows[0].quantiles] == [50, 90, 95, 99, 99.9, 100]
    assert report.rows[0].shape == (500.0,) * 10
    (only,) = report.ratios
    assert (only.name, only.against, only.batch) == ("int8", "PyTorch fp32", 1)
    assert (only.ratio, only.low, only.high) == (4.0, 4.0, 4.0)
    assert report.machine == machine()
    assert report.threads == cores() >= 1


def test_there_are_no_ratios_where_the_original_does_not_run():
    clock = Clock()
    assert timing({"PyTorch fp32": "gone", "a": Timed(clock, 1.0), "b": Timed(clock, 1.0)}).ratios == ()


def test_few_rounds_are_not_settled_and_the_run_says_so():
    report = timing({"a": Timed(Clock(), 1.0)}, effort=Effort(limit_s=0, rounds=3))
    assert not report.rows[0].settled
    assert report.rows[0].at(50).high_ms == math.inf
    assert report.validity.reasons == (
        "1 of 1 medians are not settled; that of a at batch 1 is of 3 calls, too few to be sure of, "
        "and 1 % was asked for: measure longer (bench --time)",
    )


def test_the_feed_is_made_once_for_a_batch_size():
    clock, made = Clock(), []
    session = Timed(clock, 1.0)
    latency({"a": session}, lambda n: made.append(n) or feeds(n), (1, 10), effort=ONCE, now=clock)
    assert made == [1, 10]
    assert len({id(fed) for fed in session.fed}) == 2


def test_a_device_with_a_clock_is_asked_too():
    class OnDevice(Timed):
        told = iter([9.0, 1.0, 5.0, 3.0])

        def run_timed(self, feeds):
            k = next(self.told)
            return Timing(k, 10 * k, 100 * k, 7 - k)

    report = timing({"a": OnDevice(Clock(), 1.0), "b": Timed(Clock(), 1.0)}, effort=Effort(limit_s=0, rounds=3))
    assert report.rows[0].device == DeviceTimes(3.0, 30.0, 300.0, 4.0, 333.0)  # the first call is not counted
    assert report.rows[1].device is None


def test_other_errors_come_through():
    class Broken(Timed):
        def run(self, feeds):
            raise ToolError("the runtime died")

    with pytest.raises(ToolError, match="the runtime died"):
        timing({"a": Broken(Clock(), 1)})


def test_progress_is_told_a_hundred_a_batch_size():
    told = []

    @contextmanager
    def progress(what, total):
        told.append((what, total))
        yield told.append

    timing({"a": Timed(Clock(), 1.0, most=1)}, (1, 2), Effort(limit_s=0, rounds=3), progress=progress)
    assert told == [("latency", 200), 33, 33, 34, 0, 100]


def test_machine_names_the_cpu_and_what_int8_runs_on():
    intel = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu amx_bf16 avx512_vnni amx_int8\n"
    later = "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n"
    assert machine(intel + later) == "Some CPU @ 2.0GHz (AVX512-VNNI, AMX-BF16, AMX-INT8)"
    assert machine("model name : Old CPU\nflags : fpu amx_tile\n") == "Old CPU"
    assert machine("Features : fp asimd asimddp i8mm\n").endswith("(DOTPROD, I8MM)")
    assert machine("")
