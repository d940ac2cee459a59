"""What a report says, in words and rounded figures, before either page lays it out. An absent figure is "-"."""

from __future__ import annotations

import math

from ..latency.values import Latency, LatencyReport
from ..parity.compare import FEWEST
from ..parity.values import Flip, Leg, Loss, OutputError, ParityReport
from .document import REFERENCE, Calibration, CompiledEngine, Report, engine_name

ABSENT = "-"
UNSTEADY = 1.5
"""p90 over p50 above which a run is said to have been disturbed."""
PARITY_HEAD = ("", "top-1 %", "top-5 %", "drop", "95 % interval", "flips", "agree %", "max diff", "SQNR dB")
OUTPUT_HEAD = ("", "output", "cosine", "least", "error %", "greatest", "5 nearest %")
LATENCY_HEAD = ("", "batch", "p50 ms", "p90 ms", "p99 ms", "mean ms", "images/s", "calls", "speed")


def number(value: float | None, digits: int = 2) -> str:
    """A figure with fixed digits; "-" where there is none, and never a minus before zero."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{round(value, digits) + 0.0:,.{digits}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits."""
    return ABSENT if value is None or math.isnan(value) else f"{value:.{digits}g}"


def milliseconds(value: float | None) -> str:
    """A time with about four significant digits, whatever its size."""
    return number(value, 3 if value is None or value < 10 else 2 if value < 100 else 1)


def size(count: int | None) -> str:
    """Bytes in the unit that suits them."""
    if count is None:
        return ABSENT
    for unit, one in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return plural(count, "byte")


def plural(count: int, what: str) -> str:
    """A count and its noun."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def calibrated(calibration: Calibration) -> str:
    """How the INT8 scales were set, and on what; those of another tool's cache on no images of this one's."""
    on = "random numbers" if calibration.random else plural(calibration.images, "image")
    return f"{calibration.method}{f', on {on}' if calibration.images else ''} ({calibration.source})"


def banners(report: Report) -> tuple[str, ...]:
    """What must not be overlooked: random weights, random calibration, answers that are no numbers."""
    found = []
    if not report.weights.trained:
        found.append("RANDOM WEIGHTS: the network is untrained. Its answers and its accuracy mean nothing.")
    if report.calibration is not None and report.calibration.random:
        found.append("RANDOM CALIBRATION: the INT8 scales were set on noise. Do not ship this engine.")
    for parity in report.parity:
        sides = [("the original answers NaN or infinity", parity.non_finite)]
        for leg in parity.legs:
            sides.append((f"{leg.name} answers NaN or infinity", leg.non_finite))
            sides += [
                (f"{leg.name} or the original answers NaN or infinity in {output.name}", output.non_finite)
                for output in leg.outputs
            ]
        found += [
            f"NOT A NUMBER: {said} on {bad:,} of {plural(parity.images, 'image')}"
            f" ({parity.source}, {plural(parity.crops, 'crop')})."
            for said, bad in sides
            if bad
        ]
    return tuple(found)


def headlines(report: Report) -> tuple[str, ...]:
    """A sentence for each engine: accuracy beside the original's, flips, speed; or why it was not run."""
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
    interval = f"95 % {_interval(leg.loss(1))}"
    return (
        f"{number(leg.top1)} % vs {number(parity.top1)} % top-1, drop {number(leg.drop)} points ({interval}), {flips}"
    )


def _speed(latency: LatencyReport | None, name: str) -> str:
    rows = [] if latency is None else [row for row in latency.rows if row.name == name]
    for row in sorted(rows, key=lambda row: row.batch):
        ratio = None if latency is None else speedup(latency, row)
        if ratio is not None:
            return f"{ratio_in_words(ratio)} at batch {row.batch}"
    return ""


def ratio_in_words(ratio: float) -> str:
    """A speed against the original's."""
    if ratio >= 1.05:
        return f"{ratio:.1f}x faster"
    return "as fast" if ratio > 1 / 1.05 else f"{1 / ratio:.1f}x slower"


def speedup(latency: LatencyReport, row: Latency) -> float | None:
    """The original's p50 over this row's, at the same batch size; ``None`` where either is not there."""
    for other in latency.rows:
        if other.name == REFERENCE and other.batch == row.batch and other.p50_ms is not None and row.p50_ms:
            return other.p50_ms / row.p50_ms
    return None


def parity_title(parity: ParityReport) -> str:
    """What was measured on."""
    return f"{parity.source}, {plural(parity.images, 'image')}, {plural(parity.crops, 'crop')}"


def parity_note(parity: ParityReport) -> str:
    """What a reader must know about the table; empty where there is nothing."""
    return "" if parity.labelled else "Accuracy was not measured: the images carry no labels. Agreement and flips only."


def parity_rows(parity: ParityReport) -> tuple[tuple[str, ...], ...]:
    """The original's row and every leg's under ``PARITY_HEAD``; a leg that was not run is its name and the reason."""
    blank = (ABSENT,) * (len(PARITY_HEAD) - 3)
    rows: list[tuple[str, ...]] = [(REFERENCE, number(parity.top1), number(parity.top5), *blank)]
    return (*rows, *map(_parity_row, parity.legs))


