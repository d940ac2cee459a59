"""The verdict on a parity report. A failed check is a value, and so is its reason.

Two limits, and they are two questions. ``--max-drop`` holds the loss that was measured on these images against a limit.
``--margin`` asks what the images show of all others: the 95 % interval of the loss lies below the margin (shown), above
it (shown worse), or across (not shown: more images would tell).
"""

from __future__ import annotations

import math

from ..errors import SpecError
from .statistics import MLPERF, images_needed, outcome, provable
from .values import Leg, Loss, Outcome, ParityReport

_WORST: tuple[Outcome, ...] = ("shown worse", "not shown", "shown")


def passes(report: ParityReport, max_drop: float | None = None, *, not_run_fails: bool = True) -> bool:
    """Whether ``failures`` finds nothing."""
    return not failures(report, max_drop, not_run_fails=not_run_fails)


def failures(report: ParityReport, max_drop: float | None = None, *, not_run_fails: bool = True) -> tuple[str, ...]:
    """What stands against a report, a sentence each; none where it passes.

    Outputs that are NaN or infinite always fail, whichever they are, the reference's too. With ``max_drop`` every leg
    must have run (a leg that did not has shown nothing) and lost at most that much. It is the measured drop that is
    held against the limit, not the end of its interval.

    Args:
        report: As measured.
        max_drop: Points of top-1 accuracy that may be lost, 0 or more; ``None`` for no limit.
        not_run_fails: Whether a limit fails where a leg was not run. If not, at least one leg must have run.

    Raises:
        SpecError: a limit that is no number of points, or one on images without labels: agreement with the original is
            no accuracy, for a flip may be to the better.
    """
    if max_drop is not None:
        if not math.isfinite(max_drop) or max_drop < 0:
            raise SpecError(f"--max-drop {max_drop} is no limit", fix="give points of top-1 accuracy, 0 or more")
        _labelled(report, "--max-drop")
    found = [_not_finite("the original", report.non_finite, report.images)] if report.non_finite else []
    for leg in report.legs:
        found += _leg(leg, report.images, max_drop, not_run_fails)
    if max_drop is not None and not any(not leg.not_run for leg in report.legs):
        found.append("nothing was run beside the original, so nothing has passed")
    return tuple(found)


def judge(report: ParityReport) -> Outcome:
    """What the images show of all legs against the report's margin, at top-1: the least that they show of any.

    NaN or infinity anywhere is "shown worse", for no margin allows it. A leg that was not run has shown nothing.

    Raises:
        SpecError: images without labels.
    """
    _labelled(report, "--margin")
    found = {_standing(report, leg) for leg in report.legs} or {"not shown"}
    return "shown worse" if report.non_finite else next(one for one in _WORST if one in found)


def sentences(report: ParityReport) -> tuple[str, ...]:
    """What the images show of each leg against the report's margin, and what it would take to show more.

    A sentence a leg, then one on the number of images, for the leg that turns the most answers right or wrong. None
    without labels.
    """
    if not report.labelled:
        return ()
    losses = [loss for leg in report.legs if (loss := leg.loss(1)) is not None]
    most = max(losses, key=lambda loss: loss.lost + loss.gained, default=None)
    said = [f"{leg.name}: {_standing(report, leg)}: {_shown(report, leg)}" for leg in report.legs]
    return tuple(said) if most is None else (*said, _power(report, most))


def _standing(report: ParityReport, leg: Leg) -> Outcome:
    loss = leg.loss(1)
    if leg.non_finite or any(output.non_finite for output in leg.outputs):
        return "shown worse"
    return "not shown" if loss is None else outcome(loss, report.margin)


def _shown(report: ParityReport, leg: Leg) -> str:
    loss, margin = leg.loss(1), f"margin {report.margin:g}"
    bad = max([leg.non_finite, *(output.non_finite for output in leg.outputs)])
    if bad:
        return f"NaN or infinity on {bad:,} of {report.images:,} images, which no margin allows"
    if loss is None:
        return f"not run: {leg.not_run}" if leg.not_run else "its loss was not measured"
    standing = outcome(loss, report.margin)
    if standing == "shown":
        most = f"loses at most {_points(loss.high)}" if loss.high >= 0 else f"gains at least {_points(-loss.high)}"
        return f"{most} points of top-1 (95 %), {margin}"
    if standing == "shown worse":
        return f"loses at least {_points(loss.low)} points of top-1 (95 %), {margin}"
    return f"may lose {_points(loss.high)} points of top-1 (95 %), {margin}; {_short_of(report, loss)}"


def _short_of(report: ParityReport, loss: Loss) -> str:
    changed = loss.lost + loss.gained
    needed = images_needed(report.margin, changed, report.images)
    if needed <= report.images:
        return f"there are images enough for an equal candidate, and this one lost {_points(loss.drop)} on them"
    best = f"{_images(report.images)} with {100 * changed / report.images:.2g} % turned right or wrong can show"
    return f"{best} {_points(provable(changed, report.images))} at best; showing {report.margin:g} takes {needed:,}"


def _power(report: ParityReport, loss: Loss) -> str:
    changed = loss.lost + loss.gained
    margins = {f"{report.margin:g}": report.margin}
    if report.top1:
        margins |= {f"{_points(report.top1 / part)} ({name})": report.top1 / part for name, part in MLPERF}
    best = f"the smallest provable loss is {_points(provable(changed, report.images))} points"
    needed = (f"{name} takes {images_needed(points, changed, report.images):,}" for name, points in margins.items())
    said = f"With {_images(report.images)} {best}, of a candidate that loses as many as it gains"
    return f"{said}; to prove it with a chance of 80 %, {', '.join(needed)}"


def _points(value: float) -> str:
    """Points with two decimals, small ones with three, and never a minus before zero."""
    digits = 2 if abs(value) >= 0.1 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _labelled(report: ParityReport, option: str) -> None:
    if not report.labelled:
        raise SpecError(
            f"{option} limits the loss of accuracy, and the images ({report.source}) carry no labels",
            fix=f"give labelled images, or leave {option} out: agreement and flips are reported without labels",
        )


def _leg(leg: Leg, images: int, max_drop: float | None, not_run_fails: bool) -> list[str]:
    if leg.not_run:
        asked = max_drop is not None and not_run_fails
        return [f"{leg.name} was not run, so it has not passed: {leg.not_run}"] if asked else []
    found = [_not_finite(leg.name, leg.non_finite, images)] if leg.non_finite else []
    found += [
        _not_finite(f"{leg.name} or the original", output.non_finite, images, f" in {output.name}")
        for output in leg.outputs
        if output.non_finite
    ]
    if max_drop is not None and not (leg.drop is not None and leg.drop <= max_drop):  # a NaN fails here
        lost = "an unknown number of" if leg.drop is None else f"{leg.drop:.2f}"
        found.append(f"{leg.name} loses {lost} points of top-1 accuracy, and at most {max_drop:g} may be lost")
    return found


def _not_finite(name: str, count: int, images: int, where: str = "") -> str:
    return f"{name} answers NaN or infinity{where} on {count:,} of {images:,} images"
