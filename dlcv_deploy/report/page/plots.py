"""Plots as inline SVG, 360 units wide: legible on a phone as they are, and several beside each other on a screen.

Colours are classes of the page's style sheet (``s0`` is the original, ``s1`` and on the candidates), so that a plot
follows the page into dark mode and onto paper. What a colour says, a mark or a word says too.
"""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Sequence

from .axes import Scale, finite, scale, thinned, tick_text
from .markup import Child, Html, el, join

WIDTH = 360
_LEFT, _RIGHT = 46, 10
_ROW, _HEAD = 36, 6
_CHARACTER = 5.9
_BINS = 72
_SLOTS = 7
_SAID = 24


@dc.dataclass(frozen=True, slots=True)
class Bar:
    """From one figure to another."""

    start: float
    end: float
    slot: str


@dc.dataclass(frozen=True, slots=True)
class Interval:
    """A figure within an interval, whose ends may be infinite."""

    low: float
    at: float
    high: float
    slot: str


@dc.dataclass(frozen=True, slots=True)
class Spread:
    """How often which figure: an outline over the axis, with ticks at some ``marks``."""

    values: tuple[float, ...]
    marks: tuple[float, ...]
    slot: str


@dc.dataclass(frozen=True, slots=True)
class Row:
    """A line of a chart of rows: a name, what it says in words, and what is drawn under both."""

    name: str
    said: str
    marks: tuple[Bar | Interval | Spread, ...] = ()


@dc.dataclass(frozen=True, slots=True)
class Rule:
    """A line across a plot at one figure, with a word beside it."""

    at: float
    name: str = ""


@dc.dataclass(frozen=True, slots=True)
class Series:
    """Points joined by a line, or on their own; ``notes`` are words beside single points, by their place."""

    name: str
    points: tuple[tuple[float, float], ...]
    slot: str
    joined: bool = True
    notes: tuple[tuple[int, str], ...] = ()


def slot(index: int) -> str:
    """The class of the candidate with this number, from 1; 0 is the original."""
    return f"s{index if index < _SLOTS else (index - 1) % (_SLOTS - 1) + 1}"


def row_chart(
    title: str,
    rows: Sequence[Row],
    axis: str,
    *,
    rules: Sequence[Rule] = (),
    log: bool = False,
    zero: bool = False,
    legend: Sequence[tuple[str, str]] = (),
    compact: bool = False,
    whole: bool = False,
) -> Html:
    """Rows one under the other over a common axis; empty without rows.

    Args:
        title: What it shows.
        rows: Their words stand above what is drawn, so that neither takes the other's room.
        axis: The axis' name and unit.
        rules: Lines down through all rows.
        log: A logarithmic axis.
        zero: Whether zero is on the axis.
        legend: Names of slots.
        compact: Without the axis' name and ticks: for one row in a card.
        whole: Whether the axis counts things.
    """
    if not rows:
        return Html("")
    tall = 26 if any(isinstance(mark, Spread) for row in rows for mark in row.marks) else 12
    step = _ROW + tall - 12
    places = scale([*_extent(rows), *(rule.at for rule in rules)], 10, WIDTH - 10, log=log, zero=zero)
    top = _HEAD + 14 * bool(legend) + 12 * any(rule.name for rule in rules)
    end = top + step * len(rows) if not compact else top + tall + 8
    parts: list[Child] = [_legend(legend, _HEAD + 8)]
    if not compact:
        parts.append(_bottom(places, end, axis, places.ticks(whole=whole), top))
    seen = [rule for rule in rules if math.isfinite(rule.at)]
    parts += [_rule_name(rule, places, top) for rule in seen if rule.name]
    for i, row in enumerate(rows):
        y = top + i * step + (0 if compact else 14)
        parts += [_rule(rule, places, y - 1, y + tall + 5) for rule in seen]
        parts += [_mark(mark, places, y + 2, tall) for mark in row.marks]
        if not compact:
            parts.append(_words(row, y - 3))
    said = "; ".join(f"{row.name}: {row.said}" for row in rows[:_SAID])
    return drawing(
        title, f"{axis}. {said}{'; ...' if len(rows) > _SAID else ''}", end + (32 if not compact else 2), parts
    )


