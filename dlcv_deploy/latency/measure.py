"""How long a call takes, host to host: sessions timed in turn within one run, so that all see the same machine."""

from __future__ import annotations

import dataclasses as dc
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpecError
from ..progress import Progress, silent
from .gpu import first_gpu
from .machine import Watch
from .statistics import FEWEST_BLOCKS, Blocks, drift, percentile, quantiles, ratio, shape, within
from .validity import Series, judge
from .values import DeviceTimes, Latency, LatencyReport, Ratio

if TYPE_CHECKING:
    from ..backends.base import Array, Session, Timing

CPU_FLAGS = {
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "sve": "SVE",
}
"""The extensions that INT8 and reduced precision run on: as /proc/cpuinfo writes them, and as their makers do."""
STABLE = 0.02
"""Warm is who has two blocks in a row whose medians differ by no more than this part."""
BLOCK_S = 0.1
_LOOK_AGAIN = 1.2
_DEVICE_CALLS = 50


@dc.dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure at one batch size: until every median is known, or time is up.

    ``limit_s`` is for the rounds together; a fifth of it at the most goes before them into warming up. ``within`` is
    half the width of a median's interval, as a part of it. ``rounds`` are made at the least, whatever the time: a slow
    network ends after its fewest calls, not after the limit many times over.
    """

    limit_s: float = 10.0
    within: float = 0.01
    rounds: int = 10

    def __post_init__(self) -> None:
        if not (0 <= self.limit_s < math.inf and 0 < self.within < math.inf and self.rounds >= 1):
            raise SpecError(
                f"cannot time {self.rounds} rounds within {self.limit_s} s, each median to {100 * self.within:g} %",
                fix="one round or more, a finite limit, a part above 0",
            )


FULL = Effort()
BRIEF = Effort(limit_s=1.0, within=0.05, rounds=3)
"""What a build spends: a look, with intervals as wide as they come."""


@dc.dataclass(frozen=True, slots=True)
class Run:
    """Seconds of every timed call, by name, block after block; and whether all were warm before.

    All names have as many blocks, for each has one in a round.
    """

    blocks: Mapping[str, Blocks]
    warm: bool = True

    def seconds(self, name: str) -> list[float]:
        """All timed calls of a name, in order."""
        return [s for block in self.blocks[name] for s in block]


def measure(
    calls: Mapping[str, Callable[[], object]],
    effort: Effort = FULL,
    *,
    now: Callable[[], float] = time.perf_counter,
    between: Callable[[], object] = lambda: None,
    done: Callable[[float], object] = lambda fraction: None,
) -> Run:
    """Time calls in rounds, in each of which every name has one block, the order reversed from round to round.

    Blocks that are not counted come first, until all are warm (``STABLE``). The first call of a block is not counted
    either: it meets the caches of the runtime before it, whose threads may still be spinning. A block goes on for one
    call or more and ``BLOCK_S``, or less so that ten rounds fit into half of the limit. Rounds go on until every median
    is known as surely as asked, or time is up.

    Args:
        calls: What to time. A call returns when its result is on the host.
        effort: How long.
        now: The clock, in seconds.
        between: Called before the first round and after each.
        done: Told, after each round, the fraction that is done, 1 at the end.
    """
    if not calls:
        return Run({})
    block_s = min(BLOCK_S, effort.limit_s / (20 * len(calls)))
    warm = _warm_up(calls, block_s, effort.limit_s / 5, now)
    blocks: dict[str, list[list[float]]] = {name: [] for name in calls}
    order, start, fraction, looked, rounds = list(calls), now(), 0.0, 0.0, 0
    between()
    while fraction < 1:
        for name in order:
            calls[name]()
            blocks[name].append(_block(calls[name], block_s, now))
        order.reverse()
        rounds += 1
        between()
        spent = now() - start
        fraction = min(1.0, spent / effort.limit_s if effort.limit_s else 1.0, rounds / effort.rounds)
        if fraction < 1 and rounds >= max(effort.rounds, FEWEST_BLOCKS) and spent >= _LOOK_AGAIN * looked:
            looked = spent
            fraction = 1.0 if all(settled(found, effort) for found in blocks.values()) else fraction
        done(fraction)
    return Run(blocks, warm)


def settled(blocks: Blocks, effort: Effort) -> bool:
    """Whether the median of these calls is known as surely as was asked for."""
    return within(quantiles(blocks, (50,))[0]) <= effort.within


def _warm_up(
    calls: Mapping[str, Callable[[], object]], block_s: float, limit_s: float, now: Callable[[], float]
) -> bool:
    """Call all in turn until the last two blocks of each have the same median, or time is up; says which."""
    last: dict[str, float] = {}
    start, warm = now(), False
    while not warm:
        found = {name: percentile(_block(call, block_s, now), 50) for name, call in calls.items()}
        warm = bool(last) and all(abs(found[name] - last[name]) <= STABLE * last[name] for name in calls)
        last = found
        if now() - start >= limit_s:
            break
    return warm


def _block(call: Callable[[], object], seconds: float, now: Callable[[], float]) -> list[float]:
    times: list[float] = []
    start = before = now()
    while not times or before - start < seconds:
        call()
        after = now()
        times.append(after - before)
        before = after
    return times


def latency(
    sessions: Mapping[str, Session | str],
    feeds: Callable[[int], Mapping[str, Array]],
    batches: tuple[int, ...] = (1, 10),
    *,
    effort: Effort = FULL,
    now: Callable[[], float] = time.perf_counter,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> LatencyReport:
    """Latency of each session at each batch size, every batch size one interleaved run (see ``measure``).

    The mean is over the counted calls, and images/s is the batch over the mean. Ratios are against the first session.
    Sessions on a device with a clock of its own are called again afterwards for what that says.

    Args:
        sessions: By name, in the order of the report; a text in place of a session is why it could not be run.
        feeds: Inputs for a batch size, made before the clock starts and used for every call.
        batches: Batch sizes. A session that refuses one (SpecError) is reported as not run at it, with its reason.
        effort: How long to measure at each.
        now: The clock, in seconds.
        progress: Told of hundredths of each batch size's run.
        watch: What looks at the machine meanwhile; one on this machine where none is given.
    """
    rows: list[Latency] = []
    ratios: list[Ratio] = []
    series: list[Series] = []
    if watch is None:
        timed = any(hasattr(session, "run_timed") for session in sessions.values())
        watch = Watch(first_gpu() if timed else None)
    with progress("latency", 100 * len(batches)) as advance:
        for batch in batches:
            told = 0

            def done(fraction: float) -> None:
                nonlocal told
                advance(int(100 * fraction) - told)
                told = int(100 * fraction)

            feed = feeds(batch)
            calls, refused = _calls(sessions, feed)
            run = measure(calls, effort, now=now, between=watch.look, done=done)
            for name, session in sessions.items():
                if name in refused:
                    rows.append(Latency(name, batch, not_run=refused[name]))
                else:
                    row = _row(name, batch, run.blocks[name], effort)
                    rows.append(dc.replace(row, device=_device_times(session, feed, effort, now)))
            ratios += _ratios(next(iter(sessions), ""), batch, run.blocks)
            series += [Series(name, batch, drift(blocks), run.warm) for name, blocks in run.blocks.items()]
            done(1.0)
    validity = judge(watch, rows, series, effort.within)
    return LatencyReport(machine(), cores(), tuple(rows), tuple(ratios), validity=validity)


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(cpuinfo: str | None = None) -> str:
    """The CPU in words: its model, and which of ``CPU_FLAGS`` it has.

    Args:
        cpuinfo: Text in the form of Linux's /proc/cpuinfo, which is read where none is given; elsewhere the name that
            Python's platform module knows.
    """
    if cpuinfo is None:
        file = Path("/proc/cpuinfo")
        cpuinfo = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    model = fields.get("model name") or platform.processor() or platform.machine() or "unknown CPU"
    flags = (fields.get("flags") or fields.get("features") or "").split()
    known = [name for flag, name in CPU_FLAGS.items() if flag in flags]
    return f"{model} ({', '.join(known)})" if known else model


def _calls(
    sessions: Mapping[str, Session | str], feed: Mapping[str, Array]
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """What can be called with this feed, tried once; and why the rest cannot."""
    calls: dict[str, Callable[[], object]] = {}
    refused: dict[str, str] = {}
    for name, session in sessions.items():
        if isinstance(session, str):
            refused[name] = session
            continue
        try:
            session.run(feed)
        except SpecError as e:
            refused[name] = e.what
        else:
            calls[name] = lambda run=session.run: run(feed)  # type: ignore[misc]
    return calls, refused


def _row(name: str, batch: int, blocks: Blocks, effort: Effort) -> Latency:
    seconds = [s for block in blocks for s in block]
    mean = math.fsum(seconds) / len(seconds)
    found = quantiles(blocks)
    images_per_s = batch / mean if mean > 0 else None
    known = settled(blocks, effort)
    return Latency(name, batch, len(seconds), 1e3 * mean, found, images_per_s, known, shape=shape(blocks))


def _ratios(against: str, batch: int, blocks: Mapping[str, Blocks]) -> list[Ratio]:
    """How fast the others are beside ``against``; nothing where that was not run."""
    if against not in blocks:
        return []
    others = [name for name in blocks if name != against]
    return [Ratio(name, against, batch, *ratio(blocks[against], blocks[name])) for name in others]


def _device_times(
    session: Session | str, feed: Mapping[str, Array], effort: Effort, now: Callable[[], float]
) -> DeviceTimes | None:
    """Medians of what a device's own clock says, where it has one, in calls that follow those that were timed."""
    call: Callable[[Mapping[str, Array]], Timing] | None = getattr(session, "run_timed", None)
    if call is None:
        return None
    call(feed)
    found: list[Timing] = []
    start = now()
    while len(found) < effort.rounds or (len(found) < _DEVICE_CALLS and now() - start < effort.limit_s / 5):
        found.append(call(feed))
    parts = [(t.h2d_ms, t.compute_ms, t.d2h_ms, t.enqueue_ms, t.h2d_ms + t.compute_ms + t.d2h_ms) for t in found]
    return DeviceTimes(*(percentile(part, 50) for part in zip(*parts, strict=True)))
