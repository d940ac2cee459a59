"""What a report says of latency, in rows and sentences, before any page lays them out."""

from __future__ import annotations

import math

from ..latency.values import Latency, LatencyReport, Ratio
from .document import REFERENCE
from .words import ABSENT, interval, milliseconds, milliseconds_interval, number, one_line, plural, sentence, size

_ALIKE = 1.05
"""Ratios within this of 1 are called as fast."""
SHOWN = (90.0, 95.0, 99.0, 99.9, 100.0)
"""The percentiles of a row after its median."""
_TIMES_HEAD = ("p50 ms", "95 % interval", "p90 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms", "mean ms")
LATENCY_HEAD = ("", "batch", *_TIMES_HEAD, "images/s", "calls", "speed")
DEVICE_HEAD = ("", "batch", "latency ms", "H2D ms", "compute ms", "D2H ms", "enqueue ms")
COLD_HEAD = ("", "import ms", "load ms", "first call ms", "memory", "of it the engine")
THREADS_HEAD = ("", "threads", "p50 ms", "p99 ms", "images/s")
CLIENTS_HEAD = ("", "clients", "p50 ms", "p99 ms", "images/s")
LOAD_HEAD = ("", "arrivals/s", "served/s", "p50 ms", "p99 ms", "kept up")
PARTS_HEAD = ("", "part", "p50 ms")
SETTINGS_HEAD = ("", "setting", "value")
FACTS_HEAD = ("looked at", "found")

DEVICE_NOTE = (
    "Medians by the device's own clock, in trtexec's words: latency is H2D, compute and D2H together; enqueue is the"
    " time that the host takes to give the work."
)
COLD_NOTE = "What a process pays before its first answer at batch 1, in a process of its own."
THREADS_NOTE = "Batch 1 on so many threads."
CLIENTS_NOTE = "Batch 1; every client calls again as soon as it has its answer."
LOAD_NOTE = (
    "Requests of one image arrive at random at a mean rate, whether or not earlier ones are done; times run from"
    " arrival to answer."
)
PARTS_NOTE = "Medians of what an application waits for, for one image."


def distrust(latency: LatencyReport) -> str:
    """Why a run's times cannot be trusted, to stand before them; empty where nothing speaks against them."""
    if latency.validity.trustworthy:
        return ""
    return "NOT TRUSTWORTHY: " + " ".join(sentence(one_line(reason)) for reason in latency.validity.reasons)


def latency_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """Every session's rows under ``LATENCY_HEAD``; one that was not run is its name and the reason."""
    return tuple(_latency_row(latency, row) for row in latency.rows)


def _latency_row(latency: LatencyReport, row: Latency) -> tuple[str, ...]:
    if row.not_run:
        return row.name, f"not run at batch {row.batch}: {row.not_run}"
    median = row.at(50)
    points = (found.ms if found else None for found in map(row.at, SHOWN))
    return (
        row.name,
        str(row.batch),
        milliseconds(row.p50_ms),
        milliseconds_interval(median.low_ms, median.high_ms) if median else ABSENT,
        *map(milliseconds, points),
        milliseconds(row.mean_ms),
        number(row.images_per_s, 0),
        f"{row.calls:,}",
        speed(latency, row) or ABSENT,
    )


def speed(latency: LatencyReport, row: Latency) -> str:
    """A row's speed against the original's at the same batch size, with its interval where one was measured."""
    if row.name == REFERENCE:
        return ""
    for ratio in latency.ratios:
        if (ratio.name, ratio.against, ratio.batch) == (row.name, REFERENCE, row.batch):
            return ratio_words(ratio)
    found = speedup(latency, row)
    return "" if found is None else speed_words(found)


def ratio_words(ratio: Ratio) -> str:
    """A ratio of medians with its interval; one whose interval holds 1 shows no difference."""
    if not math.isfinite(ratio.ratio):
        return ""
    if not (math.isfinite(ratio.low) and math.isfinite(ratio.high)):
        return speed_words(ratio.ratio)
    if ratio.low <= 1 <= ratio.high:
        alike = max(ratio.high, _inverse(ratio.low)) < _ALIKE
        return f"{'as fast' if alike else 'not told apart'} ({interval(ratio.low, ratio.high)})"
    ends = (ratio.low, ratio.high) if ratio.ratio >= 1 else (1 / ratio.high, _inverse(ratio.low))
    return f"{speed_words(ratio.ratio)} ({interval(*ends)})"


def _inverse(value: float) -> float:
    return 1 / value if value > 0 else math.inf


