"""Candidates against each other, and one candidate against itself on other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import SpecError, ToolError
from ..parity import compare
from ..progress import Progress, silent
from ..study import Robustness, Score, Spread, Tournament
from .samples import Samples
from .score import best, score, sqnr_db
from .subset import draws

Run = Callable[[bytes], compare.Scores]
"""Gives the logits of an ONNX graph on the held-out images: (N, classes)."""
Calibrate = Callable[[Samples], tuple[bytes, Mapping[str, float]]]
"""An INT8 graph calibrated on images, and the range of each tensor."""
WORST = 10
"""Tensors named of those whose range depends most on the images."""


def tournament(
    candidates: Mapping[str, Callable[[], bytes]],
    run: Run,
    reference: compare.Scores,
    labels: compare.Classes | None = None,
    *,
    progress: Progress = silent,
) -> Tournament:
    """Make each candidate, score it on the held-out images, and choose one as ``score.best`` does.

    A candidate that cannot be made or run is recorded with the reason, and one that answers NaN or infinity with how
    often; neither wins. One candidate's graph is held at a time.

    Args:
        candidates: What makes each candidate's ONNX, by name, the cheapest candidate first.
        run: Runs one of them.
        reference: Logits of the fp32 network, (N, classes).
        labels: (N,) classes, where they are known.
        progress: Told of each candidate.

    Raises:
        SpecError: No candidates.
        ToolError: None of them could be made and answers with finite numbers.
    """
    if not candidates:
        raise SpecError("a tournament needs candidates", fix="name at least one method")
    scores, found = [], {}
    with progress("tournament", len(candidates)) as advance:
        for name, make in candidates.items():
            answer = answer_of(make, run)
            scores.append(scored(name, reference, answer, labels))
            if not isinstance(answer, str) and not scores[-1].non_finite:
                found[name] = sqnr_db(reference, answer)
            advance(1)
    if not found:
        raise ToolError(f"no candidate is of use: {'; '.join(map(_why, scores))}", fix="give more images, or others")
    closest, winner = best(found)
    return Tournament(tuple(scores), closest, winner)


def robustness(
    calibrate: Calibrate,
    samples: Samples,
    k: int,
    run: Run,
    reference: compare.Scores,
    labels: compare.Classes | None = None,
    *,
    share: float = 0.5,
    seed: int = 0,
    progress: Progress = silent,
) -> Robustness:
    """How much an INT8 graph depends on the images it was calibrated on: ``k`` random subsets, each by itself.

    Subsets of half the images differ from each other about as much as calibrations would that are each made on as many
    fresh images as there are here.

    Args:
        calibrate: Makes the graph.
        samples: Images to calibrate on, none of them held out.
        k: How many subsets, from 2 on.
        run: Runs a graph on the held-out images.
        reference: Logits of the fp32 network on those, (N, classes).
        labels: (N,) classes, where they are known.
        share: Of the images, in each subset.
        seed: Another one draws otherwise.
        progress: Told of each subset.

    Raises:
        SpecError: Too few subsets or images.
        ToolError: No subset gives a graph that runs.

    Source: the delete-d jackknife with d = n / 2, whose factor (n - d) / d is 1: Shao, Wu, "A General Theory for
    Jackknife Variance Estimation", Annals of Statistics 17 (1989) 1176-1197.
    """
    subsets = draws(samples, k, share, seed=seed)
    scores, ranges = [], list[Mapping[str, float]]()
    with progress("robustness", k) as advance:
        for n, subset in enumerate(subsets, 1):

            def make(subset: Samples = subset) -> bytes:
                onnx, amax = calibrate(subset)
                ranges.append(amax)
                return onnx

            scores.append(scored(f"draw {n}", reference, answer_of(make, run), labels))
            advance(1)
    if all(score.failed for score in scores):
        raise ToolError(f"no subset can be calibrated on: {scores[0].failed}", fix="give more images, or others")
    return Robustness(min(map(len, subsets)), tuple(scores), _spreads(ranges)[:WORST])


def answer_of(make: Callable[[], bytes], run: Run) -> compare.Scores | str:
    """A candidate's logits on the held-out images, or why there are none."""
    try:
        return run(make())
    except (SpecError, ToolError) as e:
        return e.what


def scored(name: str, reference: compare.Scores, answer: compare.Scores | str, labels: compare.Classes | None) -> Score:
    """The score of logits, or of their absence."""
    return Score(name, failed=answer) if isinstance(answer, str) else score(name, reference, answer, labels)


def _why(score: Score) -> str:
    bad = f"NaN or infinity on {score.non_finite} of {score.images} images"
    return f"{score.name}: {score.failed or bad}"


def _spreads(ranges: list[Mapping[str, float]]) -> tuple[Spread, ...]:
    """The tensors that all calibrations have a range for, those first whose ranges differ most."""
    found = []
    for tensor in sorted(set.intersection(*(set(amax) for amax in ranges))):
        values = [amax[tensor] for amax in ranges]
        low, high, mean = min(values), max(values), sum(values) / len(values)
        found.append(Spread(tensor, low, high, 100 * (high - low) / mean if mean else 0.0))
    return tuple(sorted(found, key=lambda spread: -spread.percent))
