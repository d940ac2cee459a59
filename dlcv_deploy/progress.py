"""Progress of long steps: an argument to the step, a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Called with what is being done and how many units it takes; yields a function to call with the units done.

    ``unit`` names what is counted where people like to know how many of them a second takes: "images".
    """

    def __call__(self, what: str, total: int, unit: str = "") -> AbstractContextManager[Advance]: ...


@contextmanager
def silent(what: str, total: int, unit: str = "") -> Iterator[Advance]:
    """No bar."""
    yield lambda units: None


@contextmanager
def terminal(what: str, total: int, unit: str = "") -> Iterator[Advance]:
    """A bar on stderr where that is a terminal; nothing where it is not."""
    import sys

    import click

    if not sys.stderr.isatty():
        yield lambda units: None
        return
    start = monotonic()

    def rate(_: object) -> str:
        return f"{bar.pos / max(monotonic() - start, 1e-9):.3g} {unit}/s" if unit and bar.pos else ""

    bar = click.progressbar(length=total, label=f"  {what}", file=sys.stderr, item_show_func=rate)
    with bar:
        yield bar.update
