"""What a report says of the images that changed class, and of the classes that suffered."""

from __future__ import annotations

import math
import statistics
from typing import get_args

from ..parity.values import Change, ClassCount, Flip, Leg, ParityReport
from .words import ABSENT, number, plural

FLIP_HEAD = ("number", "image", "label", "original", "engine", "change", "margin before", "after")
KIND_HEAD = ("", "change", "images", "median margin before", "after")
CLASS_HEAD = ("", "class", "images", "original %", "engine %", "lost", "gained")
CLASSES_SHOWN = 10
CHANGES: tuple[Change, ...] = get_args(Change)
"""The kinds of flip, those that hurt first."""
MARGIN_NOTE = (
    "A margin is the probability of the best class less that of the next: small before and after, the original was"
    " undecided too."
)


def flips_line(parity: ParityReport, leg: Leg) -> str:
    """How many images changed class, and what that did to them."""
    counts = [(sum(flip.change == change for flip in leg.flips), change) for change in CHANGES]
    kinds = ", ".join(f"{count:,} {change}" for count, change in counts if count and change != "changed")
    return f"{len(leg.flips):,} of {plural(parity.images, 'image')} flipped{f': {kinds}' if kinds else ''}"


def kind_rows(parity: ParityReport) -> tuple[tuple[str, ...], ...]:
    """The flips of each leg by kind with the medians of their margins, under ``KIND_HEAD``."""
    return tuple(
        (leg.name, change, f"{len(found):,}", *(number(_median(found, end), 3) for end in (0, 1)))
        for leg in parity.legs
        for change in CHANGES
        if (found := [flip for flip in leg.flips if flip.change == change])
    )


def _median(flips: list[Flip], end: int) -> float | None:
    margins = ((flip.margin_before, flip.margin_after)[end] for flip in flips)
    known = [margin for margin in margins if margin is not None and math.isfinite(margin)]
    return statistics.median(known) if known else None


def worst_first(flips: tuple[Flip, ...]) -> tuple[Flip, ...]:
    """Flips from right to wrong first, and of those the ones of which the original was the surest."""
    return tuple(sorted(flips, key=lambda flip: (CHANGES.index(flip.change), -_known(flip.margin_before))))


def _known(margin: float | None) -> float:
    return -1.0 if margin is None or math.isnan(margin) else margin


def flip_row(flip: Flip) -> tuple[str, ...]:
    """An image that changed class, under ``FLIP_HEAD``."""
    label = ABSENT if flip.label < 0 else str(flip.label)
    classes = ("NaN" if c < 0 else str(c) for c in (flip.reference, flip.candidate))
    margins = (number(margin, 3) for margin in (flip.margin_before, flip.margin_after))
    return str(flip.index), flip.name, label, *classes, flip.change, *margins


def worst_classes(leg: Leg) -> tuple[ClassCount, ...]:
    """The classes that have lost more than they gained, the worst first; equals in their order."""
    lost = (count for count in leg.classes if count.lost > count.gained)
    return tuple(sorted(lost, key=lambda count: ((count.gained - count.lost) / max(count.images, 1), count.label)))


def class_rows(leg: Leg, most: int = CLASSES_SHOWN) -> tuple[tuple[str, ...], ...]:
    """The worst classes of a leg under ``CLASS_HEAD``."""
    return tuple(
        (
            leg.name,
            str(count.label),
            f"{count.images:,}",
            number(_percent(count.reference, count.images)),
            number(_percent(count.candidate, count.images)),
            f"{count.lost:,}",
            f"{count.gained:,}",
        )
        for count in worst_classes(leg)[:most]
    )


def worst_class_line(leg: Leg) -> str:
    """The class that lost the largest share of its images; empty where none lost any."""
    found = worst_classes(leg)
    if not found:
        return ""
    count = found[0]
    lost = _percent(count.lost - count.gained, count.images)
    return f"worst class: {count.label}, {number(lost)} points of {plural(count.images, 'image')}"


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
