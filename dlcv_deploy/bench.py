"""Engines of a bundle timed beside the PyTorch original, in one run."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import backends
from .application import Subject, besides, settings, variants
from .bundle import Bundle, open_bundle
from .errors import SpecError
from .latency.measure import BRIEF, FULL, Effort
from .latency.sweep import doublings
from .latency.values import ALSO, Cold, LatencyReport
from .progress import Progress, silent
from .proof import loaded, original_network, pixels_of
from .reference import TorchSession
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
    also: Collection[str] = (),
    progress: Progress = silent,
) -> LatencyReport:
    """Latency of a bundle's engines beside the PyTorch original, and what each pays before its first answer.

    PyTorch runs the original eagerly, and with its channels last in memory.

    Args:
        path: The bundle.
        weights: The PyTorch weights, where they have moved.
        model: The code of a network of the user's own, where that has moved.
        targets: Engines by backend; all of the bundle where none is named.
        batches: Batch sizes, each a run of its own.
        limit_s: Seconds for a batch size; ``Effort``'s where none are given.
        within_percent: How well every median is to be known; ``Effort``'s where none is given.
        quick: As brief as a build's, PyTorch in one way, and nothing in processes of its own.
        also: What else to measure, of ``ALSO``: all doublings of the batch, briefly; PyTorch through ``torch.compile``;
            numbers of threads; clients; load; the parts of an answer.
        progress: Told of hundredths of each batch size, then of each process.

    Raises:
        SpecError: There is nothing else of that name.
    """
    if unknown := sorted(set(also) - set(ALSO)):
        raise SpecError(f"{unknown[0]!r} cannot be measured", fix=f"name some of {', '.join(ALSO)}")
    effort = _effort(BRIEF if quick else FULL, limit_s, within_percent)
    bundle = open_bundle(path)
    engines = [bundle.engine(name) for name in targets or bundle.manifest.engines]
    m, net = bundle.manifest, original_network(bundle, weights, model, progress)[1].net
    with TorchSession(net, m.inputs, m.outputs) as reference:
        with loaded(engines, m.precision) as sessions:
            with variants(net, reference, batches, turned=not quick, compiled="compile" in also) as others:
                every = {**others, **sessions}
                report = timed(reference, every, m.preprocess, effort, batches=batches, progress=progress)
            if "batches" in also:
                more = [b for b in doublings(max(e.batch.hi for e in engines)) if b not in batches]
                swept = timed(reference, sessions, m.preprocess, BRIEF, batches=tuple(more), progress=progress)
                report = _joined(report, swept)
        subject = Subject(reference, tuple(engines), m.precision, m.preprocess)
        report = besides(report, subject, also, progress)
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

    every = {REFERENCE: reference, **sessions}
    report = latency(every, feeds, batches, effort=effort, progress=progress)
    return dc.replace(report, settings=settings(every))


def _joined(report: LatencyReport, swept: LatencyReport) -> LatencyReport:
    """A report with another's rows and ratios too, by batch size."""
    rows = sorted((*report.rows, *swept.rows), key=lambda row: row.batch)
    ratios = sorted((*report.ratios, *swept.ratios), key=lambda ratio: ratio.batch)
    return dc.replace(report, rows=tuple(rows), ratios=tuple(ratios))


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
