"""The page's parts on latency: whether it can be trusted, distributions, sweeps, load, cold start, breakdown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from ...latency.values import Cold, Latency, LatencyReport, Part, Quantile
from .. import latency as said
from ..document import REFERENCE
from ..words import interval, milliseconds, milliseconds_interval, number, one_line, plural, sentence, size
from .markup import Html, bullets, el, figure, figures, join, more, note, table
from .plots import Bar, Interval, Row, Rule, Series, Spread, line_chart, row_chart, slot

T = TypeVar("T")
_FIRST = 2
"""Of the batch sizes, how many of the smallest have their distributions in view; the largest has, too."""
_PARTS = ("import", "load", "first call")


def latency_part(latency: LatencyReport, slots: Mapping[str, str]) -> Html:
    """All that was measured of time; whether to trust it stands before everything else."""
    batches = sorted({row.batch for row in latency.rows if row.shape or row.quantiles})
    shown = [*batches[:_FIRST], *batches[_FIRST:][-1:]]
    others = [batch for batch in batches if batch not in shown]
    parts = (
        trust(latency),
        note(said.latency_note(latency)),
        figures(*(_distribution(latency, batch, slots) for batch in shown), _ratios(latency, slots)),
        more(
            f"Distributions at batch {', '.join(str(batch) for batch in others)}",
            figures(*(_distribution(latency, batch, slots) for batch in others)),
        ),
        table(said.LATENCY_HEAD, said.latency_rows(latency), label="latency"),
        _device(latency),
        figures(*_batches(latency, slots)),
        _cpu(latency, slots),
        _start(latency, slots),
        more(
            "What was looked at to trust the run",
            table(said.FACTS_HEAD, said.fact_rows(latency), label="validity", text=2),
        ),
        more(
            "Settings of the runtimes", table(said.SETTINGS_HEAD, said.setting_rows(latency), label="settings", text=3)
        ),
    )
    return join(parts)


def trust(latency: LatencyReport, *, most: int = 0) -> Html:
    """A banner where the times cannot be trusted, with all reasons, or ``most`` of them."""
    reasons = latency.validity.reasons
    if not reasons:
        return Html("")
    shown = [sentence(one_line(reason)) for reason in (reasons[:most] if most else reasons)]
    if left := len(reasons) - len(shown):
        shown.append(f"And {plural(left, 'more reason')}: see Latency.")
    return el("div", "Latency is NOT TRUSTWORTHY:", bullets(shown), class_="banner warn", role="note")


def _distribution(latency: LatencyReport, batch: int, slots: Mapping[str, str]) -> Html:
    """Every session's times at one batch size over one axis, with ticks at p50 and p99."""
    rows, values = [], []
    for row in latency.rows:
        if row.batch != batch or row.not_run or not (row.shape or row.quantiles):
            continue
        p50, p99 = row.at(50), row.at(99)
        ticks = tuple(point.ms for point in (p50, p99) if point)
        words = ", ".join(f"{name} {milliseconds(point.ms)}" for name, point in (("p50", p50), ("p99", p99)) if point)
        values += [*row.shape, *ticks]
        rows.append(Row(row.name, words, (Spread(row.shape, ticks, slots.get(row.name, "s1")),)))
    positive = [value for value in values if value > 0]
    log = bool(positive) and max(positive) > 4 * min(positive)
    axis = f"ms a call{', logarithmic' if log else ''}; ticks at p50 and p99"
    drawn = row_chart(f"Latency at batch {batch}", rows, axis, log=log)
    head = ("", *(f"p{q.p:g} ms" if q.p < 100 else "max ms" for q in _points(latency, batch)))
    found = [
        (
            row.name,
            *(f"{milliseconds(q.ms)} ({milliseconds_interval(q.low_ms, q.high_ms)})" for q in row.quantiles),
        )
        for row in latency.rows
        if row.batch == batch and row.quantiles
    ]
    ends = note("In brackets the 95 % interval, by bootstrap.")
    return figure(
        f"Distribution at batch {batch}",
        drawn,
        more("Table", table(head, found, label="percentiles"), ends if found else ""),
    )


def _points(latency: LatencyReport, batch: int) -> Sequence[Quantile]:
    return max((row.quantiles for row in latency.rows if row.batch == batch), key=len, default=())


