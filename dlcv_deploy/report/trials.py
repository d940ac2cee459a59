"""What a report says of the trials behind an INT8 graph, in words and rounded figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..study import LayerDamage, Mixed, Point, QuantizationStudy, Robustness, Score, Tournament
from .words import ABSENT, layer_name, number, plural, significant, tally

TOURNAMENT_HEAD = ("candidate", "SQNR dB", "error", "divergence", "flips", "top-1 %", "drop")
LAYER_HEAD = ("layer", "SQNR dB", "divergence", "flips", "multiply-adds")
LAYERS_SHOWN = 10
POINTS_SHOWN = 16
FIGURES = (
    "SQNR compares the logits with the fp32 graph's, image by image, and is the mean in dB, with its standard error."
    " Divergence is the mean Kullback-Leibler divergence of the softmax, in nats."
)
_EXACT_DB = 144
"""From here on an SQNR says that float32 holds no difference."""


def tournament_rows(tournament: Tournament) -> tuple[tuple[str, ...], ...]:
    """Every candidate under ``TOURNAMENT_HEAD``; one that failed is its name and the reason."""
    return tuple(_candidate(score, kept=score.name == tournament.winner) for score in tournament.scores)


def tournament_note(tournament: Tournament) -> str:
    """Which candidate was kept, and why."""
    if tournament.winner == tournament.closest:
        return f"Kept: {tournament.winner}, the closest to the fp32 graph."
    return (
        f"Kept: {tournament.winner}. The closest to the fp32 graph is {tournament.closest}, which costs more and leads"
        " by no more than the standard error of the difference, image by image."
    )


def robustness_line(robustness: Robustness) -> str:
    """What several calibrations on random images had in common."""
    sound = [score for score in robustness.scores if not score.failed]
    if any(score.flips is None or score.divergence is None for score in sound) or not sound:
        return f"{plural(len(robustness.scores), 'random draw')}, none of which could be calibrated on."
    low, median, high = robustness.flips
    mean, deviation = robustness.divergence
    worst = ", ".join(f"{spread.tensor} {number(spread.percent, 1)} %" for spread in robustness.worst[:3])
    failed = len(robustness.scores) - len(sound)
    return (
        f"Calibrated on {plural(len(sound), 'random draw')} of {plural(robustness.images, 'image')}: {low:,} to"
        f" {high:,} of {plural(sound[0].images, 'held-out image')} flipped (median {median:g}), divergence"
        f" {significant(mean)} nats with a standard deviation of {significant(deviation)}."
        + (f" Ranges that differ most: {worst}." if worst else "")
        + (f" {plural(failed, 'further draw')} could not be calibrated on." if failed else "")
    )


def layer_rows(layers: Sequence[LayerDamage]) -> tuple[tuple[str, ...], ...]:
    """The most damaging layers under ``LAYER_HEAD``."""
    return tuple(_layer(layer) for layer in layers[:LAYERS_SHOWN])


def layer_note(layers: Sequence[LayerDamage]) -> str:
    """What the table of layers shows."""
    of = f", the first {LAYERS_SHOWN} of {len(layers):,}" if len(layers) > LAYERS_SHOWN else ""
    return f"Each layer alone in INT8 and all others in floating point, the most damaging first{of}."


def curve_head(mixed: Mixed) -> tuple[str, ...]:
    """The head of the curve's rows; with latency where any was measured."""
    lost = "drop" if mixed.measure == "top-1" else "flipped %"
    timed = ("ms",) if any(point.latency_ms is not None for point in mixed.curve) else ()
    return ("in floating point", "INT8 %", lost, "flips", "SQNR dB", "divergence", *timed)


