"""The report as Markdown: what an engineer shows to those who decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..parity.values import ParityReport
from . import engines, flips, int8, layers, parity, summary, trials, words
from . import latency as times
from .document import Report

FLIPS_SHOWN = 20


def markdown(report: Report) -> str:
    """A page: what must not be overlooked, the result in a sentence for each engine, then every figure behind it."""
    parts = [
        f"# {_cell(report.model)}, {report.precision.upper()}",
        *(f"> **WARNING. {_cell(banner)}**" for banner in summary.banners(report)),
        *(f"**{_cell(line)}**" for line in summary.headlines(report)),
        _bullets(f"Warning: {_cell(warning)}" for warning in report.warnings),
        *_what(report),
        *_parity(report.parity),
        *_drift(report),
        *_consistency(report),
        *_latency(report),
        *_flips(report),
        *_engines(report),
        *_int8(report),
        *_nodes(report),
        *_trials(report),
        *_stages(report),
        *_environment(report),
        *_commands(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(report: Report) -> list[str]:
    weights, pre, calibration = report.weights, report.preprocess, report.calibration
    fit = "shorter side scaled to the canvas, centre square" if pre.fit == "resize" else "black around the image"
    rows = [
        ("weights", weights.source if weights.trained else f"{weights.source} (random, untrained)"),
        ("weights' SHA-256", weights.sha256),
        ("licence", weights.licence or words.ABSENT),
        ("accuracy by their source", weights.accuracy or f"{words.ABSENT} (none given)"),
        ("input", f"RGB, {pre.size} x {pre.size} pixels of a canvas of {pre.canvas} x {pre.canvas} ({fit})"),
        ("mean, std", f"{_triple(pre.mean)}, {_triple(pre.std)} (of values in [0, 1])"),
        ("precision", report.precision.upper()),
    ]
    if calibration is not None:
        rows += [
            ("calibration", words.calibrated(calibration)),
            ("calibration table's SHA-256", calibration.table_sha256),
        ]
    else:
        rows.append(("calibration", f"{words.ABSENT} ({report.precision.upper()} needs none)"))
    return ["## What was built", _table(("", ""), rows, numeric=False)]


def _parity(reports: Sequence[ParityReport]) -> list[str]:
    parts = ["## Parity with the PyTorch original"]
    for measured in reports:
        parts += [
            f"### {_cell(parity.parity_title(measured))}",
            parity.parity_note(measured),
            _table(parity.PARITY_HEAD, parity.parity_rows(measured)),
            _bullets(map(_cell, parity.verdict_lines(measured))),
            *_section(parity.LOSS_HEAD, parity.loss_rows(measured), parity.LOSS_NOTE),
            *_section(parity.VERDICT_HEAD, parity.verdict_rows(measured), parity.VERDICT_NOTE),
            *_section(parity.STEP_HEAD, parity.step_rows(measured), parity.STEP_NOTE),
            *_section(flips.KIND_HEAD, flips.kind_rows(measured), flips.MARGIN_NOTE),
            *_section(parity.OUTPUT_HEAD, parity.output_rows(measured), parity.output_note(measured)),
        ]
    return [*parts, parity.PARITY_NOTE if reports else f"{words.ABSENT} (not measured)"]


def _drift(report: Report) -> list[str]:
    if not report.drift:
        return []
    rows = [row for drift in report.drift for row in layers.drift_rows(drift)]
    lines = _bullets(_cell(layers.drift_line(drift)) for drift in report.drift)
    return ["## Layer drift", lines, *_section(layers.DRIFT_HEAD, rows, layers.DRIFT_NOTE)]


def _consistency(report: Report) -> list[str]:
    if not report.consistency:
        return []
    lines = _bullets(map(_cell, layers.consistency_lines(report.consistency)))
    rows = layers.check_rows(report.consistency)
    return ["## Consistency", lines, _table(layers.CHECK_HEAD, rows, numeric=False) if rows else ""]


def _latency(report: Report) -> list[str]:
    title, measured = "## Latency", report.latency
    if measured is None:
        return [title, f"{words.ABSENT} (not measured)"]
    doubt = times.distrust(measured)
    parts = [title, f"> **{_cell(doubt)}**" if doubt else ""]
    parts += [_table(times.LATENCY_HEAD, times.latency_rows(measured)), _cell(times.latency_note(measured))]
    for head, rows, note in times.tables(measured):
        parts += _section(head, rows, note)
    if facts := times.fact_rows(measured):
        parts += ["### The machine", _table(times.FACTS_HEAD, facts, numeric=False)]
    if settings := times.setting_rows(measured):
        parts += ["### Settings", _table(times.SETTINGS_HEAD, settings, numeric=False)]
    return parts


def _flips(report: Report) -> list[str]:
    parts: list[str] = []
    for engine in report.engines:
        found = summary.evidence(report, engine)
        if found is None or not found[1].flips:
            continue
        measured, leg = found
        shown = flips.worst_first(leg.flips)[:FLIPS_SHOWN]
        parts += [
            f"### {_cell(leg.name)}: {_cell(parity.parity_title(measured))}",
            _table(flips.FLIP_HEAD, map(flips.flip_row, shown), numeric=False),
        ]
        if len(leg.flips) > len(shown):
            parts.append(f"The worst {len(shown)} of {len(leg.flips):,}; all are in `report.json`.")
        if classes := flips.class_rows(leg):
            parts += [_table(flips.CLASS_HEAD, classes), "The classes that lost the largest share of their images."]
    return ["## Flipped images", *parts] if parts else []


def _engines(report: Report) -> list[str]:
    rows, notes = [], []
    for engine in report.engines:
        notes += [f"{_cell(engine.backend)}: {_cell(note)}" for note in (*engines.lrn_lines(engine), *engine.notes)]
        for file in engine.files:
            name, digest = file.name, file.sha256
            rows.append((engine.backend, engine.version, engine.target, name, words.size(file.size_bytes), digest))
    head = ("backend", "version", "target", "file", "size", "SHA-256")
    table = _table(head, rows, numeric=False) if rows else f"{words.ABSENT} (none was compiled)"
    return ["## Engines", table, _bullets(notes)]


def _int8(report: Report) -> list[str]:
    shares, found = int8.audit_rows(report), int8.layer_rows(report)
    if not shares:
        return []
    table = _table(int8.LAYER_HEAD, found, numeric=False) if found else "Every layer runs in INT8."
    return ["## What really runs in INT8", _table(int8.AUDIT_HEAD, shares), _cell(int8.audit_note(report)), table]


def _nodes(report: Report) -> list[str]:
    if report.precision != "int8":
        return []
    count = f"{words.plural(len(report.quantized), 'node')} compute in INT8, {len(report.left_alone):,} left alone."
    rows = [(node.node, node.op_type, node.reason) for node in report.left_alone]
    return ["## Nodes", count, _table(("node", "operator", "left alone because"), rows, numeric=False) if rows else ""]


def _trials(report: Report) -> list[str]:
    study = report.quantization
    if study is None:
        return []
    parts = ["## INT8 trials", _cell(trials.study_note(study))]
    if study.tournament is not None:
        table = _table(trials.TOURNAMENT_HEAD, trials.tournament_rows(study.tournament))
        parts += ["### Candidates", table, _cell(trials.tournament_note(study.tournament))]
    if study.robustness is not None:
        parts += ["### Robustness", _cell(trials.robustness_line(study.robustness))]
    if study.sensitivity:
        table = _table(trials.LAYER_HEAD, trials.layer_rows(study.sensitivity))
        parts += ["### Sensitivity", trials.layer_note(study.sensitivity), table]
    if study.mixed is not None:
        table = _table(trials.curve_head(study.mixed), trials.curve_rows(study.mixed))
        parts += ["### Accuracy and INT8 share", f"**{_cell(trials.mixed_line(study.mixed))}**", table]
    return parts


def _stages(report: Report) -> list[str]:
    rows = [(stage.name, "reused" if stage.reused else words.number(stage.seconds, 1)) for stage in report.stages]
    peak = words.size(report.peak_memory_bytes)
    memory = f"Peak memory: {peak}{'' if report.peak_memory_bytes is not None else ' (not measured)'}."
    return ["## Stages", _table(("stage", "seconds"), rows) if rows else "", memory]


def _environment(report: Report) -> list[str]:
    where = report.environment
    packages = ", ".join(f"{name} {version}" for name, version in where.packages.items())
    lines = [f"dlcv-deploy {report.tool_version}, {report.created}", f"Python {where.python}, {where.os}", packages]
    return ["## Environment", _bullets(_cell(line) for line in lines if line)]


def _commands(report: Report) -> list[str]:
    if not report.commands:
        return []
    return ["## To repeat it", "\n".join(f"    {words.one_line(command)}" for command in report.commands)]


def _section(head: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> list[str]:
    """A table with its note; nothing where there are no rows."""
    return [_table(head, rows), note] if rows else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: bool = True) -> str:
    """A table; figures to the right of the first column. Short rows are filled up with "-"."""
    rule = [":--", *("--:" if numeric else ":--" for _ in head[1:])]
    full = [[*map(_cell, row), *(words.ABSENT for _ in range(len(head) - len(row)))] for row in (head, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (full[0], rule, *full[1:]))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _triple(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _cell(text: str) -> str:
    """Text that cannot break a table or start markup, on one line."""
    text = words.one_line(text)
    for mark in ("\\", "`", "*", "|", "<", "["):
        text = text.replace(mark, "\\" + mark)
    return text
