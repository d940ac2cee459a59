"""What a report says first: what must not be overlooked, and a sentence for each engine."""

from __future__ import annotations

from ..latency.values import LatencyReport
from ..parity.values import Leg, ParityReport
from .document import CompiledEngine, Report, engine_name
from .latency import speed
from .parity import chief_verdict, loss_interval, verdict_words
from .words import number, plural


def banners(report: Report) -> tuple[str, ...]:
    """What must not be overlooked: random weights or calibration, answers that are no numbers or not repeated."""
    found = []
    if not report.weights.trained:
        found.append("RANDOM WEIGHTS: the network is untrained. Its answers and its accuracy mean nothing.")
    if report.calibration is not None and report.calibration.random:
        found.append("RANDOM CALIBRATION: the INT8 scales were set on noise. Do not ship this engine.")
    found += [line for parity in report.parity for line in not_numbers(parity)]
    found += [
        f"INCONSISTENT: {each.engine} does not agree with itself: {', '.join(check.name for check in failed)}."
        for each in report.consistency
        if (failed := each.failed)
    ]
    return tuple(found)


def not_numbers(parity: ParityReport) -> tuple[str, ...]:
    """Who answers NaN or infinity, and on how many images."""
    sides = [("the original answers NaN or infinity", parity.non_finite)]
    for leg in parity.legs:
        sides.append((f"{leg.name} answers NaN or infinity", leg.non_finite))
        sides += [
            (f"{leg.name} or the original answers NaN or infinity in {output.name}", output.non_finite)
            for output in leg.outputs
        ]
    return tuple(
        f"NOT A NUMBER: {said} on {bad:,} of {plural(parity.images, 'image')}"
        f" ({parity.source}, {plural(parity.crops, 'crop')})."
        for said, bad in sides
        if bad
    )


def headlines(report: Report) -> tuple[str, ...]:
    """A sentence for each engine: accuracy beside the original's, the verdict, flips, speed; or why it was not run."""
    return tuple(_headline(report, engine) for engine in report.engines)


def evidence(report: Report, engine: CompiledEngine) -> tuple[ParityReport, Leg] | None:
    """The measurement that an engine's headline quotes: the first in which it ran, else the first that names it."""
    name = engine_name(report.precision, engine.backend)
    found = [(parity, leg) for parity in report.parity for leg in parity.legs if leg.name == name]
    return next((pair for pair in found if not pair[1].not_run), found[0] if found else None)


def _headline(report: Report, engine: CompiledEngine) -> str:
    found = evidence(report, engine)
    if found is None:
        said = "parity not measured"
    elif found[1].not_run:
        said = f"compiled, not run: {found[1].not_run.rstrip('.')}"
    else:
        said = _accuracy(*found)
    fast = _speed(report.latency, engine_name(report.precision, engine.backend))
    return f"{report.precision.upper()} on {engine.backend}: {said}{', ' + fast if fast else ''}."


def _accuracy(parity: ParityReport, leg: Leg) -> str:
    images = plural(parity.images, "image")
    flips = f"{len(leg.flips):,} of {images} flipped"
    if leg.non_finite:
        flips += f", NaN or infinity on {leg.non_finite:,} of them"
    if not parity.labelled:
        return f"accuracy not measured (no labels), {number(leg.agreement)} % agree with the original, {flips}"
    verdict = chief_verdict(parity, leg)
    shown = "" if verdict is None else f", {verdict_words(verdict)}"
    lost = f"drop {number(leg.drop)} points (95 % {loss_interval(leg.loss(1))}){shown}"
    return f"{number(leg.top1)} % vs {number(parity.top1)} % top-1, {lost}, {flips}"


def _speed(latency: LatencyReport | None, name: str) -> str:
    if latency is None:
        return ""
    for row in sorted((row for row in latency.rows if row.name == name), key=lambda row: row.batch):
        if said := speed(latency, row):
            doubt = "" if latency.validity.trustworthy else " (NOT TRUSTWORTHY)"
            return f"{said} at batch {row.batch}{doubt}"
    return ""
