"""The page's parts on what was built, from what, where, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence

from ..document import Environment, Report
from ..engines import engine_notes
from ..words import calibrated, number, plural, size
from .markup import Html, bullets, el, facts, figure, figures, join, more, note, table
from .plots import Bar, Row, row_chart

_FIT = {"resize": "shorter side scaled to the canvas, centre square", "pad": "black around the image"}


def engines_part(report: Report) -> Html:
    """The engines, what is to be said of each, and their files."""
    if not report.engines:
        return note("None was compiled.")
    rows = [
        (engine.backend, engine.version, engine.target, file.name, size(file.size_bytes), el("code", file.sha256))
        for engine in report.engines
        for file in engine.files
    ]
    said = [f"{engine.backend}: {words}" for engine in report.engines for words in engine_notes(engine)]
    head = ("backend", "version", "target", "file", "size", "SHA-256")
    return join((bullets(said), table(head, rows, label="engines and their files", text=6)))


def build_part(report: Report) -> Html:
    """What went into the build, and how long its stages took."""
    weights, pre, calibration = report.weights, report.preprocess, report.calibration
    pairs: list[tuple[str, str | None]] = [
        ("weights", weights.source if weights.trained else f"{weights.source} (random, untrained)"),
        ("weights' SHA-256", el("code", weights.sha256)),
        ("licence", weights.licence),
        ("accuracy by their source", weights.accuracy),
        ("input", f"RGB, {pre.size} x {pre.size} pixels of a canvas of {pre.canvas} x {pre.canvas} ({_FIT[pre.fit]})"),
        ("mean", " ".join(f"{v:g}" for v in pre.mean)),
        ("std", " ".join(f"{v:g}" for v in pre.std)),
        ("precision", report.precision.upper()),
    ]
    if calibration is not None:
        pairs += [
            ("calibration", calibrated(calibration)),
            ("calibration table's SHA-256", el("code", calibration.table_sha256)),
        ]
    if report.peak_memory_bytes is not None:
        pairs.append(("peak memory", size(report.peak_memory_bytes)))
    times = [
        Row(
            stage.name,
            "reused" if stage.reused else f"{number(stage.seconds, 1)} s",
            _taken(stage.seconds, stage.reused),
        )
        for stage in report.stages
    ]
    listed = table(("stage", "seconds"), ((row.name, row.said.removesuffix(" s")) for row in times), label="stages")
    drawn = row_chart("Stages of the build", times, "seconds", zero=True)
    took = figures(figure("Stages", drawn, more("Table", listed)))
    return join((facts(pairs), took))


def _taken(seconds: float, reused: bool) -> tuple[Bar, ...]:
    return () if reused else (Bar(0, seconds, "p1"),)


def environment_part(where: Environment, tool: str) -> Html:
    """Versions of everything that did the work."""
    pairs = [("dlcv-deploy", tool), ("Python", where.python), ("system", where.os), *where.packages.items()]
    return facts(pairs)


def commands_part(commands: Sequence[str]) -> Html:
    """The commands that repeat it."""
    return join(el("pre", el("code", command)) for command in commands)


def subtitle(report: Report) -> str:
    """What stands under a report's title."""
    weights = report.weights
    said = [f"weights {weights.source}" + (f" ({weights.accuracy})" if weights.accuracy else "")]
    if report.calibration is not None:
        said.append(f"calibrated by {calibrated(report.calibration)}")
    said.append(plural(len(report.engines), "engine"))
    return ", ".join(said)