def _parity_row(leg: Leg) -> tuple[str, ...]:
    if leg.not_run:
        return leg.name, f"not run: {leg.not_run}"
    return (
        leg.name,
        number(leg.top1),
        number(leg.top5),
        number(leg.drop),
        _interval(leg.loss(1)),
        f"{len(leg.flips):,}",
        number(leg.agreement),
        significant(leg.logit_max_abs),
        "equal" if leg.logit_max_abs == 0 else number(leg.logit_sqnr_db, 1),
    )


def _interval(loss: Loss | None) -> str:
    return ABSENT if loss is None else f"{number(loss.low)} to {number(loss.high)}"


def output_rows(parity: ParityReport) -> tuple[tuple[str, ...], ...]:
    """A row for each output besides the logits of every leg that ran, under ``OUTPUT_HEAD``."""
    return tuple(_output_row(leg.name, output) for leg in parity.legs for output in leg.outputs)


def _output_row(leg: str, output: OutputError) -> tuple[str, ...]:
    return (
        leg,
        output.name,
        number(output.cosine_mean, 6),
        number(output.cosine_min, 6),
        significant(output.error_percent),
        significant(output.error_max_percent),
        number(output.neighbours_percent),
    )


def output_note(parity: ParityReport) -> str:
    """What the columns of ``OUTPUT_HEAD`` mean; empty where there are no rows."""
    outputs = [output for leg in parity.legs for output in leg.outputs]
    if not outputs:
        return ""
    counts = {output.neighbours_of for output in outputs} - {0}
    among = f", here {'up to ' if len(counts) > 1 else ''}{max(counts):,}" if counts else ""
    return (
        "Outputs besides the logits, on the centre crop of each image. Cosine: similarity of direction with the"
        " original's, mean and least of the images. Error: L2 norm of the difference over that of the original, of all"
        " images together and the greatest of one. 5 nearest: the share of the original's five nearest other images"
        f" (Euclidean distance) that the candidate has too; for vectors, among {FEWEST} images at least{among}."
    )


def latency_rows(latency: LatencyReport) -> tuple[tuple[str, ...], ...]:
    """Every session's rows under ``LATENCY_HEAD``; one that was not run is its name and the reason."""
    return tuple(_latency_row(latency, row) for row in latency.rows)


def _latency_row(latency: LatencyReport, row: Latency) -> tuple[str, ...]:
    if row.not_run:
        return row.name, f"not run at batch {row.batch}: {row.not_run}"
    points = (found.ms if found else None for found in map(row.at, (50, 90, 99)))
    times = map(milliseconds, (*points, row.mean_ms))
    ratio = None if row.name == REFERENCE else speedup(latency, row)
    speed = ABSENT if ratio is None else ratio_in_words(ratio)
    return row.name, str(row.batch), *times, number(row.images_per_s, 0), f"{row.calls:,}", speed


def latency_note(latency: LatencyReport) -> str:
    """How the times were taken, and whether the machine was quiet enough for them to be repeated."""
    ran = [row for row in latency.rows if not row.not_run]
    few = any(row.calls < 100 for row in ran)
    unsteady = any((p50 := row.at(50)) and (p90 := row.at(90)) and p90.ms > UNSTEADY * p50.ms for row in ran)
    return (
        f"Host to host on {latency.machine}, {plural(latency.threads, 'core')}; sessions interleaved in one run."
        " Speed compares p50 with the original's."
        + (" p99 of fewer than 100 calls is the slowest." if few else "")
        + (
            f" UNSTEADY: some p90 is above {UNSTEADY:g} times its p50. Measure again while nothing else runs."
            * unsteady
        )
    )


def lrn_lines(engine: CompiledEngine) -> tuple[str, ...]:
    """Which LRN an engine uses, what the plugin could not take, and how a race ended; nothing if nothing was asked."""
    lrn = engine.lrn
    if lrn is None:
        return ()
    if lrn.choice == "plugin":
        first = f"LRN by the plugin's CUDA kernels: {plural(len(lrn.lowered), 'node')} ({', '.join(lrn.lowered)})"
    else:
        first = "LRN by TensorRT's own layer"
    left = (f"{node.op_type} {node.node} is left to TensorRT: {node.reason}" for node in lrn.left_alone)
    ran = [(row.name, row.batch, row.p50_ms) for row in lrn.race if not row.not_run]
    races = [
        f"race at batch {batch}, p50: "
        + ", ".join(f"{name} {milliseconds(p50)} ms" for name, at, p50 in ran if at == batch)
        for batch in dict.fromkeys(batch for _, batch, _ in ran)
    ]
    return (f"{first}, the faster of both" if lrn.race else first, *left, *races)


def flip_row(flip: Flip) -> tuple[str, ...]:
    """Number, image, label, the original's class and the candidate's."""
    label = ABSENT if flip.label < 0 else str(flip.label)
    return str(flip.index), flip.name, label, *("NaN" if c < 0 else str(c) for c in (flip.reference, flip.candidate))
