"""The report as plain text for a terminal, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ..latency.values import LatencyReport
from ..parity.values import ParityReport
from ..study import QuantizationStudy
from . import int8, trials, words
from .document import CompiledEngine, Report

WIDTH = 100
CURVE_SHOWN = 8


def table(report: Report) -> str:
    """The short report: warnings, a sentence for each engine, parity, latency, engines and stages."""
    weights = report.weights
    accuracy = f"; {weights.accuracy}" if weights.accuracy else ""
    parts = [
        _wrap(f"{report.model} {report.precision}  (dlcv-deploy {report.tool_version}, {report.created})"),
        _wrap(f"weights      {weights.source}{accuracy}; SHA-256 {weights.sha256[:12]}", 13),
        _calibration(report),
        *(_wrap(f"!! {banner}", 3) for banner in words.banners(report)),
        *(_wrap(f"!  {warning}", 3) for warning in report.warnings),
        *("\n" + _wrap(line, 2) for line in words.headlines(report)),
        *("\n" + parity_table(parity) for parity in report.parity),
        "" if report.parity else "\nparity  - (not measured)",
        "\n" + (latency_table(report.latency) if report.latency else "latency  - (not measured)"),
        "\n" + trials_table(report.quantization) if report.quantization else "",
        "\n" + _engines(report),
        "\n" + _stages(report),
    ]
    return "\n".join(part for part in parts if part)


def parity_table(parity: ParityReport) -> str:
    """One parity report: a row for the original and each candidate, in percent and points; then the other outputs'."""
    lines = [
        _wrap(f"parity  {words.parity_title(parity)}", 8),
        _wrap(words.parity_note(parity)),
        _columns(_narrow(words.PARITY_HEAD), [*map(_narrow, words.parity_rows(parity))]),
    ]
    if rows := words.output_rows(parity):
        lines += [_columns(words.OUTPUT_HEAD, rows), _wrap(words.output_note(parity))]
    return "\n".join(line for line in lines if line)


def latency_table(latency: LatencyReport) -> str:
    """One latency report: a row for each session and batch size, in milliseconds."""
    return "\n".join(
        [
            _columns(("latency", *words.LATENCY_HEAD[1:]), words.latency_rows(latency)),
            _wrap(words.latency_note(latency)),
        ]
    )


def trials_table(study: QuantizationStudy) -> str:
    """What was tried for an INT8 graph: candidates, spread, the most damaging layers, and the curve."""
    lines = [_wrap(f"trials  {trials.study_note(study)}", 8)]
    if study.tournament is not None:
        lines += [_columns(trials.TOURNAMENT_HEAD, trials.tournament_rows(study.tournament))]
        lines += [_wrap(trials.tournament_note(study.tournament))]
    if study.robustness is not None:
        lines += [_wrap(trials.robustness_line(study.robustness))]
    if study.sensitivity:
        lines += [_wrap(f"most damaging alone: {', '.join(layer.module for layer in study.sensitivity[:3])}")]
    if study.mixed is not None:
        lines += [_wrap(trials.mixed_line(study.mixed))]
        lines += [_columns(trials.curve_head(study.mixed), trials.curve_rows(study.mixed, CURVE_SHOWN))]
    return "\n".join(lines)


def _narrow(row: Sequence[str]) -> Sequence[str]:
    """A row of the parity table without the greatest logit error, for which there is no room."""
    return tuple(cell for i, cell in enumerate(row) if i != words.PARITY_HEAD.index("max diff"))


def _calibration(report: Report) -> str:
    calibration = report.calibration
    if calibration is None:
        return ""
    nodes = f"{words.plural(len(report.quantized), 'node')} in INT8, {len(report.left_alone):,} left alone"
    return _wrap(f"calibration  {words.calibrated(calibration)}; {nodes}", 13)


def _engines(report: Report) -> str:
    if not report.engines:
        return "engines  - (none was compiled)"
    lines = []
    for engine in report.engines:
        total = words.size(sum(file.size_bytes for file in engine.files))
        lines.append(_wrap(f"engine  {engine.backend} {engine.version}, for {engine.target}, {total}", 8))
        lines += [_wrap(f"        {note}", 8) for note in _notes(engine)]
    return "\n".join(lines)


def _notes(engine: CompiledEngine) -> tuple[str, ...]:
    return (*int8.audit_lines(engine), *words.lrn_lines(engine), *engine.notes)


def _stages(report: Report) -> str:
    times = [
        f"{stage.name} {'reused' if stage.reused else words.number(stage.seconds, 1) + ' s'}" for stage in report.stages
    ]
    peak = report.peak_memory_bytes
    memory = f"peak memory {words.size(peak)}{'' if peak is not None else ' (not measured)'}"
    return _wrap("stages  " + ", ".join([*times, memory]), 8)


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, figures to the right; a row of two cells is a name and a reason, which may run on."""
    full = [head, *(row for row in rows if len(row) == len(head))]
    widths = [max(len(row[i]) for row in full) for i in range(len(head))]
    room = WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = max(6, min(room, max(len(row[0]) for row in (head, *rows))))
    lines = []
    for row in (head, *rows):
        name = _short(row[0], widths[0]).ljust(widths[0])
        if len(row) == len(head):
            cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([name, *cells]).rstrip())
        else:
            lines.append(_wrap(f"{name}  {row[1]}", widths[0] + 2))
    return "\n".join(lines)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _wrap(text: str, indent: int = 0) -> str:
    """Lines of at most ``WIDTH`` columns, those after the first one indented."""
    lead = text[: len(text) - len(text.lstrip())]
    return textwrap.fill(
        text.strip(), WIDTH, initial_indent=lead, subsequent_indent=" " * indent, break_on_hyphens=False
    )
