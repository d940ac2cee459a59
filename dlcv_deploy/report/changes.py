"""What became of one report's figures in another, and how a table says it: A is the old one, B the new."""

from __future__ import annotations

import dataclasses as dc
from typing import Literal

from ..parity.values import Loss
from .words import interval, milliseconds, number, size

Basis = Literal["share of PyTorch's", "milliseconds", "none"]


@dc.dataclass(frozen=True, slots=True)
class AccuracyChange:
    """One engine in A and B on the same images; pairs are A's figure and B's, accuracies in percent.

    ``drop`` is A's top-1 less B's, in points, and ``drops`` are those of each below its own original. ``differ`` counts
    the images that A and B answer differently, and ``loss`` is the paired loss of B against A; ``None`` where flips
    against one and the same original are not there to follow them from, which ``unpaired`` explains. ``why`` says why
    there is nothing to compare.
    """

    engine: str
    source: str = ""
    images: int = 0
    crops: int = 0
    top1: tuple[float | None, float | None] = (None, None)
    top5: tuple[float | None, float | None] = (None, None)
    drops: tuple[float | None, float | None] = (None, None)
    drop: float | None = None
    differ: int | None = None
    loss: Loss | None = None
    unpaired: str = ""
    why: str = ""


@dc.dataclass(frozen=True, slots=True)
class LatencyChange:
    """One engine's median in A and B at one batch size; ``ratio`` is B's over A's, on ``basis``, below 1 if faster.

    ``shares`` are of the original's median in the same run. ``low`` and ``high`` are a 95 % interval of the ratio,
    where both reports have one of theirs.
    """

    engine: str
    batch: int = 0
    p50_ms: tuple[float | None, float | None] = (None, None)
    shares: tuple[float | None, float | None] = (None, None)
    basis: Basis = "none"
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dc.dataclass(frozen=True, slots=True)
class SizeChange:
    """The size of one engine's files in A and B, and B's over A's; ``None`` where A's are empty."""

    engine: str
    size_bytes: tuple[int, int]
    ratio: float | None


@dc.dataclass(frozen=True, slots=True)
class Comparison:
    """All that two reports say of engines that both have.

    ``engines`` are those, as A and B call them. ``lacking`` are A's that B does not have. ``notes`` is what a reader
    must know, a sentence each, and ``broken`` where B answers NaN or infinity.
    """

    a: str
    b: str
    engines: tuple[str, ...]
    accuracy: tuple[AccuracyChange, ...]
    latency: tuple[LatencyChange, ...]
    sizes: tuple[SizeChange, ...]
    lacking: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


ACCURACY_HEAD = ("", "images", "crops", "top-1 A", "top-1 B", "drop", "95 % interval", "differ", "top-5 A", "top-5 B")
LATENCY_HEAD = ("", "batch", "A ms", "B ms", "A share", "B share", "B / A", "95 % interval", "by")
SIZE_HEAD = ("", "A", "B", "B / A")

ACCURACY_NOTE = (
    "Accuracies in percent. Drop is A's top-1 less B's, in points, with Tango's paired 95 % interval where the reports"
    " list flips against the same original; differ counts the images that A and B then answer differently."
)
LATENCY_NOTE = (
    "Medians. Share is that of PyTorch's median in the same run: B / A of shares is free of what slowed a whole run."
)


def accuracy_rows(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """Rows under ``ACCURACY_HEAD``; an engine that cannot be compared is its name and the reason."""
    return tuple(_accuracy_row(row) for row in comparison.accuracy)


def _accuracy_row(row: AccuracyChange) -> tuple[str, ...]:
    if row.why and row.differ is None:
        return row.engine, f"accuracy not compared: {row.why}"
    return (
        row.engine,
        f"{row.images:,}",
        f"{row.crops}",
        *map(number, row.top1),
        number(row.drop),
        interval(row.loss.low, row.loss.high) if row.loss else number(None),
        number(row.differ, 0),
        *map(number, row.top5),
    )


def latency_rows(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """Rows under ``LATENCY_HEAD``; an engine whose times are not in both is its name and the reason."""
    return tuple(_latency_row(row) for row in comparison.latency)


def _latency_row(row: LatencyChange) -> tuple[str, ...]:
    if not row.batch:
        return row.engine, f"latency not compared: {row.why}"
    by = {"share of PyTorch's": "share", "milliseconds": "ms", "none": number(None)}[row.basis]
    shares = (number(share, 3) for share in row.shares)
    return (
        row.engine,
        f"{row.batch}",
        *map(milliseconds, row.p50_ms),
        *shares,
        number(row.ratio, 3),
        interval(row.low, row.high, 3),
        by,
    )


def size_rows(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """Rows under ``SIZE_HEAD``."""
    return tuple((row.engine, *map(size, row.size_bytes), number(row.ratio, 3)) for row in comparison.sizes)


def remarks(comparison: Comparison) -> tuple[str, ...]:
    """What a reader must know of the comparison, a sentence each."""
    sources = dict.fromkeys(row.source for row in comparison.accuracy if row.source)
    unpaired = dict.fromkeys((row.engine, row.unpaired) for row in comparison.accuracy if row.unpaired)
    untimed = dict.fromkeys((row.engine, row.why) for row in comparison.latency if row.batch and row.why)
    return (
        *(f"accuracy on {source}" for source in sources),
        *(f"only A has {name}" for name in comparison.lacking),
        *comparison.notes,
        *(f"{engine}: images are not compared one by one: {why}" for engine, why in unpaired),
        *(f"{engine}: latency is not compared: {why}" for engine, why in untimed),
        *(f"in B {said}" for said in comparison.broken),
    )