def speed_words(ratio: float) -> str:
    """A speed against the original's."""
    if ratio >= _ALIKE:
        return f"{ratio:.1f}x faster"
    if ratio > 1 / _ALIKE:
        return "as fast"
    return f"{1 / ratio:.1f}x slower" if ratio > 0 else "slower beyond measure"


def speedup(latency: LatencyReport, row: Latency) -> float | None:
    """The original's p50 over this row's, at the same batch size; ``None`` where either is not there."""
    for other in latency.rows:
        if other.name == REFERENCE and other.batch == row.batch and other.p50_ms is not None and row.p50_ms:
            found = other.p50_ms / row.p50_ms
            return found if math.isfinite(found) else None
    return None


def latency_note(latency: LatencyReport) -> str:
    """How the times were taken, how exact they are, and whether the machine was quiet enough to repeat them."""
    ran = [row for row in latency.rows if not row.not_run]
    said = [
        f"Host to host on {latency.machine}, {plural(latency.threads, 'core')}; sessions interleaved in one run.",
        "Speed compares p50 with the original's.",
    ]
    if few := _of_too_few(ran):
        said.append(f"Too few calls to say how high {few} may be.")
    if loose := [f"{row.name} at batch {row.batch}" for row in ran if not row.settled]:
        of = "any median" if len(loose) == len(ran) else f"the median of {_and(loose)}"
        said.append(f"Time ran out before the interval of {of} was as narrow as asked.")
    return " ".join(said)


def _of_too_few(ran: list[Latency]) -> str:
    open_ended = {q.p for row in ran for q in row.quantiles if 50 < q.p < 100 and not math.isfinite(q.high_ms)}
    return _and([f"p{p:g}" for p in sorted(open_ended)])


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def device_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """What devices' clocks say, under ``DEVICE_HEAD``; empty where no device has one."""
    found = [(row, row.device) for row in latency.rows if row.device is not None]
    return tuple(
        (row.name, str(row.batch), *map(milliseconds, (d.latency_ms, d.h2d_ms, d.compute_ms, d.d2h_ms, d.enqueue_ms)))
        for row, d in found
    )


def cold_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """What a process pays before its first answer, under ``COLD_HEAD``; not run is a name and the reason."""
    return tuple(
        (cold.name, f"not run: {cold.not_run}")
        if cold.not_run
        else (
            cold.name,
            *map(milliseconds, (cold.import_ms, cold.load_ms, cold.first_ms)),
            size(cold.memory_bytes),
            size(cold.engine_bytes),
        )
        for cold in latency.cold
    )


def thread_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """The sweep of threads under ``THREADS_HEAD``."""
    return tuple(
        _served(row.name, row.threads, row.p50_ms, row.p99_ms, row.images_per_s) for row in latency.thread_sweep
    )


def client_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """Clients at once under ``CLIENTS_HEAD``."""
    return tuple(_served(row.name, row.clients, row.p50_ms, row.p99_ms, row.images_per_s) for row in latency.clients)


def _served(name: str, count: int, p50_ms: float, p99_ms: float, images_per_s: float) -> tuple[str, ...]:
    return name, f"{count:,}", milliseconds(p50_ms), milliseconds(p99_ms), number(images_per_s, 0)


def load_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """Latency against the rate of arrivals under ``LOAD_HEAD``."""
    return tuple(
        (
            row.name,
            number(row.rate_per_s, 0),
            number(row.served_per_s, 0),
            milliseconds(row.p50_ms),
            milliseconds(row.p99_ms),
            "yes" if row.kept_up else "no",
        )
        for row in latency.load
    )


def part_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """What an application waits for, part by part, under ``PARTS_HEAD``."""
    return tuple((part.name, part.part, milliseconds(part.p50_ms)) for part in latency.parts)


def setting_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """What every session's runtime was told or says of itself, under ``SETTINGS_HEAD``."""
    return tuple((name, key, value) for name, settings in latency.settings.items() for key, value in settings.items())


def fact_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """What was looked at to trust a run, under ``FACTS_HEAD``."""
    return tuple(latency.validity.facts.items())


def tables(
    latency: LatencyReport,
) -> tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...], str], ...]:
    """Head, rows and note of all that was measured besides calls in turn; without what was not."""
    found = (
        (DEVICE_HEAD, device_rows(latency), DEVICE_NOTE),
        (COLD_HEAD, cold_rows(latency), COLD_NOTE),
        (THREADS_HEAD, thread_rows(latency), THREADS_NOTE),
        (CLIENTS_HEAD, client_rows(latency), CLIENTS_NOTE),
        (LOAD_HEAD, load_rows(latency), LOAD_NOTE),
        (PARTS_HEAD, part_rows(latency), PARTS_NOTE),
    )
    return tuple(each for each in found if each[1])