def line_chart(
    title: str,
    series: Sequence[Series],
    x: str,
    y: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    zero: bool = False,
    ticks: Sequence[float] = (),
    rules: Sequence[Rule] = (),
    height: int = 190,
) -> Html:
    """Series over two axes, each with a mark of its own; empty without a finite point.

    Args:
        title: What it shows.
        series: Points that are not finite, or not above zero on a logarithmic axis, are left out.
        x: The horizontal axis' name and unit.
        y: The vertical one's.
        log_x: A logarithmic horizontal axis.
        log_y: A logarithmic vertical axis.
        zero: Whether zero is on the vertical axis.
        ticks: Where the horizontal axis has ticks; else at round figures.
        rules: Lines across, at figures of the vertical axis.
        height: Of the plot without legend and axis.
    """
    kept = [dc.replace(one, points=_sound(one.points, log_x, log_y), notes=_notes(one, log_x, log_y)) for one in series]
    kept = [one for one in kept if one.points]
    if not kept:
        return Html("")
    top = 20 + 15 * len(kept)
    across = scale([p[0] for one in kept for p in one.points], _LEFT + 8, WIDTH - _RIGHT - 8, log=log_x, pad=0)
    heights = [*(p[1] for one in kept for p in one.points), *(rule.at for rule in rules)]
    up = scale(heights, top + height, top + 4, log=log_y, zero=zero)
    parts: list[Child] = [_key(one, 14 + 15 * i) for i, one in enumerate(kept)]
    parts.append(el("text", y, x=2, y=top - 3, class_="axis"))
    parts.append(_left(up))
    parts.append(_bottom(across, top + height, x, thinned(ticks, 9) if ticks else across.ticks(), top + 4))
    for rule in rules:
        at = _n(up(rule.at))
        parts.append(el("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="rule"))
        parts.append(el("text", rule.name, x=WIDTH - _RIGHT, y=_n(up(rule.at) - 4), class_="axis end"))
    parts += [_curve(one, across, up) for one in kept]
    said = "; ".join(f"{one.name}: {_course(one)}" for one in kept)
    return drawing(title, f"{y} against {x}. {said}", top + height + 32, parts)


def drawing(title: str, description: str, height: float, parts: Sequence[Child]) -> Html:
    """An SVG element with a title and a description."""
    inside = (el("title", title), el("desc", description), *parts)
    return el("svg", *inside, viewBox=f"0 0 {WIDTH} {_n(height)}", role="img", class_="plot")


def marker(slot_name: str, x: float, y: float) -> Html:
    """The mark that belongs to a slot: circle, square, triangle, diamond, cross, plus, ring."""
    r, n = 3.5, int(slot_name[1:]) if slot_name[1:].isdigit() else 1
    if n == 0:
        return el("circle", cx=_n(x), cy=_n(y), r=r, class_=f"{slot_name} open")
    paths = {
        2: f"M{_n(x - r)} {_n(y - r)}h{2 * r}v{2 * r}h{-2 * r}z",
        3: f"M{_n(x)} {_n(y - 4.5)}l4.5 8h-9z",
        4: f"M{_n(x)} {_n(y - 5)}l5 5l-5 5l-5 -5z",
        5: f"M{_n(x - 3.5)} {_n(y - 3.5)}l7 7m0 -7l-7 7",
        6: f"M{_n(x)} {_n(y - 5)}v10m-5 -5h10",
    }
    if n not in paths:
        return el("circle", cx=_n(x), cy=_n(y), r=r, class_=slot_name)
    return el("path", d=paths[n], class_=f"{slot_name} stroked" if n > 4 else slot_name)


def _n(value: float) -> str:
    """A coordinate."""
    return f"{value:.1f}".removesuffix(".0")


def _extent(rows: Sequence[Row]) -> list[float]:
    found: list[float] = []
    for row in rows:
        for mark in row.marks:
            if isinstance(mark, Bar):
                found += [mark.start, mark.end]
            elif isinstance(mark, Interval):
                found += [mark.low, mark.at, mark.high]
            else:
                found += [*mark.values, *mark.marks]
    return finite(found)


def _words(row: Row, y: float) -> Html:
    said = row.said
    room = int((WIDTH - 8) / _CHARACTER) - len(said) - 2
    name = row.name if len(row.name) <= room else row.name[: max(8, room - 3)] + "..."
    return join(
        (
            el("text", el("title", row.name) if name != row.name else "", name, x=2, y=_n(y), class_="name"),
            el("text", said, x=WIDTH - 2, y=_n(y), class_="said end"),
        )
    )


def _mark(mark: Bar | Interval | Spread, places: Scale, y: float, tall: int) -> Html:
    if isinstance(mark, Bar):
        return _bar(mark, places, y, tall)
    return _interval(mark, places, y + tall / 2) if isinstance(mark, Interval) else _spread(mark, places, y, tall)


def _bar(bar: Bar, places: Scale, y: float, tall: int) -> Html:
    if not (math.isfinite(bar.start) and math.isfinite(bar.end)) or bar.start == bar.end:
        return Html("")
    a, b = sorted((places(bar.start), places(bar.end)))
    return el("rect", x=_n(a), y=_n(y), width=_n(max(b - a, 1.5)), height=tall, class_=f"{bar.slot} bar")


def _interval(mark: Interval, places: Scale, y: float) -> Html:
    if not math.isfinite(mark.at):
        return Html("")
    low, high = (places(end) if not math.isnan(end) else places(mark.at) for end in (mark.low, mark.high))
    caps = "".join(
        f"M{_n(x)} {_n(y - 4)}v8" if math.isfinite(end) else f"M{_n(x + lean)} {_n(y - 4)}L{_n(x)} {_n(y)}l{lean} 4"
        for x, end, lean in ((low, mark.low, 4), (high, mark.high, -4))
    )
    line = el("path", d=f"M{_n(low)} {_n(y)}H{_n(high)}{caps}", class_=f"{mark.slot} whisker")
    return join((line, marker(mark.slot, places(mark.at), y)))


def _spread(mark: Spread, places: Scale, y: float, tall: int) -> Html:
    values = finite(mark.values)
    a, b = min(places.a, places.b), max(places.a, places.b)
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((places(value) - a) / (b - a) * _BINS))] += 1
    most = max(counts) or 1
    width = (b - a) / _BINS
    base = y + tall
    tops = "".join(f"L{_n(a + i * width)} {_n(base - (tall - 2) * c / most)}h{_n(width)}" for i, c in enumerate(counts))
    ticks = "".join(f"M{_n(places(at))} {_n(base)}v-{tall}" for at in finite(mark.marks))
    outline = el("path", d=f"M{_n(a)} {_n(base)}{tops}L{_n(b)} {_n(base)}z", class_=f"{mark.slot} spread")
    return join((outline, el("path", d=ticks, class_="mark") if ticks else ""))


