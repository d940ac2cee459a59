"""What a process pays before its first answer: an engine, or the original, from nothing, in a process of its own."""

from __future__ import annotations

import dataclasses as dc
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backends
from ..backends import optional
from ..errors import DeployError
from ..isolate import isolated
from ..report import document
from ..types import Engine
from .statistics import percentile
from .values import Cold

if TYPE_CHECKING:
    from ..backends.base import Session

_RUNS = 3
"""Processes of which the medians are given; all read files that the system has at hand."""
_TIMEOUT_S = 600.0


def cold_engine(name: str, engine: Engine) -> Cold:
    """An engine from nothing to its first answer: medians of some processes.

    Args:
        name: As in the report.
        engine: What is loaded.
    """
    told = {"engine": document.plain(dc.replace(engine, files={}))}
    return _cold(name, "of_engine", told, engine.files)


def cold_original(name: str, bundle: Path, weights: str | None, model: str | None) -> Cold:
    """The PyTorch original of a bundle from nothing to its first answer; see ``proof.original`` for the arguments."""
    told = {"bundle": str(bundle.absolute()), "weights": weights, "model": model}
    return _cold(name, "of_original", told, {})


def _cold(name: str, entry: str, request: Mapping[str, object], files: Mapping[str, bytes]) -> Cold:
    found: list[Mapping[str, float | None]] = []
    for _ in range(_RUNS):
        try:
            answer = isolated(
                f"{__name__}:{entry}", request, files, what=f"a first run of {name}", timeout_s=_TIMEOUT_S
            )
        except DeployError as e:
            return Cold(name, not_run=e.what)
        found.append(answer.value)
    middle = {key: _median([each[key] for each in found]) for key in found[0]}
    return Cold(name, **{key: int(v) if v is not None and "bytes" in key else v for key, v in middle.items()})  # type: ignore[arg-type]


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return percentile(known, 50) if known else None


def of_engine(request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, float | None], dict[str, bytes]]:
    """The child's side of ``cold_engine``."""
    engine: Engine = dc.replace(document.read(Engine, request["engine"], "engine"), files=files)
    return _first(lambda: backends.get(engine.backend).load(engine)), {}


def of_original(
    request: dict[str, Any], files: Mapping[str, bytes]
) -> tuple[dict[str, float | None], dict[str, bytes]]:
    """The child's side of ``cold_original``."""
    from ..bundle import open_bundle
    from ..proof import original

    def load() -> Session:
        optional.module("torch", extra="torch")
        return original(open_bundle(Path(request["bundle"])), request["weights"], request["model"])

    return _first(load), {}


def _first(load: Callable[[], Session]) -> dict[str, float | None]:
    """Times and memory of loading a session and calling it once, on zeros; imports of the runtime apart."""
    imports = _Imports()
    optional.module = imports
    start = time.perf_counter()
    with load() as session:
        ready = time.perf_counter()
        session.run({spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in session.inputs})
        answered, held = time.perf_counter(), _resident()
        added = None if held is None or imports.resident is None else held - imports.resident
        return {
            "import_ms": 1e3 * imports.seconds,
            "load_ms": 1e3 * (ready - start - imports.seconds),
            "first_ms": 1e3 * (answered - ready),
            "memory_bytes": held,
            "engine_bytes": added,
        }


class _Imports:
    """``optional.module`` with a clock: seconds of the first import of each package, memory held after the last."""

    def __init__(self) -> None:
        self.seconds, self.resident = 0.0, _resident()
        self._import, self._known = optional.module, set[str]()

    def __call__(self, name: str, *, extra: str) -> Any:  # noqa: ANN401 - untyped packages
        start = time.perf_counter()
        found = self._import(name, extra=extra)
        if name not in self._known:
            self._known.add(name)
            self.seconds += time.perf_counter() - start
            self.resident = _resident()
        return found


def _resident() -> int | None:
    """Bytes of memory that this process holds (proc(5)); None where the system does not say so."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
