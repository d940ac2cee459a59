"""What a report says of the share of an engine that really runs in INT8, before either page lays it out."""

from __future__ import annotations

from ..types import NotInt8, PrecisionAudit
from .document import CompiledEngine, Report
from .words import ABSENT, layer_name, number

AUDIT_HEAD = ("engine", "in INT8 %", "asked for %", "multiply-adds, M")
LAYER_HEAD = ("engine", "layer", "operator", "of the multiply-adds %", "runs in", "because")
LAYERS_SHOWN = 20
NAMED = 3


def audits(report: Report) -> tuple[PrecisionAudit, ...]:
    """The audits of a report's engines, in their order."""
    return tuple(engine.audit for engine in report.engines if engine.audit is not None)


def audit_rows(report: Report) -> tuple[tuple[str, ...], ...]:
    """A row for each engine under ``AUDIT_HEAD``; none where no engine was audited."""
    return tuple(map(_row, report.engines)) if audits(report) else ()


def _row(engine: CompiledEngine) -> tuple[str, ...]:
    audit = engine.audit
    if audit is None:
        return (engine.backend, ABSENT, ABSENT, ABSENT)
    shares = (number(100 * share, 2) for share in (audit.int8_share, audit.asked_share))
    return (engine.backend, *shares, number(audit.total_multiply_adds / 1e6, 1))


def layer_rows(report: Report) -> tuple[tuple[str, ...], ...]:
    """The layers that are not in INT8 under ``LAYER_HEAD``, the heaviest of each engine first."""
    return tuple(
        (
            audit.engine,
            layer_name(layer.module, layer.node),
            layer.op_type,
            number(_percent(layer, audit), 2),
            layer.runs_in,
            layer.reason,
        )
        for audit in audits(report)
        for layer in audit.not_int8[:LAYERS_SHOWN]
    )


def audit_note(report: Report) -> str:
    """Where the shares are known from, and how many layers the table leaves out."""
    known = "; ".join(f"{audit.engine}: by {audit.evidence}" for audit in audits(report))
    more = [(audit.engine, len(audit.not_int8) - LAYERS_SHOWN) for audit in audits(report)]
    left = "".join(f" {count:,} more layers of {name} are in `report.json`." for name, count in more if count > 0)
    return f"Of the multiply-adds of convolutions and matrix products, for one image. {known}.{left}"


def audit_lines(engine: CompiledEngine) -> tuple[str, ...]:
    """What one engine runs in INT8, in a line or two; nothing where it was not audited."""
    audit = engine.audit
    if audit is None:
        return ()
    asked = number(100 * audit.asked_share, 1)
    total = number(audit.total_multiply_adds / 1e6, 1)
    said = "" if asked == "100.0" else f" ({asked} % were asked for)"
    lines = [f"{number(100 * audit.int8_share, 1)} % of {total} M multiply-adds in INT8{said}, by {audit.evidence}"]
    if audit.not_int8:
        first, more = audit.not_int8[:NAMED], len(audit.not_int8) - NAMED
        named = ", ".join(f"{each.module} ({each.runs_in}, {number(_percent(each, audit), 1)} %)" for each in first)
        lines.append(f"not in INT8: {named}{f' and {more:,} more' if more > 0 else ''}")
    return tuple(lines)


def _percent(layer: NotInt8, audit: PrecisionAudit) -> float | None:
    return 100 * layer.multiply_adds / audit.total_multiply_adds if audit.total_multiply_adds else None