def _ratios(latency: LatencyReport, slots: Mapping[str, str]) -> Html:
    rows = [
        Row(
            f"batch {ratio.batch}: {ratio.name}" + ("" if ratio.against == REFERENCE else f", against {ratio.against}"),
            said.ratio_words(ratio),
            (Interval(ratio.low, ratio.ratio, ratio.high, slots.get(ratio.name, "s1")),),
        )
        for ratio in latency.ratios
    ]
    ratios = [ratio.ratio for ratio in latency.ratios if ratio.ratio > 0]
    log = bool(ratios) and max(*ratios, 1) > 4 * min(*ratios, 1)
    drawn = row_chart(
        "Speed beside the original",
        rows,
        f"times as fast{', logarithmic' if log else ''}",
        rules=[Rule(1.0, "equal")],
        log=log,
    )
    head = ("", "against", "batch", "times as fast", "95 % interval")
    cells = ((r.name, r.against, str(r.batch), number(r.ratio), interval(r.low, r.high)) for r in latency.ratios)
    return figure("Speed, with 95 % intervals", drawn, more("Table", table(head, cells, label="speed", text=2)))


def _device(latency: LatencyReport) -> Html:
    rows = table(said.DEVICE_HEAD, said.device_rows(latency), label="device times")
    return join((el("h4", "By the device's own clock"), rows, note(said.DEVICE_NOTE))) if rows else Html("")


def _batches(latency: LatencyReport, slots: Mapping[str, str]) -> list[Html]:
    """Latency and throughput against the batch size, where there are two sizes or more."""
    rows = [row for row in latency.rows if row.p50_ms is not None]
    sizes = sorted({row.batch for row in rows})
    if len(sizes) < 2:
        return []

    def p50(row: Latency) -> float | None:
        return row.p50_ms

    def rate(row: Latency) -> float | None:
        return row.images_per_s

    def size(row: Latency) -> float:
        return row.batch

    by_time = line_chart(
        "Latency against batch size", _series(rows, size, p50, slots), "batch, logarithmic", "p50 ms, logarithmic",
        log_x=True, log_y=True, ticks=sizes,
    )  # fmt: skip
    by_rate = line_chart(
        "Images a second against batch size", _series(rows, size, rate, slots), "batch, logarithmic", "images/s",
        log_x=True, zero=True, ticks=sizes,
    )  # fmt: skip
    head = ("", "batch", "p50 ms", "images/s")
    cells = ((row.name, str(row.batch), milliseconds(row.p50_ms), number(row.images_per_s, 0)) for row in rows)
    listed = more("Table", table(head, cells, label="batch sizes"))
    return [figure("Latency by batch size", by_time, listed), figure("Throughput by batch size", by_rate, listed)]


def _cpu(latency: LatencyReport, slots: Mapping[str, str]) -> Html:
    threads, clients, load = latency.thread_sweep, latency.clients, latency.load
    return figures(
        _sweep(
            "Threads", _series(threads, lambda r: r.threads, lambda r: r.p50_ms, slots), "threads", "p50 ms",
            [row.threads for row in threads], table(said.THREADS_HEAD, said.thread_rows(latency), label="threads"),
            said.THREADS_NOTE,
        ),
        _sweep(
            "Clients at once", _series(clients, lambda r: r.clients, lambda r: r.images_per_s, slots), "clients",
            "images/s", [row.clients for row in clients],
            table(said.CLIENTS_HEAD, said.client_rows(latency), label="clients"), said.CLIENTS_NOTE,
        ),
        _arrivals(latency, _series(load, lambda r: r.rate_per_s, lambda r: r.p99_ms, slots)),
    )  # fmt: skip


def _sweep(
    title: str, series: Sequence[Series], x: str, y: str, ticks: Sequence[int], listed: Html, words: str
) -> Html:
    drawn = line_chart(title, series, f"{x}, logarithmic", y, log_x=True, zero=True, ticks=sorted(set(ticks)))
    return figure(title, drawn, more("Table", listed, note(words)))


def _arrivals(latency: LatencyReport, series: Sequence[Series]) -> Html:
    """p99 against the arrival rate; where a session no longer keeps up, the plot says so."""
    behind = {(row.name, row.rate_per_s) for row in latency.load if not row.kept_up}
    noted = []
    for one in series:
        late = next((i for i, (rate, _) in enumerate(one.points) if (one.name, rate) in behind), None)
        notes = () if late is None else ((late, "falls behind"),)
        noted.append(Series(one.name, one.points, one.slot, notes=notes))
    drawn = line_chart("p99 against arrival rate", noted, "arrivals a second", "p99 ms, logarithmic", log_y=True)
    listed = table(said.LOAD_HEAD, said.load_rows(latency), label="load")
    return figure("Latency under load", drawn, more("Table", listed, note(said.LOAD_NOTE)))


