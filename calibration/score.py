"""How far a candidate's answers are from the fp32 network's, and which of several candidates to keep.

The images are those held out of calibration, some hundred at most. Of so few hardly any flips, whatever the candidate,
and most of the divergence of the answers comes from a handful of images near a class boundary. What every image has is
an error of its logits, and on a network's next ten thousand images that predicts the flips: two candidates are
compared by their SQNR image by image, in dB, so that no image outweighs the others. Where the difference is within its
own standard error, there is nothing to choose between them but what they cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ..errors import SpecError, ToolError
from ..parity import compare
from ..parity.statistics import paired_interval, percent
from ..study import Score

PerImage = npt.NDArray[np.float64]
"""One figure an image: (N,); NaN where the candidate's answer is not finite."""
EXACT_DB = 144.0
"""SQNR of what differs by no more than the rounding of float32, and of what is equal: 24 bits."""


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
    exact = sqnr_db(reference, candidate)
    images, bad = len(exact), int(np.isnan(exact).sum())
    expected, given = compare.predictions(reference), compare.predictions(candidate)
    closeness, error = _mean(exact)
    top1 = top1_reference = drop = low = high = None
    if labels is not None:
        _check(labels, reference)
        before, after = (compare.hits(logits, labels, 1) for logits in (reference, candidate))
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        top1, top1_reference = (percent(int(right.sum()), images) for right in (after, before))
        drop = percent(lost - gained, images)
        low, high = paired_interval(lost, gained, images)
    return Score(
        name,
        images,
        int(compare.flipped(expected, given).sum()),
        _mean(divergences(reference, candidate))[0],
        closeness,
        error if images > 1 else None,
        top1,
        top1_reference,
        drop,
        low,
        high,
        bad,
    )


def divergences(reference: compare.Scores, candidate: compare.Scores) -> PerImage:
    """Kullback-Leibler divergence of the candidate's softmax from the reference's, in nats.

    Raises:
        SpecError: The two are not logits of the same images.
        ToolError: The reference holds NaN or infinity.
    """
    return _each(lambda p, q: np.maximum((np.exp(p) * (p - q)).sum(1), 0), reference, candidate, _log_softmax)


def sqnr_db(reference: compare.Scores, candidate: compare.Scores) -> PerImage:
    """Signal over noise of an image's logits, less their mean, which the softmax does not see; within +-``EXACT_DB``.

    Raises:
        SpecError: The two are not logits of the same images.
        ToolError: The reference holds NaN or infinity.
    """

    def decibels(signal: PerImage, other: PerImage) -> PerImage:
        powers = [np.square(rows).sum(1) for rows in (signal, other - signal)]
        least = np.finfo(np.float64).tiny
        ratio = 10 * (np.log10(np.maximum(powers[0], least)) - np.log10(np.maximum(powers[1], least)))
        return np.where(powers[1] == 0, EXACT_DB, np.clip(ratio, -EXACT_DB, EXACT_DB))

    return _each(decibels, reference, candidate, lambda rows: rows - rows.mean(1, keepdims=True))


def best(found: Mapping[str, PerImage]) -> tuple[str, str]:
    """The candidate with the highest mean SQNR, and the one to keep.

    That is the first, hence the cheapest, which is not worse by more than one standard error of the difference, image
    by image. Candidates that answered any image with NaN or infinity are not considered.

    Args:
        found: The SQNR of each candidate on the same images, the cheapest candidate first.

    Raises:
        SpecError: None is left.

    Source: the rule of one standard error of Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees"
    (1984), section 3.4.3, on paired differences.
    """
    sound = {name: values for name, values in found.items() if np.isfinite(values).all()}
    if not sound:
        raise SpecError("no candidate answers every held-out image with finite numbers")
    means = {name: _mean(values)[0] for name, values in sound.items()}
    closest = max(means, key=means.__getitem__)  # the first of equals
    worse = {name: _mean(sound[closest] - values) for name, values in sound.items()}
    return closest, next(name for name, (difference, error) in worse.items() if difference <= error)


def _each(
    compute: Callable[[PerImage, PerImage], PerImage],
    reference: compare.Scores,
    candidate: compare.Scores,
    prepare: Callable[[PerImage], PerImage],
) -> PerImage:
    """A figure of two prepared rows for each image, in float64."""
    if reference.ndim != 2 or reference.shape != candidate.shape or not reference.size:
        raise SpecError(f"logits of shape {candidate.shape} cannot be compared with logits of shape {reference.shape}")
    if (bad := np.flatnonzero(~compare.finite_rows(reference))).size:
        raise ToolError(
            f"the fp32 network answers held-out image {bad[0]} with NaN or infinity",
            fix="look for NaN in the weights, or for a preprocessing that the network was not trained with",
        )
    found = np.full(len(reference), np.nan)
    rows = compare.finite_rows(candidate)
    found[rows] = compute(*(prepare(np.asarray(side[rows], np.float64)) for side in (reference, candidate)))
    return found


def _mean(values: PerImage) -> tuple[float, float]:
    """Mean and its standard error, 0 for one value; exact sums, so that the order of the images does not show."""
    mean = math.fsum(values) / len(values)
    squares = math.fsum(np.square(values - mean))
    return mean, math.sqrt(squares / max(1, len(values) - 1) / len(values))


def _log_softmax(logits: PerImage) -> PerImage:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _check(labels: compare.Classes, logits: compare.Scores) -> None:
    if labels.shape != (len(logits),):
        raise SpecError(f"labels of shape {labels.shape} for {len(logits)} held-out images")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise SpecError(
            f"held-out labels from {labels.min()} to {labels.max()} for {logits.shape[1]} classes",
            fix="give images labelled with this network's classes",
        )
