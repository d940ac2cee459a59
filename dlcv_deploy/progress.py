"""Progress of long steps: an argument to the step, a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Called with what is being done and how many units it takes; yields a function to call with the units done."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Advance]: ...


@contextmanager
def silent(what: str, total: int) -> Iterator[Advance]:
    """No bar."""
    yield lambda units: None


@contextmanager
def terminal(what: str, total: int) -> Iterator[Advance]:
    """A bar on stderr where that is a terminal; nothing where it is not."""
    import sys

    import click

    if not sys.stderr.isatty():
        yield lambda units: None
        return
    with click.progressbar(length=total, label=f"  {what}", file=sys.stderr) as bar:
        yield bar.update
