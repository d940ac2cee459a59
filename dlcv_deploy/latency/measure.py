"""How long a call takes, host to host: sessions timed in turn within one run, so that all see the same machine."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpecError
from ..progress import Progress, silent
from .values import Latency, LatencyReport, Quantile

if TYPE_CHECKING:
    from ..backends.base import Array, Session

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


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    warmup: int = 3,
    at_least: int = 20,
    block_calls: int = 5,
    block_s: float = 0.1,
    budget_s: float = 5.0,
    now: Callable[[], float] = time.perf_counter,
    done: Callable[[float], object] = lambda fraction: None,
) -> dict[str, tuple[float, ...]]:
    """Seconds of every timed call, by name, in the order they were made.

    Each name is called ``warmup`` times; then rounds follow, in each of which every name has one block, in turn, the
    order reversed from round to round. The first call of a block is not counted: it meets the caches of the runtime
    before it, whose threads may still be spinning. A block goes on for ``block_calls`` calls and ``block_s`` seconds,
    whichever ends later. Rounds go on until ``budget_s`` seconds have passed since the warm-up and each name has
    ``at_least`` timed calls: a slow network ends after its fewest calls, not after its budget many times over.

    Args:
        calls: What to time. A call returns when its result is on the host.
        warmup: Calls of each name before anything is timed, 0 or more.
        at_least: Timed calls of each name, 1 or more.
        block_calls: Timed calls of a block, 1 or more.
        block_s: Seconds of a block.
        budget_s: Seconds of all rounds together.
        now: The clock, in seconds.
        done: Told, after each round, the fraction that is done, 1 at the end.

    Raises:
        SpecError: counts or times that measure nothing.
    """
    if min(at_least, block_calls) < 1 or warmup < 0 or not math.isfinite(budget_s + block_s):
        raise SpecError(
            f"cannot time {at_least} calls in blocks of {block_calls} after {warmup} others, in {budget_s} seconds",
            fix="one call or more, blocks of one or more, a finite budget",
        )
    for call in calls.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, start, fraction = list(calls), now(), 0.0
    while calls and fraction < 1:
        for name in order:
            times[name] += _block(calls[name], block_calls, block_s, now)
        order.reverse()
        spent = (now() - start) / budget_s if budget_s > 0 else 1.0
        fraction = min(1.0, spent, min(map(len, times.values())) / at_least)
        done(fraction)
    return {name: tuple(seconds) for name, seconds in times.items()}


def percentile(values: tuple[float, ...], p: int) -> float:
    """The least of the values that at least ``p`` percent of them do not exceed (nearest rank, no interpolation).

    p99 of fewer than 100 values is therefore the greatest.
    """
    return sorted(values)[max(0, -(-p * len(values) // 100) - 1)]


def latency(
    sessions: Mapping[str, Session | str],
    feeds: Callable[[int], Mapping[str, Array]],
    batches: tuple[int, ...] = (1, 10),
    *,
    warmup: int = 3,
    at_least: int = 20,
    budget_s: float = 5.0,
    now: Callable[[], float] = time.perf_counter,
    progress: Progress = silent,
) -> LatencyReport:
    """Latency of each session at each batch size, every batch size one interleaved run (see ``measure``).

    The mean is over the counted calls, and images/s is the batch over the mean. p50, p90 and p99 are nearest-rank
    percentiles (see ``percentile``).

    Args:
        sessions: By name, in the order of the report; a text in place of a session is why it could not be run.
        feeds: Inputs for a batch size, made before the clock starts and used for every call.
        batches: Batch sizes. A session that refuses one (SpecError) is reported as not run at it, with its reason.
        warmup: Calls of each session that are not counted.
        at_least: Counted calls of each session.
        budget_s: Seconds a batch size may take, warm-up and the fewest calls apart.
        now: The clock, in seconds.
        progress: Told of hundredths of each batch size's run.

    Raises:
        SpecError: counts or times that measure nothing.
    """
    rows: list[Latency] = []
    with progress("latency", 100 * len(batches)) as advance:
        for batch in batches:
            told = 0

            def done(fraction: float) -> None:
                nonlocal told
                advance(int(100 * fraction) - told)
                told = int(100 * fraction)

            calls, refused = _calls(sessions, feeds(batch))
            block = min(at_least, 5)
            times = measure(
                calls, warmup=warmup, at_least=at_least, block_calls=block, budget_s=budget_s, now=now, done=done
            )
            rows += [
                Latency(name, batch, not_run=refused[name]) if name in refused else _row(name, batch, times[name])
                for name in sessions
            ]
            done(1.0)
    return LatencyReport(machine(), cores(), tuple(rows))


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


def _block(call: Callable[[], object], calls: int, seconds: float, now: Callable[[], float]) -> list[float]:
    call()
    times: list[float] = []
    start = before = now()
    while len(times) < calls or before - start < seconds:
        call()
        after = now()
        times.append(after - before)
        before = after
    return times


def _row(name: str, batch: int, seconds: tuple[float, ...]) -> Latency:
    mean = math.fsum(seconds) / len(seconds)
    points = tuple(Quantile(p, ms := 1e3 * percentile(seconds, p), ms, ms) for p in (50, 90, 99))
    return Latency(name, batch, len(seconds), 1e3 * mean, points, batch / mean if mean > 0 else None)
