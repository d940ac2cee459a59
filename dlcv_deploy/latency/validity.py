"""Whether a run's times can be trusted: what the machine did meanwhile, and how the times themselves behaved."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Mapping, Sequence

from .gpu import SLOWED
from .machine import Look, Watch
from .statistics import within
from .values import Latency, Validity

OTHERS = 0.05
"""Of the processors' time, how much other processes may use."""
STOLEN = 0.01
"""Of the processors' time, how much a hypervisor may take."""
WAITS = 0.01
"""Of the run, how long processes may wait for memory."""
CLOCKS = 0.10
"""By how much of the fastest clock that was seen the slowest may be below it, on the CPU; on the GPU too."""
SPREAD = 1.2
"""How many times p50 p90 may be."""
DRIFT = 0.05
"""By how much the median of the later half of a run may differ from that of the earlier."""
_LEAST_S = 0.1


@dc.dataclass(frozen=True, slots=True)
class Series:
    """How the calls of one session at one batch size went, besides what is in its row.

    ``drift`` is the median of the later half of the rounds over the earlier's; ``warm`` says that the warm-up ended
    because times were stable.
    """

    name: str
    batch: int
    drift: float
    warm: bool


def judge(watch: Watch, rows: Iterable[Latency], series: Sequence[Series], wanted: float) -> Validity:
    """All that was looked at, in words, and what of it speaks against the run.

    Args:
        watch: What looked at the machine; the first look before the first round, the last one after the last.
        rows: What was measured.
        series: How each row came about.
        wanted: How well medians were to be known, as a part of them.
    """
    facts: dict[str, str] = {}
    reasons: list[str] = []
    parts = [
        _medians([row for row in rows if not row.not_run], wanted),
        _drifts(series),
    ]
    if len(watch.looks) > 1:
        parts = [*_machine(watch), *parts]
    if watch.gpu is not None:
        parts.append(({"GPU": watch.gpu}, ()) if isinstance(watch.gpu, str) else _gpu(watch.looks))
    for found, against in parts:
        facts.update(found)
        reasons += against
    return Validity(tuple(reasons), facts)


Part = tuple[Mapping[str, str], tuple[str, ...]]


def _machine(watch: Watch) -> list[Part]:
    first, last = watch.looks[0], watch.looks[-1]
    elapsed = last.at_s - first.at_s
    return [
        _others(first, last, elapsed * len(watch.cpus), len(watch.cpus)),
        _clock(watch.looks),
        _stops(first, last),
        _memory(first, last, elapsed),
    ]


def _others(first: Look, last: Look, cpu_s: float, cpus: int) -> Part:
    """Who else used the processors; the load average, which counts this process too, decides where nothing else can."""
    cores = f"{cpus} core{'s' * (cpus != 1)}"
    facts = {"load": f"{first.load:.2f} on {cores} before the run" if first.load is not None else "cannot be read here"}
    if first.busy_s is None or last.busy_s is None or cpu_s <= 0:
        facts["other processes"] = "cannot be read here"
        if first.load is not None and first.load > cpus:
            fix = "end what else runs, wait a minute, measure again"
            return facts, (f"the load was {first.load:.2f} on {cores} before the run: {fix}",)
        return facts, ()
    reasons = []
    others_s = max(0.0, last.busy_s - first.busy_s - (last.own_s - first.own_s))
    facts["other processes"] = f"used {percent(others_s / cpu_s)} of the time of {cores}"
    if others_s > max(OTHERS * cpu_s, _LEAST_S):
        reasons.append(
            f"other processes used {percent(others_s / cpu_s)} of the time of {cores} ({percent(OTHERS)} is the limit):"
            " end them, or measure when the machine is idle"
        )
    stolen_s = (last.stolen_s or 0.0) - (first.stolen_s or 0.0)
    facts["hypervisor"] = f"took {percent(stolen_s / cpu_s)} of the time of {cores}"
    if stolen_s > max(STOLEN * cpu_s, _LEAST_S):
        reasons.append(
            f"the hypervisor took {percent(stolen_s / cpu_s)} of the time of {cores} ({percent(STOLEN)} is the limit): "
            "measure on a machine whose cores are not shared"
        )
    return facts, tuple(reasons)


def _clock(looks: Sequence[Look]) -> Part:
    governors = sorted({governor for look in looks for governor in look.governors})
    facts = {"governor": ", ".join(governors) or "cannot be read here"}
    seen = [look.clock_mhz for look in looks if look.clock_mhz is not None]
    if not seen:
        return {**facts, "clock": "cannot be read here"}, ()
    low, high = min(seen), max(seen)
    facts["clock"] = f"{high:.0f} MHz" if low == high else f"{low:.0f} to {high:.0f} MHz"
    if high - low <= CLOCKS * high:
        return facts, ()
    under = f" under the governor {facts['governor']}" if governors else ""
    return facts, (
        f"the CPU's clock went from {low:.0f} to {high:.0f} MHz{under} ({percent(CLOCKS)} is the limit): "
        "sudo cpupower frequency-set -g performance, and mains power",
    )


