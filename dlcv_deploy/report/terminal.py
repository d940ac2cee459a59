"""The report as text for a terminal: the result first, a build's on one screen. Pages have all the figures."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..latency.values import LatencyReport
from ..parity.values import ParityReport
from ..study import QuantizationStudy
from . import changes, engines, flips, layers, parity, summary, trials, words
from . import latency as times
from .changes import Comparison
from .document import Report

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100
"""Columns where the output is not a terminal."""
NARROWEST = 80
"""Columns below which figures would be cut; a narrower terminal breaks the lines itself."""
CURVE_SHOWN = 8

_PARITY = ("", "top-1 %", "top-5 %", "drop", "95 % interval", "flips", "agree %", "SQNR dB")
_VERDICT = ("", "rule", "at", "may lose", "by the interval", "images needed")
_STEP = ("step", "top-1 %", "drop", "flips", "cosine", "max diff", "SQNR dB")
_LATENCY = ("", "batch", "p50 ms", "95 % interval", "p99 ms", "images/s", "speed")
_SPREAD = ("", "batch", "p90 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms", "mean ms", "calls")

Parts = list["RenderableType"]


def table(report: Report) -> str:
    """The short report: what must not be overlooked, a sentence for each engine, parity, latency, engines, stages."""
    parts: Parts = [_head(report)]
    parts += [_line(f"!! {banner}", "bold red") for banner in summary.banners(report)]
    parts += [_line(f"!  {warning}", "yellow") for warning in report.warnings]
    parts += ["", *(_line(line, "bold") for line in summary.headlines(report))]
    for measured in report.parity:
        parts += ["", *_parity(measured)]
    if not report.parity:
        parts += ["", _line(f"parity: {words.ABSENT} (not measured)")]
    found = [f"drift: {layers.drift_line(drift)}" for drift in report.drift]
    found += [f"consistency: {line}" for line in layers.consistency_lines(report.consistency)]
    parts += ["", *map(_line, found)] if found else []
    parts += ["", *(_latency(report.latency) if report.latency else [_line(f"latency: {words.ABSENT} (not measured)")])]
    parts += ["", *_trials(report.quantization)] if report.quantization else []
    return _rendered([*parts, "", _rows(_engines(report)), "", _stages(report)])


def parity_table(measured: ParityReport) -> str:
    """One parity report: every leg, what is proved of it, the steps on the way, what flipped, the other outputs."""
    parts = [_line(f"!! {line}", "bold red") for line in summary.not_numbers(measured)]
    parts += _parity(measured)
    parts += [_line(line) for line in parity.verdict_lines(measured)]
    parts += _section(parity.LOSS_HEAD, parity.loss_rows(measured), parity.LOSS_NOTE)
    parts += _section(_VERDICT, _chosen(_VERDICT, parity.VERDICT_HEAD, parity.verdict_rows(measured)))
    parts += _section(_STEP, _chosen(_STEP, parity.STEP_HEAD, parity.step_rows(measured)), parity.STEP_NOTE)
    said = [f"{leg.name}: {flips.flips_line(measured, leg)}" for leg in measured.legs if leg.flips]
    said += [f"{leg.name}: {line}" for leg in measured.legs if (line := flips.worst_class_line(leg))]
    parts += ["", *map(_line, said)] if said else []
    parts += _section(parity.OUTPUT_HEAD, parity.output_rows(measured), parity.output_note(measured))
    return _rendered(parts)


def latency_table(measured: LatencyReport) -> str:
    """One latency report: every session at every batch size, then what else was measured."""
    parts = _latency(measured)
    parts += _section(_SPREAD, _chosen(_SPREAD, times.LATENCY_HEAD, times.latency_rows(measured), reasons=False))
    for head, rows, note in times.tables(measured):
        parts += _section(head, rows, note)
    facts = "; ".join(f"{about}: {said}" for about, said in times.fact_rows(measured))
    return _rendered([*parts, *(["", _line(facts)] if facts else [])])


def comparison_table(comparison: Comparison) -> str:
    """What became of one report's engines in another: accuracy, latency, size, and what a reader must know."""
    parts: Parts = [_line(f"A: {comparison.a}"), _line(f"B: {comparison.b}")]
    parts += [_line(remark) for remark in changes.remarks(comparison)]
    parts += _section(changes.ACCURACY_HEAD, changes.accuracy_rows(comparison), changes.ACCURACY_NOTE)
    parts += _section(changes.LATENCY_HEAD, changes.latency_rows(comparison), changes.LATENCY_NOTE)
    parts += _section(changes.SIZE_HEAD, changes.size_rows(comparison))
    return _rendered(parts)


def trials_table(study: QuantizationStudy) -> str:
    """What was tried for an INT8 graph: candidates, spread, the most damaging layers, and the curve."""
    parts: Parts = [_line(f"trials: {trials.study_note(study)}")]
    if study.tournament is not None:
        parts += _table(trials.TOURNAMENT_HEAD, trials.tournament_rows(study.tournament))
        parts += [_line(trials.tournament_note(study.tournament))]
    if study.robustness is not None:
        parts += [_line(trials.robustness_line(study.robustness))]
    if study.sensitivity:
        parts += [_line(f"most damaging alone: {', '.join(layer.module for layer in study.sensitivity[:3])}")]
    if study.mixed is not None:
        parts += [_line(trials.mixed_line(study.mixed))]
        parts += _table(trials.curve_head(study.mixed), trials.curve_rows(study.mixed, CURVE_SHOWN))
    return _rendered(parts)