def curve_rows(mixed: Mixed, most: int = POINTS_SHOWN) -> tuple[tuple[str, ...], ...]:
    """The mixtures that none beats in both INT8 share and SQNR, and the one that was chosen; evenly thinned out."""
    front: list[Point] = []
    highest = -math.inf
    for point in mixed.curve:
        sqnr = point.score.sqnr_db
        level = -math.inf if sqnr is None or math.isnan(sqnr) else sqnr
        if level > highest or _is_chosen(point, mixed):
            front.append(point)
        highest = max(highest, level)
    step = max(1, -(-(len(front) - 1) // (most - 2)))
    kept = {*range(0, len(front), step), *(at for at, point in enumerate(front) if _is_chosen(point, mixed))}
    kept |= {len(front) - 1} if front else set()
    head = curve_head(mixed)
    return tuple(_point(front[at], mixed, len(head)) for at in sorted(kept))


def _is_chosen(point: Point, mixed: Mixed) -> bool:
    return repr(point) == repr(mixed.chosen)  # NaN is not equal to NaN


def mixed_line(mixed: Mixed) -> str:
    """What share stays in INT8 and what is lost, beside what was asked."""
    score, share = mixed.chosen.score, number(100 * mixed.chosen.share_int8)
    images = plural(score.images, "held-out image")
    if problem := _problem(score):
        lost = f"cannot be measured ({problem})"
    elif mixed.measure == "top-1":
        lost = f"loses {number(score.drop)} points of top-1 on {images} (95 % {_interval(score)})"
    else:
        lost = f"flips {tally(score.flips)} of {images} ({number(score.flipped_percent)} %)"
    asked = f"{significant(mixed.max_drop, 6)} " + (
        "points" if mixed.measure == "top-1" else "% flipped, for there are no labels"
    )
    left = f"{plural(len(mixed.chosen.float_nodes), 'layer')} in floating point"
    if mixed.reached:
        return f"{share} % of the multiply-adds in INT8, {left}: {lost}; asked was at most {asked}."
    return f"NOT REACHED: no mixture keeps to {asked}. The best, {share} % of the multiply-adds in INT8, {lost}."


def study_note(study: QuantizationStudy) -> str:
    """On which images the trials were scored."""
    return f"Scored on {study.source}. {FIGURES}"


def _candidate(score: Score, *, kept: bool) -> tuple[str, ...]:
    name = f"{score.name} (kept)" if kept else score.name
    if problem := _problem(score):
        return name, problem
    return (
        name,
        _decibels(score),
        number(score.sqnr_error_db),
        significant(score.divergence),
        tally(score.flips),
        number(score.top1),
        number(score.drop),
    )


def _layer(layer: LayerDamage) -> tuple[str, ...]:
    score = layer.score
    name = layer_name(layer.module, layer.node)
    if problem := _problem(score):
        return name, problem
    return name, _decibels(score), significant(score.divergence), tally(score.flips), f"{layer.multiply_adds:,}"


def _point(point: Point, mixed: Mixed, cells: int) -> tuple[str, ...]:
    score = point.score
    first = point.float_modules[:3]
    name = ", ".join(first) + (f" and {len(point.float_modules) - 3} more" if point.float_modules[3:] else "")
    name = ("kept: " if mixed.reached and _is_chosen(point, mixed) else "") + (name or "nothing")
    if problem := _problem(score):
        return name, problem
    lost = score.drop if mixed.measure == "top-1" else score.flipped_percent
    row = (
        name,
        number(100 * point.share_int8),
        number(lost),
        tally(score.flips),
        _decibels(score),
        significant(score.divergence),
        number(point.latency_ms, 3),
    )
    return row[:cells]


def _problem(score: Score) -> str:
    """Why there are no figures; empty where there are."""
    if score.failed:
        return f"failed: {score.failed}"
    return f"NaN or infinity on {score.non_finite:,} of {plural(score.images, 'image')}" if score.non_finite else ""


def _decibels(score: Score) -> str:
    return "equal" if score.sqnr_db is not None and score.sqnr_db >= _EXACT_DB else number(score.sqnr_db)


def _interval(score: Score) -> str:
    return ABSENT if score.drop_low is None else f"{number(score.drop_low)} to {number(score.drop_high)}"
