"""The page's parts on parity: the way from the original to the engines, losses, classes, flips, layers, checks."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Mapping, Sequence

from ...parity.values import ClassCount, Consistency, Drift, Flip, LayerError, Leg, Loss, ParityReport
from .. import flips, layers
from .. import parity as said
from ..document import REFERENCE
from ..words import ABSENT, number, plural
from .markup import Child, Html, bullets, el, figure, figures, filled, join, more, note, table
from .plots import Bar, Interval, Row, Rule, Series, line_chart, row_chart

CLASSES_SHOWN = 12
CLASS_ROWS = 300
FLIPS_SHOWN = 48
FLIP_ROWS = 300
THUMBNAIL_BYTES = 1_000_000
"""What the thumbnails of a page may hold together."""
_DRIFT_ROWS = 400


@dc.dataclass
class Album:
    """Hands out thumbnails until the page holds as much of them as it may."""

    left_bytes: int = THUMBNAIL_BYTES

    def thumbnail(self, flip: Flip) -> Html:
        """The picture of a flipped image; nothing where there is none, or no room."""
        data = flip.thumbnail
        if not data or len(data) > self.left_bytes:
            return el("div", "no picture", class_="blank")
        self.left_bytes -= len(data)
        kind = "jpeg" if data.startswith("/9j/") else "png"
        return el("img", src=f"data:image/{kind};base64,{data}", alt="", width=96, height=96)


def parity_part(reports: Sequence[ParityReport], slots: Mapping[str, str], classes: Sequence[str]) -> Html:
    """All that was measured beside the original, one set of images after the other."""
    album = Album()
    return join(_one(parity, slots, classes, album) for parity in reports)


def _one(parity: ParityReport, slots: Mapping[str, str], classes: Sequence[str], album: Album) -> Html:
    legs = [leg for leg in parity.legs if not leg.not_run]
    return join(
        (
            el("h3", said.parity_title(parity)),
            el("p", said.parity_note(parity)) if said.parity_note(parity) else "",
            figures(_waterfall(parity, legs, slots), _flip_steps(parity, legs, slots), loss_figure(parity, slots)),
            table(*filled(said.PARITY_HEAD, said.parity_rows(parity), ABSENT), label="parity"),
            note(said.PARITY_NOTE),
            _verdicts(parity),
            more(
                "Outputs besides the logits",
                table(said.OUTPUT_HEAD, said.output_rows(parity), label="outputs besides the logits", text=2),
                note(said.output_note(parity)),
            ),
            figures(*(_classes(leg, classes) for leg in reversed(legs))),
            _flips(parity, legs, classes, album),
        )
    )


def _waterfall(parity: ParityReport, legs: Sequence[Leg], slots: Mapping[str, str]) -> Html:
    """Accuracy step by step: each bar begins where the step before it ended."""
    if parity.top1 is None:
        return Html("")
    accuracy: dict[str, float | None] = {REFERENCE: parity.top1, **{leg.name: leg.top1 for leg in legs}}
    rows = [Row(REFERENCE, f"{number(parity.top1)} %", (Interval(*(parity.top1,) * 3, "s0"),))]
    for leg in legs:
        before = accuracy.get(leg.step.previous if leg.step else REFERENCE)
        if leg.top1 is None or before is None:
            continue
        change = leg.top1 - before
        kind = "bad" if change < 0 else "good" if change > 0 else "even"
        marks = (Bar(before, leg.top1, kind), Interval(*(leg.top1,) * 3, slots.get(leg.name, "s0")))
        rows.append(Row(leg.name, f"{number(leg.top1)} %, {signed(change)}", marks))
    drawn = row_chart("Top-1 accuracy, step by step", rows, "top-1 accuracy, %", rules=[Rule(parity.top1)])
    return figure("Where accuracy is lost", drawn, more("Table", _steps(parity)))


def _steps(parity: ParityReport) -> Html:
    """Every step with its flips, cosine and SQNR."""
    rows = table(*filled(said.STEP_HEAD, said.step_rows(parity), ABSENT), label="steps", text=2)
    return join((rows, note(said.STEP_NOTE))) if rows else rows


def _flip_steps(parity: ParityReport, legs: Sequence[Leg], slots: Mapping[str, str]) -> Html:
    rows = []
    for leg in legs:
        own = f", {leg.step.flips:,} in this step" if leg.step else ""
        bar = Bar(0, len(leg.flips), slots.get(leg.name, "s1"))
        rows.append(Row(leg.name, f"{len(leg.flips):,}{own}", (bar,)))
    of = f"flipped of {plural(parity.images, 'image')}"
    drawn = row_chart("Images that changed class", rows, of, zero=True, whole=True)
    kinds = table(flips.KIND_HEAD, flips.kind_rows(parity), label="kinds of flips", text=2)
    return figure("Flips from the original, leg by leg", drawn, more("Table", _steps(parity), kinds))


def signed(value: float) -> str:
    """A change, with its sign."""
    found = number(value)
    return found if found.startswith("-") or not found.strip("0.") else f"+{found}"


def loss_row(name: str, loss: Loss, slot: str) -> Row:
    """A loss and its interval."""
    words = f"{number(loss.drop)} ({said.loss_interval(loss)})"
    return Row(name, words, (Interval(loss.low, loss.drop, loss.high, slot),))


def loss_figure(parity: ParityReport, slots: Mapping[str, str]) -> Html:
    """A forest plot of all losses, beside zero and the margin."""
    rows = [
        loss_row(f"top-{loss.k}: {leg.name}", loss, slots.get(leg.name, "s1"))
        for leg in parity.legs
        for loss in leg.losses
    ]
    rules = [Rule(0.0), Rule(parity.margin, f"margin {parity.margin:g}")]
    drawn = row_chart("Losses with 95 % intervals", rows, "points lost (left of 0: gained)", rules=rules)
    losses = table(said.LOSS_HEAD, said.loss_rows(parity), label="losses", text=2)
    return figure("Losses, with 95 % intervals", drawn, more("Table", losses, note(said.LOSS_NOTE)))


def _verdicts(parity: ParityReport) -> Html:
    rows = said.verdict_rows(parity)
    if not rows:
        return Html("")
    return join(
        (
            el("h4", "Verdicts"),
            table(said.VERDICT_HEAD, rows, label="verdicts", text=3),
            note(said.VERDICT_NOTE),
        )
    )


def class_name(label: int, classes: Sequence[str]) -> str:
    """A class by its name, where it has one."""
    if label < 0:
        return "NaN"
    return classes[label] if label < len(classes) and classes[label] else f"class {label}"


def _classes(leg: Leg, classes: Sequence[str]) -> Html:
    """The classes that lost the most beyond what they gained."""
    moved = [count for count in leg.classes if count.lost or count.gained]
    moved.sort(key=lambda count: (count.gained - count.lost, -count.lost, count.label))
    if not moved:
        return Html("")
    shown = moved[:CLASSES_SHOWN]
    rows = [
        Row(
            class_name(count.label, classes),
            f"lost {count.lost:,}, gained {count.gained:,} of {count.images:,}",
            (Bar(0, count.lost, "bad"), Bar(0, -count.gained, "good")),
        )
        for count in shown
    ]
    axis = "images: gained to the left, lost to the right"
    drawn = row_chart(f"Worst classes of {leg.name}", rows, axis, rules=[Rule(0)], zero=True, whole=True)
    of = f"Drawn are {len(shown)} of the {len(moved):,} classes that changed." if len(moved) > len(shown) else ""
    head = ("class", "images", "original right", "candidate right", "lost", "gained")
    listed = moved[:CLASS_ROWS]
    left = f"The first {CLASS_ROWS} of {len(moved):,}; all are in report.json." if len(moved) > len(listed) else ""
    rest = table(head, (_class_row(count, classes) for count in listed), label="classes")
    return figure(f"Worst classes of {leg.name}", drawn, note(of), more("Table", rest, note(left)))


def _class_row(count: ClassCount, classes: Sequence[str]) -> tuple[str, ...]:
    counts = (count.images, count.reference, count.candidate, count.lost, count.gained)
    return class_name(count.label, classes), *(f"{n:,}" for n in counts)


def _flips(parity: ParityReport, legs: Sequence[Leg], classes: Sequence[str], album: Album) -> Html:
    """A gallery a leg, the last (the engines) first and open."""
    found = [leg for leg in reversed(legs) if leg.flips]
    galleries = [_gallery(leg, parity, classes, album, first=leg is found[0]) for leg in found]
    if not galleries:
        return Html("")
    return join((el("h4", "Flipped images"), *galleries, note(flips.MARGIN_NOTE)))


def _gallery(leg: Leg, parity: ParityReport, classes: Sequence[str], album: Album, *, first: bool) -> Html:
    ordered = flips.worst_first(leg.flips)
    pictured = [flip for flip in ordered if flip.thumbnail]
    shown = pictured[: FLIPS_SHOWN if first else FLIPS_SHOWN // 2]
    cards = el("div", *(_flip(flip, classes, album) for flip in shown), class_="gallery") if shown else ""
    listed = ordered[:FLIP_ROWS]
    rows = table(flips.FLIP_HEAD, (_flip_row(flip, classes) for flip in listed), label="flipped images", text=6)
    parts = []
    if shown and len(shown) < len(ordered):
        parts.append(f"pictured are {len(shown):,} of {len(ordered):,}")
    if len(listed) < len(ordered):
        parts.append(f"listed are the first {len(listed):,} of {len(ordered):,}")
    order = "those from right to wrong first, the surest first. All are in report.json."
    left = note(f"{'; '.join(parts).capitalize()}: {order}") if parts else ""
    summary = f"{leg.name}: {flips.flips_line(parity, leg)}"
    return el("details", el("summary", summary), cards, left, more("Table", rows) if cards else rows, open=first)


def _flip(flip: Flip, classes: Sequence[str], album: Album) -> Html:
    before, after = (class_name(label, classes) for label in (flip.reference, flip.candidate))
    margins = " → ".join(number(margin, 3) for margin in (flip.margin_before, flip.margin_after))
    kind = {"right to wrong": "bad", "wrong to right": "good"}.get(flip.change, "even")
    return el(
        "div",
        album.thumbnail(flip),
        el("p", flip.change, class_=f"kind {kind}"),
        el("p", el("b", before), " → ", el("b", after)),
        el("p", f"label {class_name(flip.label, classes)}") if flip.label >= 0 else "",
        el("p", f"margin {margins}", class_="dim"),
        el("p", flip.name, class_="dim name", title=flip.name),
        class_="flip",
    )


def _flip_row(flip: Flip, classes: Sequence[str]) -> tuple[str, ...]:
    row = list(flips.flip_row(flip))
    if classes:
        for at, label in ((2, flip.label), (3, flip.reference), (4, flip.candidate)):
            row[at] = f"{row[at]} {class_name(label, classes)}" if label >= 0 else row[at]
    return tuple(row)


def drift_part(drifts: Sequence[Drift]) -> Html:
    """SQNR layer by layer, from the input to the logits."""
    parts: list[Child] = []
    for drift in drifts:
        parts += [el("p", layers.drift_line(drift)), _drift(drift)]
    return join([*parts, note(layers.DRIFT_NOTE) if parts else ""])


def _drift(drift: Drift) -> Html:
    marked = {i for i, layer in enumerate(drift.layers) if layer.module == drift.outlier and drift.outlier}
    outlier = min(marked, default=None)
    worst = [layer for layer in layers.worst_layers(drift) if math.isfinite(layer.sqnr_db)][:1]
    notes = {} if outlier is None else {outlier: f"{drift.outlier} (out of line)"}
    for layer in worst:
        notes.setdefault(drift.layers.index(layer), layer.module)
    points = tuple((float(i + 1), layer.sqnr_db) for i, layer in enumerate(drift.layers))
    series = [Series(drift.graph, points, "s1", notes=tuple(notes.items()))]
    drawn = line_chart("SQNR by layer", series, "layer, in the order of computation", "SQNR, dB")
    head = ("", "layer", "operator", "SQNR dB", "cosine")
    rows = (
        (
            str(i),
            f"{layer.module}{' (out of line)' if layer.module == drift.outlier and drift.outlier else ''}",
            layer.op_type,
            "equal" if _equal(layer) else number(layer.sqnr_db, 1),
            number(layer.cosine, 6),
        )
        for i, layer in enumerate(drift.layers[:_DRIFT_ROWS], 1)
    )
    every = table(head, rows, label="layers", text=3)
    farthest = table(
        layers.DRIFT_HEAD[1:], (row[1:] for row in layers.drift_rows(drift)), label="farthest layers", text=2
    )
    return el(
        "div",
        figure(f"SQNR of {drift.graph}", drawn, more("Table of all layers", every)),
        el("div", el("h4", "Farthest from fp32"), farthest),
        class_="beside",
    )


def _equal(layer: LayerError) -> bool:
    """Whether nothing differs: an infinite SQNR, which a report that was read has no figure for, and a cosine of 1."""
    return layer.sqnr_db == math.inf or (math.isnan(layer.sqnr_db) and layer.cosine == 1)


def consistency_part(found: Sequence[Consistency]) -> Html:
    """Whether the engines agree with themselves."""
    rows = table(layers.CHECK_HEAD, layers.check_rows(found), label="checks", text=4)
    return join((bullets(layers.consistency_lines(found)), more("All checks", rows)))
