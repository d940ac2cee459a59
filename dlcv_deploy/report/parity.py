"""What a report says of parity, in rows and sentences, before any page lays them out."""

from __future__ import annotations

import math

from ..parity import gate
from ..parity.compare import FEWEST
from ..parity.values import Leg, Loss, OutputError, ParityReport, Verdict
from .document import REFERENCE
from .words import ABSENT, decibels, interval, number, p_value, plural, significant

PARITY_HEAD = ("", "top-1 %", "top-5 %", "drop", "95 % interval", "flips", "agree %", "max diff", "SQNR dB")
LOSS_HEAD = ("", "at", "drop", "95 % interval", "lost", "gained", "McNemar's p")
VERDICT_HEAD = ("", "rule", "at", "may lose", "by the interval", "by the figures", "provable", "images needed")
STEP_HEAD = ("step", "from", "top-1 %", "drop", "flips", "cosine", "max diff", "SQNR dB")
OUTPUT_HEAD = ("", "output", "cosine", "least", "error %", "greatest", "5 nearest %")

PARITY_NOTE = (
    "The same pixels went through all. Drop is the original's top-1 minus the candidate's, in points, with Tango's"
    " paired 95 % interval (Statistics in Medicine 17, 1998). Flips are images that got another class than from the"
    " original. Max diff and SQNR compare the logits."
)
LOSS_NOTE = (
    "Lost are images that only the original had right, gained those that only the candidate had. McNemar's exact test"
    " asks whether the two are equally good."
)
VERDICT_NOTE = (
    "By the interval: shown where all of it is below what may be lost, shown worse where all of it is above. By the"
    " figures: without regard to chance. Provable is the smallest loss that so many images could rule out for a"
    " candidate that is equal, and images needed those that rule out what may be lost with a chance of 80 %."
)
STEP_NOTE = "Each step beside the one it comes from, on the same pixels, so that a loss has an address."


def parity_title(parity: ParityReport) -> str:
    """What was measured on."""
    how = ", logits averaged" if parity.average == "logits" and parity.crops > 1 else ""
    return f"{parity.source}, {plural(parity.images, 'image')}, {plural(parity.crops, 'crop')}{how}"


def parity_note(parity: ParityReport) -> str:
    """What a reader must know about the table; empty where there is nothing."""
    said = (
        [] if parity.labelled else ["Accuracy was not measured: the images carry no labels. Agreement and flips only."]
    )
    if parity.rotated:
        said.append(
            f"The EXIF orientation of {plural(parity.rotated, 'image')} was ignored, as the papers' pipelines do."
        )
    return " ".join(said)


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
        loss_interval(leg.loss(1)),
        f"{len(leg.flips):,}",
        number(leg.agreement),
        significant(leg.logit_max_abs),
        decibels(leg.logit_sqnr_db, leg.logit_max_abs),
    )


def loss_interval(loss: Loss | None) -> str:
    """The 95 % interval of a loss, in points."""
    return ABSENT if loss is None else interval(loss.low, loss.high)


def loss_rows(parity: ParityReport) -> tuple[tuple[str, ...], ...]:
    """The losses of every leg that ran, at top-1 and top-5, under ``LOSS_HEAD``."""
    return tuple(
        (
            leg.name,
            f"top-{loss.k}",
            number(loss.drop),
            interval(loss.low, loss.high),
            f"{loss.lost:,}",
            f"{loss.gained:,}",
            p_value(loss.p_value),
        )
        for leg in parity.legs
        for loss in leg.losses
    )


def verdict_rows(parity: ParityReport) -> tuple[tuple[str, ...], ...]:
    """What was asked of every leg, and what the images prove of it, under ``VERDICT_HEAD``."""
    return tuple(_verdict_row(leg.name, verdict) for leg in parity.legs for verdict in leg.verdicts)


def _verdict_row(leg: str, verdict: Verdict) -> tuple[str, ...]:
    return (
        leg,
        verdict.rule,
        f"top-{verdict.k}",
        number(verdict.margin),
        verdict.outcome,
        "met" if verdict.met else "not met",
        number(verdict.provable),
        f"{verdict.images_needed:,}" if verdict.images_needed else ABSENT,
    )


def verdict_lines(parity: ParityReport) -> tuple[str, ...]:
    """What the images show of each leg, and what it would take to show more; nothing where figures are missing."""
    figures = [
        parity.margin,
        parity.top1,
        *(end for leg in parity.legs for loss in leg.losses for end in _figures(loss)),
    ]
    most = max((loss.lost + loss.gained for leg in parity.legs for loss in leg.losses), default=0)
    known = all(figure is not None and math.isfinite(figure) for figure in figures)
    return gate.sentences(parity) if known and 0 <= most <= parity.images > 0 else ()


def _figures(loss: Loss) -> tuple[float, ...]:
    return loss.drop, loss.low, loss.high


def chief_verdict(parity: ParityReport, leg: Leg) -> Verdict | None:
    """The verdict that a headline quotes: that on the margin at top-1, which users state."""
    found = [verdict for verdict in leg.verdicts if verdict.k == 1]
    stated = (verdict for verdict in found if verdict.rule.startswith("margin") and verdict.margin == parity.margin)
    return next(stated, found[0] if found else None)


def verdict_words(verdict: Verdict) -> str:
    """A verdict as the end of a sentence."""
    said = {
        "shown": "shown to lose less than",
        "not shown": "not shown to lose less than",
        "shown worse": "SHOWN TO LOSE MORE than",
    }
    return f"{said[verdict.outcome]} {number(verdict.margin)} points"


def step_rows(parity: ParityReport) -> tuple[tuple[str, ...], ...]:
    """The way from the original to the engines, step by step, under ``STEP_HEAD``; empty where no steps were kept."""
    found = [leg for leg in parity.legs if leg.step is not None]
    if not found:
        return ()
    blank = (ABSENT,) * (len(STEP_HEAD) - 3)
    first: tuple[str, ...] = (REFERENCE, ABSENT, number(parity.top1), *blank)
    return (first, *map(_step_row, found))


def _step_row(leg: Leg) -> tuple[str, ...]:
    step = leg.step
    assert step is not None
    return (
        leg.name,
        step.previous,
        number(leg.top1),
        number(step.drop),
        f"{step.flips:,}",
        number(step.cosine, 6),
        significant(step.max_abs),
        decibels(step.sqnr_db, step.max_abs),
    )


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