def _series(
    rows: Iterable[T], x: Callable[[T], float], y: Callable[[T], float | None], slots: Mapping[str, str]
) -> list[Series]:
    """The rows of each session as a series, in the order of ``x``."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        height = y(row)
        if height is not None:
            points.setdefault(getattr(row, "name"), []).append((x(row), height))  # noqa: B009
    return [Series(name, tuple(sorted(found)), slots.get(name, "s1")) for name, found in points.items()]


def _start(latency: LatencyReport, slots: Mapping[str, str]) -> Html:
    cold = [row for row in map(_cold_row, latency.cold) if row is not None]
    legend = [(name, f"p{i}") for i, name in enumerate(_PARTS, 1)]
    start = row_chart("Cold start", cold, "ms until the first answer", zero=True, legend=legend)
    rows = table(said.COLD_HEAD, said.cold_rows(latency), label="cold start")
    listed = more("Table", rows, note(said.COLD_NOTE))
    return figures(
        figure("Cold start", start, listed),
        _memory(latency, slots, listed),
        _breakdown(latency.parts, table(said.PARTS_HEAD, said.part_rows(latency), label="parts", text=2)),
    )


def _cold_row(cold: Cold) -> Row | None:
    times = (cold.import_ms, cold.load_ms, cold.first_ms)
    if cold.not_run or all(time is None for time in times):
        return None
    words = " + ".join(milliseconds(time) for time in times)
    return Row(cold.name, words, _stack([time or 0.0 for time in times]))


def _stack(lengths: Sequence[float]) -> tuple[Bar, ...]:
    """Bars one after the other."""
    ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    return tuple(Bar(a, b, f"p{(i % 6) + 1}") for i, (a, b) in enumerate(itertools.pairwise(ends)) if b > a)


def _memory(latency: LatencyReport, slots: Mapping[str, str], listed: Html) -> Html:
    rows = [
        Row(
            cold.name,
            size(cold.memory_bytes),
            (Bar(0, cold.memory_bytes / (1 << 20), slots.get(cold.name, "s1")),),
        )
        for cold in latency.cold
        if cold.memory_bytes is not None
    ]
    drawn = row_chart("Memory of the process", rows, "MiB", zero=True)
    return figure("Memory of a process that has answered", drawn, listed)


def _breakdown(parts: Sequence[Part], listed: Html) -> Html:
    """What an application waits for: a bar a session, its parts in order."""
    kinds = list(dict.fromkeys(part.part for part in parts))
    rows = []
    for name in dict.fromkeys(part.name for part in parts):
        times = {part.part: part.p50_ms for part in parts if part.name == name}
        total = sum(times.values())
        bars = _stack([times.get(kind, 0.0) for kind in kinds])
        slots = [f"p{kinds.index(kind) % 6 + 1}" for kind in kinds if times.get(kind, 0.0) > 0]
        bars = tuple(Bar(bar.start, bar.end, kind) for bar, kind in zip(bars, slots, strict=False))
        rows.append(Row(name, f"{milliseconds(total)} ms in all", bars))
    legend = [(kind, f"p{i % 6 + 1}") for i, kind in enumerate(kinds)]
    drawn = row_chart("What an application waits for", rows, "p50 ms for one image", zero=True, legend=legend)
    return figure("Breakdown for an application", drawn, more("Table", listed, note(said.PARTS_NOTE)))


def slots_of(legs: Sequence[str], rows: Sequence[str]) -> dict[str, str]:
    """A colour and a mark for every name, the original's its own.

    Engines, which are among both, come first; what is in plots of parity only shares its colours with what is in plots
    of latency only.
    """
    both = [name for name in dict.fromkeys(rows) if name in legs and name != REFERENCE]
    found = {REFERENCE: "s0"}
    for names in (legs, rows):
        own = [name for name in dict.fromkeys(names) if name not in both and name != REFERENCE]
        found |= {name: slot(i) for i, name in enumerate([*both, *own], 1)}
    return found
