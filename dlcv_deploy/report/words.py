"""Figures and phrases that every page writes in the same way. An absent figure, NaN or infinity is "-"."""

from __future__ import annotations

import math

from .document import Calibration

ABSENT = "-"


def number(value: float | None, digits: int = 2) -> str:
    """A figure with fixed digits; "-" where there is none, and never a minus before zero."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{round(value, digits) + 0.0:,.{digits}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def milliseconds(value: float | None) -> str:
    """A time with about four significant digits, whatever its size."""
    return number(value, 3 if value is None or value < 10 else 2 if value < 100 else 1)


def decibels(sqnr_db: float | None, max_abs: float | None) -> str:
    """A signal-to-noise ratio; "equal" where the greatest difference is zero."""
    return "equal" if max_abs == 0 else number(sqnr_db, 1)


def p_value(value: float | None) -> str:
    """A probability, the smallest as a bound."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """The ends of an interval; "-" where there is none, "... or more" where it has no upper end."""
    return _ends(number(low, digits), number(high, digits))


def milliseconds_interval(low: float | None, high: float | None) -> str:
    """The ends of an interval of times, in milliseconds; "-" for that from 0 to infinity, which says nothing."""
    if low == 0 and (high is None or not math.isfinite(high)):
        return ABSENT
    return _ends(milliseconds(low), milliseconds(high))


def _ends(low: str, high: str) -> str:
    if low == ABSENT:
        return ABSENT
    return f"{low} or more" if high == ABSENT else f"{low} to {high}"


def size(count: int | None) -> str:
    """Bytes in the unit that suits them."""
    if count is None:
        return ABSENT
    for unit, one in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return plural(count, "byte")


def tally(count: int | None) -> str:
    """A count; "-" where nothing was counted."""
    return ABSENT if count is None else f"{count:,}"


def plural(count: int, what: str) -> str:
    """A count and its noun."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def one_line(text: str) -> str:
    """Text on one line, without what a terminal would obey or cannot show."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def sentence(text: str) -> str:
    """Text that ends as a sentence does."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def calibrated(calibration: Calibration) -> str:
    """How the INT8 scales were set, and on what; those of another tool's cache on no images of this one's."""
    on = "random numbers" if calibration.random else plural(calibration.images, "image")
    return f"{calibration.method}{f', on {on}' if calibration.images else ''} ({calibration.source})"


def layer_name(module: str, node: str) -> str:
    """A layer by its module, and by its node where that has another name."""
    return module if module == node else f"{module} ({node})"
