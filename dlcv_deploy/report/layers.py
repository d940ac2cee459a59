"""What a report says of the layers that drift from fp32, and of engines that must agree with themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..parity.values import Consistency, Drift, LayerError
from .words import ABSENT, layer_name, number, plural

DRIFT_HEAD = ("graph", "layer", "operator", "SQNR dB", "cosine")
CHECK_HEAD = ("engine", "check", "result", "seen")
LAYERS_SHOWN = 10
DRIFT_NOTE = "Every layer's output beside the fp32 graph's; SQNR is that of the whole tensor, in dB."


def drift_line(drift: Drift) -> str:
    """How far the layers of a graph drift, and the first that falls out of line."""
    where = f"{drift.graph}, {plural(len(drift.layers), 'layer')} on {plural(drift.images, 'image')}"
    if not drift.layers:
        return sentence_of(where, "nothing was compared")
    worst = worst_layers(drift)[0]
    said = f"the farthest from fp32 is {layer_name(worst.module, worst.node)} at {_decibels(worst)}"
    if not drift.outlier:
        return sentence_of(where, f"{said}; no layer falls out of line")
    found = next((layer for layer in drift.layers if layer.module == drift.outlier), None)
    at = f" ({_decibels(found)})" if found else ""
    return sentence_of(where, f"{said}; the first layer that falls out of line is {drift.outlier}{at}")


def sentence_of(subject: str, said: str) -> str:
    """What is said of a subject."""
    return f"{subject}: {said}."


def worst_layers(drift: Drift) -> tuple[LayerError, ...]:
    """The layers by their distance from fp32, the farthest first; equals in the order of computation.

    JSON has no infinity: the SQNR of a layer without noise comes back from it as NaN, and its cosine as 1.
    """

    def distance(layer: LayerError) -> float:
        if not math.isnan(layer.sqnr_db):
            return layer.sqnr_db
        return math.inf if layer.cosine == 1 else -math.inf

    return tuple(sorted(drift.layers, key=distance))


def drift_rows(drift: Drift, most: int = LAYERS_SHOWN) -> tuple[tuple[str, ...], ...]:
    """The layers farthest from fp32 under ``DRIFT_HEAD``; the outlier is marked, and there in any case."""
    shown = list(worst_layers(drift)[:most])
    shown += [layer for layer in drift.layers if drift.outlier == layer.module and layer not in shown]
    return tuple(
        (
            drift.graph,
            layer_name(layer.module, layer.node) + (" (out of line)" if drift.outlier == layer.module else ""),
            layer.op_type,
            number(layer.sqnr_db, 1),
            number(layer.cosine, 6),
        )
        for layer in shown
    )


def _decibels(layer: LayerError) -> str:
    found = number(layer.sqnr_db, 1)
    return "an unknown SQNR" if found == ABSENT else f"{found} dB"


def consistency_lines(found: Sequence[Consistency]) -> tuple[str, ...]:
    """Whether engines agree with themselves: what failed first, and one line for an engine of which nothing did."""
    failed = [f"{each.engine}: FAILED {check.name}: {check.said}" for each in found for check in each.failed]
    return (*failed, *(_consistency_line(each) for each in found if not each.failed))


def _consistency_line(found: Consistency) -> str:
    if found.not_run:
        return f"{found.engine}: not run: {found.not_run}"
    passed = sum(check.passed is True for check in found.checks)
    untried = [f"{check.name} ({check.said})" for check in found.checks if check.passed is None]
    left = f"; not tried: {', '.join(untried)}" if untried else ""
    return f"{found.engine}: agrees with itself in {plural(passed, 'check')}{left}"


def check_rows(found: Sequence[Consistency]) -> tuple[tuple[str, ...], ...]:
    """Every check of every engine under ``CHECK_HEAD``, those that failed first."""
    results = {False: "FAILED", None: "not tried", True: "passed"}
    rows = [(each.engine, check.name, check.passed, check.said) for each in found for check in each.checks]
    rows.sort(key=lambda row: (False, None, True).index(row[2]))
    return tuple((engine, name, results[passed], said) for engine, name, passed, said in rows)