def _head(report: Report) -> RenderableType:
    weights, calibration = report.weights, report.calibration
    accuracy = f"; {weights.accuracy}" if weights.accuracy else ""
    rows = [
        (f"{report.model} {report.precision.upper()}", f"dlcv-deploy {report.tool_version}, {report.created}"),
        ("weights", f"{weights.source}{accuracy}; SHA-256 {weights.sha256[:12]}"),
    ]
    if calibration is not None:
        nodes = f"{words.plural(len(report.quantized), 'node')} in INT8, {len(report.left_alone):,} left alone"
        rows.append(("calibration", f"{words.calibrated(calibration)}; {nodes}"))
    return _rows(rows)


def _parity(measured: ParityReport) -> Parts:
    parts: Parts = [_line(f"parity: {parity.parity_title(measured)}")]
    parts += [_line(note)] if (note := parity.parity_note(measured)) else []
    return parts + _table(_PARITY, _chosen(_PARITY, parity.PARITY_HEAD, parity.parity_rows(measured)))


def _latency(measured: LatencyReport) -> Parts:
    parts: Parts = [_line(doubt, "bold red")] if (doubt := times.distrust(measured)) else []
    parts += _table(("latency", *_LATENCY[1:]), _chosen(_LATENCY, times.LATENCY_HEAD, times.latency_rows(measured)))
    return [*parts, _line(times.latency_note(measured))]


def _trials(study: QuantizationStudy) -> Parts:
    parts = [] if study.tournament is None else [_line(f"trials: {trials.tournament_note(study.tournament)}")]
    return parts + ([] if study.mixed is None else [_line(trials.mixed_line(study.mixed))])


def _engines(report: Report) -> list[tuple[str, str]]:
    if not report.engines:
        return [("engines", f"{words.ABSENT} (none was compiled)")]
    rows = []
    for engine in report.engines:
        rows.append(
            ("engine", f"{engine.backend} {engine.version}, for {engine.target}, {engines.engine_size(engine)}")
        )
        rows += [("", note) for note in engines.engine_notes(engine)]
    return rows


def _stages(report: Report) -> RenderableType:
    spent = [
        f"{stage.name} {'reused' if stage.reused else words.number(stage.seconds, 1) + ' s'}" for stage in report.stages
    ]
    peak = report.peak_memory_bytes
    memory = f"peak memory {words.size(peak)}{'' if peak is not None else ' (not measured)'}"
    return _rows([("stages", ", ".join([*spent, memory]))])


def _section(head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Parts:
    """A table after an empty line, with its note; nothing where there are no rows."""
    return ["", *_table(head, rows), *([_line(note)] if note else [])] if rows else []


def _chosen(
    head: Sequence[str], of: Sequence[str], rows: Sequence[Sequence[str]], *, reasons: bool = True
) -> list[Sequence[str]]:
    """The columns of ``head`` from rows under ``of``; short rows, a name and a reason, as they are, or left out."""
    places = [of.index(name) for name in head]
    whole = [row for row in rows if reasons or len(row) == len(of)]
    return [[row[i] for i in places] if len(row) == len(of) else row for row in whole]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Parts:
    """Aligned columns, figures to the right; below them a line for each short row, which is a name and a reason."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    made.add_column(head[0], overflow="fold", min_width=6)
    for name in head[1:]:
        made.add_column(name, justify="right", no_wrap=True)
    reasons = [row for row in rows if len(row) != len(head)]
    for row in rows:
        if len(row) == len(head):
            made.add_row(*(Text(words.one_line(cell)) for cell in row))
    return [made, *(_line(f"{name}: {reason}") for name, reason in reasons)]


def _rows(pairs: Sequence[tuple[str, str]]) -> RenderableType:
    """What things are called, and what is said of them, in two columns."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(overflow="fold", max_width=WIDTH // 3)
    made.add_column(overflow="fold")
    for name, said in pairs:
        made.add_row(Text(words.one_line(name)), Text(words.one_line(said)))
    return made


def _line(text: str, style: str = "") -> RenderableType:
    from rich.text import Text

    return Text(words.one_line(text), style, overflow="fold")


def _rendered(parts: Sequence[RenderableType]) -> str:
    """Text as wide as the terminal and in its colours; without a terminal ``WIDTH`` columns and none."""
    from rich.console import Console

    live = sys.stdout.isatty()
    size = shutil.get_terminal_size()
    screen = Console(
        file=io.StringIO(),
        width=max(NARROWEST, size.columns) if live else WIDTH,
        height=size.lines,
        force_terminal=live,
        markup=False,
        highlight=False,
        emoji=False,
    )  # NO_COLOR and TERM are rich's to read
    with screen.capture() as found:
        for part in parts:
            screen.print(part)
    return "\n".join(line.rstrip() for line in found.get().splitlines())
