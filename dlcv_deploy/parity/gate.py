"""The verdict on a parity report. A failed check is a value, and so is its reason."""

from __future__ import annotations

import math

from ..errors import SpecError
from .values import Leg, ParityReport


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
        _check(report, max_drop)
    found = [_not_finite("the original", report.non_finite, report.images)] if report.non_finite else []
    for leg in report.legs:
        found += _leg(leg, report.images, max_drop, not_run_fails)
    if max_drop is not None and not any(not leg.not_run for leg in report.legs):
        found.append("nothing was run beside the original, so nothing has passed")
    return tuple(found)


def _check(report: ParityReport, max_drop: float) -> None:
    if not math.isfinite(max_drop) or max_drop < 0:
        raise SpecError(f"--max-drop {max_drop} is no limit", fix="give points of top-1 accuracy, 0 or more")
    if not report.labelled:
        raise SpecError(
            f"--max-drop limits the loss of accuracy, and the images ({report.source}) carry no labels",
            fix="give labelled images, or leave --max-drop out: agreement and flips are reported without labels",
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
