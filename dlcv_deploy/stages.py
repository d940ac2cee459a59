"""Runs a stage once: what was made from the same inputs by the same code is taken from the store."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .digest import digest, sha256
from .store import Store
from .types import StageTime


@functools.cache
def code_version() -> str:
    """Digest of this package's own source, so that no stage made by other code is ever taken for this one's."""
    from . import calibration, models

    folders = {Path(__file__).parent, Path(calibration.__path__[0]), Path(models.__path__[0])}
    sources = {f"{folder.name}/{p.relative_to(folder)}": p for folder in folders for p in folder.rglob("*.py")}
    return digest(sources={name: sha256(path.read_bytes()) for name, path in sources.items()})


class Stages:
    """The stages of one build, in order, with the time each took and whether it was reused; ``say`` tells who waits."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self._store, self.say = store, say
        self.times: list[StageTime] = []

    def run(self, name: str, make: Callable[[], Mapping[str, bytes]], **inputs: object) -> Mapping[str, bytes]:
        """The files of a stage: those of an earlier run with the same ``inputs``, else what ``make`` returns.

        Args:
            name: As it stands in reports; one name a stage, or "stage target".
            make: Called where the store has nothing.
            inputs: All that can change the result, each bytes or plain values.
        """
        start = time.perf_counter()
        stage, key = _entry(name, inputs)
        files: Mapping[str, bytes] | None = self._store.get(stage, key)
        reused = files is not None
        if files is None:
            files = make()
            self._store.put(stage, key, files)
        self.note(name, time.perf_counter() - start, reused=reused)
        return files

    def path(self, name: str, file: str, **inputs: object) -> Path:
        """Where the store has a file of a stage that was run."""
        return self._store.path(*_entry(name, inputs), file)

    def note(self, name: str, seconds: float, *, reused: bool = False) -> None:
        """Record a stage and say so."""
        self.times.append(StageTime(name, seconds, reused))
        self.say(f"{name:<22} {'reused' if reused else f'{seconds:.1f} s'}")


def _entry(name: str, inputs: Mapping[str, object]) -> tuple[str, str]:
    """The stage and the key under which the store has it."""
    return name.split()[0], digest(stage=name, code=code_version(), **inputs)