def _rule(rule: Rule, places: Scale, top: float, end: float) -> Html:
    x = _n(places(rule.at))
    return el("line", x1=x, x2=x, y1=_n(top), y2=_n(end), class_="rule" if rule.name else "zero")


def _rule_name(rule: Rule, places: Scale, y: float) -> Html:
    x = places(rule.at)
    side = "end" if x > 0.6 * WIDTH else "mid" if x > 30 else ""
    return el("text", rule.name, x=_n(x), y=_n(y - 3), class_=f"axis {side}")


def _bottom(places: Scale, y: float, name: str, ticks: Sequence[float], grid_from: float) -> Html:
    parts: list[Child] = []
    for tick in ticks:
        x = _n(places(tick))
        parts.append(el("line", x1=x, x2=x, y1=_n(grid_from), y2=_n(y), class_="grid"))
        side = " end" if places(tick) > WIDTH - 14 else ""
        parts.append(el("text", tick_text(tick), x=x, y=_n(y + 13), class_=f"tick{side or ' mid'}"))
    parts.append(el("line", x1=_n(places.a), x2=_n(places.b), y1=_n(y), y2=_n(y), class_="base"))
    parts.append(el("text", name, x=_n((places.a + places.b) / 2), y=_n(y + 27), class_="axis mid"))
    return join(parts)


def _left(places: Scale) -> Html:
    parts: list[Child] = []
    for tick in places.ticks():
        y = places(tick)
        parts.append(el("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=_n(y), y2=_n(y), class_="grid"))
        parts.append(el("text", tick_text(tick), x=_LEFT - 5, y=_n(y + 3.5), class_="tick end"))
    return join(parts)


def _legend(names: Sequence[tuple[str, str]], y: float) -> Html:
    parts: list[Child] = []
    x = 2.0
    for name, slot_name in names:
        parts.append(el("rect", x=_n(x), y=_n(y - 8), width=10, height=9, class_=f"{slot_name} bar"))
        parts.append(el("text", name, x=_n(x + 14), y=_n(y), class_="axis"))
        x += 26 + _CHARACTER * len(name)
    return join(parts)


def _key(one: Series, y: float) -> Html:
    line = el("line", x1=2, x2=22, y1=_n(y - 4), y2=_n(y - 4), class_=f"{one.slot} curve") if one.joined else ""
    return join((line, marker(one.slot, 12, y - 4), el("text", one.name, x=28, y=_n(y), class_="name")))


def _curve(one: Series, across: Scale, up: Scale) -> Html:
    at = [(across(x), up(y)) for x, y in one.points]
    path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in at)
    parts: list[Child] = [el("path", d=path, class_=f"{one.slot} curve")] if one.joined else []
    parts += [marker(one.slot, x, y) for x, y in (at if len(at) <= 80 else [])]
    for i, said in one.notes:
        x, y = at[i]
        side = "end" if x + 6 + _CHARACTER * len(said) > WIDTH else ""
        parts.append(marker(one.slot, x, y))
        parts.append(el("text", said, x=_n(x + (-6 if side else 6)), y=_n(max(y + 4, 8)), class_=f"name {side}"))
    return join(parts)


def _sound(points: Sequence[tuple[float, float]], log_x: bool, log_y: bool) -> tuple[tuple[float, float], ...]:
    return tuple(point for point in points if _has_place(point, log_x, log_y))


def _notes(one: Series, log_x: bool, log_y: bool) -> tuple[tuple[int, str], ...]:
    """The notes of the points that are kept, by their new places."""
    kept = [i for i, point in enumerate(one.points) if _has_place(point, log_x, log_y)]
    return tuple((kept.index(i), said) for i, said in one.notes if i in kept)


def _has_place(point: tuple[float, float], log_x: bool, log_y: bool) -> bool:
    x, y = point
    return math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)


def _course(one: Series) -> str:
    (x, y), (x_last, y_last) = one.points[0], one.points[-1]
    if len(one.points) == 1:
        return f"{y:.4g} at {x:.4g}"
    return f"{y:.4g} at {x:.4g} to {y_last:.4g} at {x_last:.4g}, {len(one.points)} points"