def _stops(first: Look, last: Look) -> Part:
    facts, reasons = {"throttling": "cannot be read here"}, []
    if first.heat_stops is not None and last.heat_stops is not None:
        heat = last.heat_stops - first.heat_stops
        facts["throttling"] = f"{heat} times for heat" if heat else "none"
        if heat > 0:
            reasons.append(f"the CPU throttled itself for heat {heat} times: cool it, or measure for a shorter time")
    if first.quota_stops is not None and last.quota_stops is not None:
        stops = last.quota_stops - first.quota_stops
        facts["quota"] = f"stopped this container {stops} times" if stops else "stopped nothing"
        if stops > 0:
            reasons.append(
                f"the container's CPU quota stopped it {stops} times: give it whole CPUs (docker run --cpuset-cpus)"
            )
    return facts, tuple(reasons)


def _memory(first: Look, last: Look, elapsed: float) -> Part:
    if first.waits_s is None or last.waits_s is None or elapsed <= 0:
        return {"memory": "pressure cannot be read here"}, ()
    share = (last.waits_s - first.waits_s) / elapsed
    facts = {"memory": f"processes waited for it {percent(share)} of the time"}
    if share <= WAITS:
        return facts, ()
    return facts, (
        f"processes waited for memory {percent(share)} of the time ({percent(WAITS)} is the limit): "
        "free memory, or measure on a machine with more",
    )


def _medians(rows: Sequence[Latency], wanted: float) -> Part:
    """Whether every median is known as well as was asked for, and how far the slower calls are from it."""
    facts, reasons = dict[str, str](), []
    medians = [(within(median), row) for row in rows if (median := row.at(50)) is not None]
    if medians:
        worst, row = max(medians, key=lambda pair: pair[0])
        known = f"known to {percent(worst)}" if worst < float("inf") else f"of {row.calls} calls, too few to be sure of"
        facts["medians"] = f"the least sure, {_place(row)}, is {known}"
        if unsettled := [row for row in rows if not row.settled]:
            reasons.append(
                f"{len(unsettled)} of {len(rows)} medians are not settled; that of {_place(row)} is {known}, "
                f"and {percent(wanted)} was asked for: measure longer (bench --time)"
            )
    spreads = [(p90.ms / p50.ms, row) for row in rows if (p50 := row.at(50)) and (p90 := row.at(90)) and p50.ms > 0]
    if spreads:
        times, row = max(spreads, key=lambda pair: pair[0])
        facts["spread"] = f"p90 is up to {times:.2f} times p50 ({_place(row)})"
        if times > SPREAD:
            reasons.append(
                f"p90 is {times:.2f} times p50 for {_place(row)} ({SPREAD:g} is the limit): something interrupts it, "
                "so measure when nothing else runs"
            )
    return facts, tuple(reasons)


def _drifts(series: Sequence[Series]) -> Part:
    """Whether times changed while they were taken."""
    if not series:
        return {}, ()
    worst = max(series, key=lambda s: abs(s.drift - 1))
    place = f"{worst.name} at batch {worst.batch}"
    changed = f"{percent(abs(worst.drift - 1))} {'slower' if worst.drift > 1 else 'faster'}"
    facts = {"drift": f"the later half is at most {changed} than the earlier ({place})"}
    if cold := [s for s in series if not s.warm]:
        facts["warm-up"] = f"times were not stable yet at batch {', '.join(map(str, sorted({s.batch for s in cold})))}"
    else:
        facts["warm-up"] = "until times were stable"
    if abs(worst.drift - 1) <= DRIFT:
        return facts, ()
    return facts, (
        f"{place} was {changed} in the later half of the run ({percent(DRIFT)} is the limit): "
        "let the machine come to rest, measure again, and believe ratios before times",
    )


def _gpu(looks: Sequence[Look]) -> Part:
    seen = [look.gpu for look in looks if look.gpu is not None]
    if not seen:
        return {"GPU": "the driver does not say how it is"}, ()
    low, high = min(g.clock_mhz for g in seen), max(g.clock_mhz for g in seen)
    hottest = max(g.celsius for g in seen)
    slowed = [why for bit, why in SLOWED.items() if any(g.slowed & bit for g in seen)]
    others = {pid for g in seen for pid in g.others}
    clocks = f"{high} MHz" if low == high else f"{low} to {high} MHz"
    facts = {"GPU": f"{seen[0].name}, {clocks}, up to {hottest} °C, held down by {', '.join(slowed) or 'nothing'}"}
    reasons = []
    if slowed:
        reasons.append(
            f"the GPU's clock was held down by {', '.join(slowed)}: cool it, or lock a clock that it can hold"
        )
    if high - low > CLOCKS * high:
        reasons.append(
            f"the GPU's clock went from {low} to {high} MHz ({percent(CLOCKS)} is the limit): "
            f"sudo nvidia-smi --lock-gpu-clocks={high}"
        )
    if others:
        reasons.append(
            f"{len(others)} other process{'es' * (len(others) != 1)} computed on the GPU "
            f"({', '.join(map(str, sorted(others)))}): end them, or take another GPU (CUDA_VISIBLE_DEVICES)"
        )
    return facts, tuple(reasons)


def percent(part: float) -> str:
    """A part as per cent, two digits below ten: 0.0123 is 1.2 %."""
    return f"{100 * part:.1f} %" if part < 0.0995 and round(100 * part, 1) % 1 else f"{100 * part:.0f} %"


def _place(row: Latency) -> str:
    return f"{row.name} at batch {row.batch}"
