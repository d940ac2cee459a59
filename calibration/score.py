"""How far a candidate's answers are from the fp32 network's, and which of several candidates to keep.

The images are those held out of calibration, some hundred at most. So few hardly flip: good candidates flip none to
three of them, by luck. The divergence of the answers is a sum over all images and tells such candidates apart, and
over ten thousand images it orders them as their flips do. But it is heavy-tailed: a handful of images near a class
boundary make most of it. So two candidates are compared image by image, and where their difference is within its own
standard error there is nothing to choose between them but what they cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..errors import SpecError, ToolError
from ..parity import compare
from ..study import Score

Divergences = npt.NDArray[np.float64]
"""One an image, in nats; NaN where the candidate's answer is not finite."""


def score(
    name: str, reference: compare.Scores, candidate: compare.Scores, labels: compare.Classes | None = None
) -> Score:
    """A candidate's logits held against the fp32 network's.

    Args:
        name: What to call the candidate.
        reference: Logits of the fp32 network, (N, classes).
        candidate: Logits of the candidate, (N, classes), of the same images.
        labels: (N,) classes, where they are known.

    Raises:
        SpecError: Logits or labels that do not belong together, or of no image.
        ToolError: The fp32 network itself answers NaN or infinity.
    """
    found = divergences(reference, candidate)
    images, finite = len(found), np.isfinite(found)
    expected, given = compare.predictions(reference), compare.predictions(candidate)
    mean, error = _mean(found) if finite.all() else (math.nan, math.nan)
    top1 = top1_reference = drop = low = high = None
    if labels is not None:
        _check(labels, reference)
        before, after = (compare.hits(logits, labels, 1) for logits in (reference, candidate))
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        top1, top1_reference = (compare.percent(int(right.sum()), images) for right in (after, before))
        drop = compare.percent(lost - gained, images)
        low, high = compare.paired_interval(lost, gained, images)
    return Score(
        name,
        images,
        int(compare.flipped(expected, given).sum()),
        mean,
        error if images > 1 else None,
        compare.LogitError.of(reference, candidate).sqnr_db,
        top1,
        top1_reference,
        drop,
        low,
        high,
        int((~finite).sum()),
    )


def divergences(reference: compare.Scores, candidate: compare.Scores) -> Divergences:
    """Kullback-Leibler divergence of the candidate's softmax from the reference's, image by image.

    Raises:
        SpecError: The two are not logits of the same images.
        ToolError: The reference holds NaN or infinity.
    """
    if reference.ndim != 2 or reference.shape != candidate.shape or not reference.size:
        raise SpecError(f"logits of shape {candidate.shape} cannot be compared with logits of shape {reference.shape}")
    if (bad := np.flatnonzero(~compare.finite_rows(reference))).size:
        raise ToolError(
            f"the fp32 network answers held-out image {bad[0]} with NaN or infinity",
            fix="look for NaN in the weights, or for a preprocessing that the network was not trained with",
        )
    found = np.full(len(reference), np.nan)
    rows = compare.finite_rows(candidate)
    exact, other = _log_softmax(reference[rows]), _log_softmax(candidate[rows])
    found[rows] = np.maximum((np.exp(exact) * (exact - other)).sum(1), 0.0)  # a hair below 0 is rounding
    return found


def best(found: Mapping[str, Divergences]) -> tuple[str, str]:
    """The candidate with the smallest mean divergence, and the one to keep.

    That is the first, hence the cheapest, which is not worse by more than one standard error of the difference, image
    by image. Candidates that answered any image with NaN or infinity are not considered.

    Args:
        found: The divergences of each candidate on the same images, the cheapest candidate first.

    Raises:
        SpecError: None is left.

    Source: the rule of one standard error of Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees"
    (1984), section 3.4.3, on paired differences.
    """
    sound = {name: values for name, values in found.items() if np.isfinite(values).all()}
    if not sound:
        raise SpecError("no candidate answers every held-out image with finite numbers")
    means = {name: _mean(values)[0] for name, values in sound.items()}
    lowest = min(means, key=means.__getitem__)  # the first of equals
    for name, values in sound.items():
        difference, error = _mean(values - sound[lowest])
        if difference <= error:
            return lowest, name
    raise AssertionError("the lowest is level with itself")


def _mean(values: Divergences) -> tuple[float, float]:
    """Mean and its standard error, 0 for one value; exact sums, so that the order of the images does not show."""
    mean = math.fsum(values) / len(values)
    squares = math.fsum(np.square(values - mean))
    return mean, math.sqrt(squares / max(1, len(values) - 1) / len(values))


def _log_softmax(logits: compare.Scores) -> npt.NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _check(labels: compare.Classes, logits: compare.Scores) -> None:
    if labels.shape != (len(logits),):
        raise SpecError(f"labels of shape {labels.shape} for {len(logits)} held-out images")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise SpecError(
            f"held-out labels from {labels.min()} to {labels.max()} for {logits.shape[1]} classes",
            fix="give images labelled with this network's classes",
        )
