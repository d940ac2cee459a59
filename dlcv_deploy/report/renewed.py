"""A report after some of its engines were compiled again: nothing measured of the earlier ones is told of the new."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, TypeVar

from ..latency.values import Latency, LatencyReport
from ..parity.values import Consistency, Leg, ParityReport
from .document import CompiledEngine, Report, engine_name

NOT_MEASURED = "compiled again since it was measured"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=_Named)


def renewed(report: Report, engines: Sequence[CompiledEngine], warnings: Iterable[str]) -> Report:
    """A report with other engines in the place of those of the same backends, whose measurements are left out.

    Args:
        report: As the build wrote it.
        engines: What was compiled again.
        warnings: What is to be said of that.
    """
    of = {engine.backend: engine for engine in engines}
    gone = {engine_name(report.precision, backend) for backend in of}
    return dc.replace(
        report,
        engines=tuple(of.get(engine.backend, engine) for engine in report.engines),
        parity=tuple(_parity(each, gone) for each in report.parity),
        consistency=tuple(
            Consistency(each.engine, (), NOT_MEASURED) if each.engine in gone else each for each in report.consistency
        ),
        latency=None if report.latency is None else _latency(report.latency, gone),
        warnings=(*report.warnings, *warnings),
    )


def _parity(report: ParityReport, gone: Collection[str]) -> ParityReport:
    legs = tuple(Leg(leg.name, not_run=NOT_MEASURED) if leg.name in gone else leg for leg in report.legs)
    return dc.replace(report, legs=legs)


def _latency(report: LatencyReport, gone: Collection[str]) -> LatencyReport:
    rows = tuple(Latency(r.name, r.batch, not_run=NOT_MEASURED) if r.name in gone else r for r in report.rows)
    return dc.replace(
        report,
        rows=rows,
        ratios=tuple(r for r in report.ratios if not {r.name, r.against} & set(gone)),
        cold=_kept(report.cold, gone),
        thread_sweep=_kept(report.thread_sweep, gone),
        clients=_kept(report.clients, gone),
        load=_kept(report.load, gone),
        parts=_kept(report.parts, gone),
        settings={name: told for name, told in report.settings.items() if name not in gone},
    )


def _kept(rows: Iterable[Row], gone: Collection[str]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.name not in gone)
