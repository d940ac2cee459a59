"""Engines of a bundle timed beside the PyTorch original, in one run."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import backends
from .bundle import Bundle, open_bundle
from .latency.measure import BRIEF, FULL, Effort
from .latency.values import Cold, LatencyReport
from .progress import Progress, silent
from .proof import loaded, original, pixels_of
from .report.document import REFERENCE, engine_name
from .types import Engine, Preprocess

if TYPE_CHECKING:
    from .backends.base import Array, Session

BATCHES = (1, 10)
"""One image, and the ten crops of one."""


def bench(
    path: Path,
    *,
    weights: str | None = None,
    model: str | None = None,
    targets: tuple[str, ...] = (),
    batches: tuple[int, ...] = BATCHES,
    limit_s: float | None = None,
    within_percent: float | None = None,
    quick: bool = False,
    progress: Progress = silent,
) -> LatencyReport:
    """Latency of a bundle's engines beside the PyTorch original, and what each pays before its first answer.

    Args:
        path: The bundle.
        weights: The PyTorch weights, where they have moved.
        model: The code of a network of the user's own, where that has moved.
        targets: Engines by backend; all of the bundle where none is named.
        batches: Batch sizes, each a run of its own.
        limit_s: Seconds for a batch size; ``Effort``'s where none are given.
        within_percent: How well every median is to be known; ``Effort``'s where none is given.
        quick: As brief as a build's, and nothing in processes of its own.
        progress: Told of hundredths of each batch size, then of each process.
    """
    effort = _effort(BRIEF if quick else FULL, limit_s, within_percent)
    bundle = open_bundle(path)
    engines = [bundle.engine(name) for name in targets or bundle.manifest.engines]
    with (
        original(bundle, weights, model, progress) as reference,
        loaded(engines, bundle.manifest.precision) as sessions,
    ):
        report = timed(reference, sessions, bundle.manifest.preprocess, effort, batches=batches, progress=progress)
    if quick:
        return report
    return dc.replace(report, cold=_cold(bundle, engines, weights, model, progress))


def timed(
    reference: Session,
    sessions: Mapping[str, Session | str],
    pre: Preprocess,
    effort: Effort,
    *,
    batches: tuple[int, ...] = BATCHES,
    progress: Progress = silent,
) -> LatencyReport:
    """Latency at some batch sizes, the original and the sessions in turn, on drawn images."""
    from .calibration.samples import drawn
    from .latency.measure import latency

    most = max(batches)
    pixels = pixels_of(drawn(most, pre.size), pre, most)

    def feeds(batch: int) -> Mapping[str, Array]:
        return {reference.inputs[0].name: np.ascontiguousarray(pixels[:batch])}

    return latency({REFERENCE: reference, **sessions}, feeds, batches, effort=effort, progress=progress)


def _effort(effort: Effort, limit_s: float | None, within_percent: float | None) -> Effort:
    effort = effort if limit_s is None else dc.replace(effort, limit_s=limit_s)
    return effort if within_percent is None else dc.replace(effort, within=within_percent / 100)


def _cold(
    bundle: Bundle, engines: Sequence[Engine], weights: str | None, model: str | None, progress: Progress
) -> tuple[Cold, ...]:
    """The original's first answer and the engines', as far as they can be run here."""
    from .latency.cold import cold_engine, cold_original

    with progress("cold starts", 1 + len(engines)) as advance:
        found = [cold_original(REFERENCE, bundle.path, weights, model)]
        advance(1)
        for engine in engines:
            name = engine_name(bundle.manifest.precision, engine.backend)
            reason = backends.get(engine.backend).ability().no_run
            found.append(Cold(name, not_run=reason) if reason else cold_engine(name, engine))
            advance(1)
    return tuple(found)
