"""HTML and SVG from values: every text is escaped unless it is markup already, and every element is closed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = ("meta", "img", "br")
_SHORT = 40
"""Characters of a row's name up to which it stays on one line, where there is room."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None
"""What an element holds: ``Html`` as it is, other text escaped, ``None`` or an empty text not at all."""


def join(parts: Iterable[Child]) -> Html:
    """Parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else _escaped(part) for part in parts if part))


def _escaped(text: str) -> str:
    """Text as HTML has it; bytes of a file's name that are no UTF-8, which Python keeps as lone surrogates, escaped."""
    return html.escape(text.encode(errors="backslashreplace").decode())


def el(tag: str, *children: Child, **attributes: object) -> Html:
    """An element. ``class_`` is ``class``, ``aria_label`` is ``aria-label``; ``None`` and ``False`` leave one out."""
    said = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{tag}{said}>" if tag in _VOID else f"<{tag}{said}>{join(children)}</{tag}>")


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], *, label: str, text: int = 1) -> Html:
    """A table that scrolls within its box; empty without rows.

    Args:
        head: Names of the columns.
        rows: One shorter than the head is a name and a reason, which runs over the columns that are left.
        label: What it is, for those who do not see it.
        text: How many of the first columns are text; those after them are figures, to the right.
    """
    body = [_row(row, len(head), text) for row in rows]
    if not body:
        return Html("")
    names = (el("th", name, scope="col", class_=None if i < text else "n") for i, name in enumerate(head))
    whole = el("table", el("thead", el("tr", *names)), el("tbody", *body))
    return el("div", whole, class_="scroll", role="region", aria_label=label, tabindex="0")


def filled(head: Sequence[str], rows: Sequence[Sequence[str]], blank: str) -> tuple[list[str], list[list[str]]]:
    """A table without the columns in which every row that has them is blank."""
    whole = [row for row in rows if len(row) == len(head)]
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] != blank for row in whole)]
    return [head[i] for i in kept], [[row[i] for i in kept] if len(row) == len(head) else [*row] for row in rows]


def _row(row: Sequence[Child], columns: int, text: int) -> Html:
    cells = [el("th", row[0], scope="row", class_="short" if len(row[0] or "") <= _SHORT else None)]
    for i, cell in enumerate(row[1:], 1):
        last = i == len(row) - 1 and len(row) < columns
        span = columns - i if last and columns - i > 1 else None
        cells.append(el("td", cell, class_=None if i < text or last else "n", colspan=span))
    return el("tr", *cells)


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and what they are, side by side; those that are nothing are left out."""
    rows = [el("div", el("dt", name), el("dd", value)) for name, value in pairs if value]
    return el("dl", *rows) if rows else Html("")


def more(summary: str, *content: Child) -> Html:
    """What opens on a click; nothing where it holds nothing."""
    inside = join(content)
    return el("details", el("summary", summary), inside) if inside else Html("")


def figure(title: str, drawing: Html, *content: Child) -> Html:
    """A plot under its title, and what belongs to it; nothing without a plot."""
    if not drawing:
        return Html("")
    return el("figure", el("figcaption", title), drawing, *content)


def figures(*found: Html) -> Html:
    """Plots side by side as far as there is room."""
    inside = join(found)
    return el("div", inside, class_="figures") if inside else Html("")


def section(name: str, title: str, content: Html) -> Html:
    """A part of the page under a heading; nothing where it holds nothing."""
    return el("section", el("h2", title), content, id=name) if content else Html("")


def note(text: str) -> Html:
    """A paragraph in small print; nothing without text."""
    return el("p", text, class_="note") if text else Html("")


def bullets(lines: Iterable[Child]) -> Html:
    """A list; nothing without lines."""
    items = [el("li", line) for line in lines if line]
    return el("ul", *items) if items else Html("")
