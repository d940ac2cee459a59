"""The page's parts on INT8: the share that really runs in it, the mixtures and candidates that were tried."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...study import LayerDamage, Mixed, Point, QuantizationStudy, lost
from .. import int8 as said
from .. import trials
from ..document import Report
from ..words import number, plural, significant
from .markup import Child, Html, el, figure, figures, join, more, note, table
from .plots import Bar, Row, Rule, Series, line_chart, row_chart

_LAYERS_DRAWN = 12


def int8_part(report: Report) -> Html:
    """What of the engines is in INT8, what is not, and what was tried on the way there."""
    parts: list[Child] = []
    if audits := said.audits(report):
        rows = [
            Row(
                audit.engine,
                f"{number(100 * audit.int8_share, 1)} % of {number(audit.total_multiply_adds / 1e6, 1)} M",
                (Bar(0, 100 * audit.int8_share, "p1"), Bar(100 * audit.int8_share, 100, "even")),
            )
            for audit in audits
        ]
        drawn = row_chart("Multiply-adds in INT8", rows, "% of the multiply-adds for one image", zero=True)
        listed = table(said.LAYER_HEAD, said.layer_rows(report), label="layers that are not in INT8", text=3)
        parts += [
            figures(figure("Multiply-adds that run in INT8", drawn, more("Table", _audit(report)))),
            note(said.audit_note(report)),
            more("Layers that are not in INT8", listed),
        ]
    parts.append(_nodes(report))
    if report.quantization is not None:
        parts += _study(report.quantization)
    return join(parts)


def _audit(report: Report) -> Html:
    return table(said.AUDIT_HEAD, said.audit_rows(report), label="shares in INT8")


def _nodes(report: Report) -> Html:
    if report.precision != "int8":
        return Html("")
    count = f"{plural(len(report.quantized), 'node')} compute in INT8, {len(report.left_alone):,} left alone"
    rows = [(node.node, node.op_type, node.reason) for node in report.left_alone]
    listed = table(("node", "operator", "left alone because"), rows, label="nodes left alone", text=3)
    return more(count, listed) or note(f"{count}.")


def _study(study: QuantizationStudy) -> list[Html]:
    mixed, tournament, robustness = study.mixed, study.tournament, study.robustness
    parts = [el("h3", "Trials"), note(trials.study_note(study))]
    if mixed is not None:
        parts += [el("p", el("b", trials.mixed_line(mixed))), _mixed(mixed)]
    parts.append(figures(_sensitivity(study.sensitivity)))
    if tournament is not None:
        listed = table(trials.TOURNAMENT_HEAD, trials.tournament_rows(tournament), label="candidates")
        parts += [el("h4", "Candidates"), listed, note(trials.tournament_note(tournament))]
    if robustness is not None:
        parts += [el("h4", "Robustness"), el("p", trials.robustness_line(robustness))]
    return parts


def _mixed(mixed: Mixed) -> Html:
    """What is lost, and how fast it is, against the share in INT8; the mixture that was chosen has a note."""
    measure = "points of top-1 lost" if mixed.measure == "top-1" else "% of the images flipped"
    losses = [(point, lost(point.score, mixed.measure)) for point in mixed.curve]
    noise = [(point, _known(point.score.sqnr_db)) for point in mixed.curve]
    times = [(point, _known(point.latency_ms)) for point in mixed.curve]
    rules = [Rule(mixed.max_drop, f"at most {mixed.max_drop:g}")]
    listed = more("Table", table(trials.curve_head(mixed), trials.curve_rows(mixed), label="mixtures"))
    share = "multiply-adds in INT8, %"
    return figures(
        figure(
            "Loss by share in INT8",
            line_chart("Loss by share in INT8", _curve(mixed, losses), share, measure, zero=True, rules=rules),
            listed,
        ),
        figure(
            "SQNR by share in INT8",
            line_chart("SQNR by share in INT8", _curve(mixed, noise), share, "SQNR of the logits, dB"),
            listed,
        ),
        figure(
            "Latency by share in INT8",
            line_chart("Latency by share in INT8", _curve(mixed, times), share, "ms for one image", zero=True),
            listed,
        ),
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _curve(mixed: Mixed, values: Sequence[tuple[Point, float]]) -> list[Series]:
    points = [(100 * point.share_int8, value) for point, value in values]
    chosen = [at for at, (point, _) in enumerate(values) if point == mixed.chosen]
    kept = "kept" if mixed.reached else "best"
    tried = Series("mixtures that were tried", tuple(points), "s1", joined=False)
    return [tried, Series(kept, tuple(points[at] for at in chosen[:1]), "s2", joined=False, notes=((0, kept),))]


def _sensitivity(layers: Sequence[LayerDamage]) -> Html:
    rows = [
        Row(
            layer.module,
            f"{significant(layer.score.divergence)} nats, {number(layer.score.sqnr_db, 1)} dB",
            (Bar(0, _known(layer.score.divergence), "s1"),),
        )
        for layer in layers[:_LAYERS_DRAWN]
        if not layer.score.failed
    ]
    drawn = row_chart("Divergence with one layer alone in INT8", rows, "divergence of the softmax, nats", zero=True)
    listed = table(trials.LAYER_HEAD, trials.layer_rows(layers), label="layers")
    return figure(
        "The most damaging layers, each alone in INT8", drawn, more("Table", listed, note(trials.layer_note(layers)))
    )


def share_words(report: Report, backend: str) -> str:
    """The share of an engine's multiply-adds in INT8; empty where it was not audited."""
    found = next((engine.audit for engine in report.engines if engine.backend == backend and engine.audit), None)
    return "" if found is None else f"{number(100 * found.int8_share, 1)} % in INT8"
