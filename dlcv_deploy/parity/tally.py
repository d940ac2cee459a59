"""What is counted of one session, batch by batch: a few numbers in all, an image, a flip and a class."""

from __future__ import annotations

import dataclasses as dc
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..types import TensorSpec
from . import compare
from .outputs import OutputTally
from .statistics import loss, percent, verdicts
from .values import Average, ClassCount, Flip, Leg, Loss, Step

Counts = npt.NDArray[np.int64]
KS = (1, 5)
"""The k of top-k."""


@dc.dataclass(frozen=True, slots=True)
class Answers:
    """One session's answers to one batch of images: logits (N, crops, K), and their ``mean`` over the crops (N, K).

    ``scores`` (N, K) are what classes are ranked by, NaN in a row where any logit is not finite; ``chances`` says
    whether they are probabilities. ``predictions`` (N,) are the best, and ``right`` (2, N) whether the label is among
    the first ``KS``. ``further`` are the other outputs for the centre crops, (N, *shape) each.
    """

    logits: compare.Scores
    mean: compare.Scores
    scores: compare.Scores
    chances: bool
    predictions: compare.Classes
    right: compare.Flags | None
    further: Mapping[str, compare.Scores]

    @classmethod
    def of(
        cls,
        logits: compare.Scores,
        average: Average,
        labels: compare.Classes | None,
        further: Mapping[str, compare.Scores],
    ) -> Answers:
        """Rank by the crops' mean softmax or mean logits; one crop by its logits, which rank alike without ties."""
        chances = average == "softmax" and logits.shape[1] > 1
        with np.errstate(invalid="ignore"):  # infinities of both signs
            mean = logits.mean(1)
        scores = compare.softmax(logits).mean(1) if chances else mean
        scores = np.where(compare.finite_rows(logits)[:, None], scores, np.nan)  # softmax makes 0 of -infinity
        right = None if labels is None else np.stack([compare.hits(scores, labels, k) for k in KS])
        return cls(logits, mean, scores, chances, compare.predictions(scores), right, further)

    def margin(self, i: int) -> float | None:
        """Probability of image ``i``'s best class less that of the next; ``None`` where its answer is not finite."""
        if self.predictions[i] == compare.NONE:
            return None
        ranked = np.sort(self.scores[i] if self.chances else compare.softmax(self.scores[i]))
        return float(ranked[-1] - ranked[-2]) if len(ranked) > 1 else 1.0


@dc.dataclass(slots=True)
class Beside:
    """How a session's answers differ from another's; ``lost`` and ``gained`` at each of ``KS``."""

    flips: int = 0
    lost: Counts = dc.field(default_factory=lambda: np.zeros(len(KS), np.int64))
    gained: Counts = dc.field(default_factory=lambda: np.zeros(len(KS), np.int64))
    error: compare.LogitError = dc.field(default_factory=compare.LogitError)
    cosines: list[float] = dc.field(default_factory=list)

    def add(self, expected: Answers, found: Answers) -> None:
        """Count one batch."""
        self.flips += int(compare.flipped(expected.predictions, found.predictions).sum())
        self.error = self.error.merge(compare.LogitError.of(expected.logits, found.logits))
        self.cosines += compare.vector_errors(expected.mean, found.mean)[:, 0].tolist()
        if expected.right is not None and found.right is not None:
            self.lost += (expected.right & ~found.right).sum(1)
            self.gained += (found.right & ~expected.right).sum(1)

    @property
    def images(self) -> int:
        """How many were counted."""
        return len(self.cosines)

    @property
    def cosine(self) -> float:
        """Mean over the images; NaN where any answer was not finite."""
        return math.fsum(self.cosines) / self.images

    def losses(self) -> tuple[Loss, ...]:
        """At each of ``KS``, of labelled images."""
        return tuple(loss(k, int(b), int(c), self.images) for k, b, c in zip(KS, self.lost, self.gained, strict=True))


@dc.dataclass(slots=True)
class Tally:
    """What is counted of one session: by itself, beside the original, and beside the candidate before it.

    ``classes`` counts by label (5, K): images, those that the original had right, that it had right, lost, gained.
    ``before`` is ``original`` where that is what comes before it.
    """

    outputs: dict[str, OutputTally]
    classes: Counts
    original: Beside
    before: Beside
    images: int = 0
    non_finite: int = 0
    right: Counts = dc.field(default_factory=lambda: np.zeros(len(KS), np.int64))
    flips: list[Flip] = dc.field(default_factory=list)

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], *, first: bool = True) -> Tally:
        """Nothing yet, of the logits and of the outputs after them; ``first`` where the original comes before it."""
        classes = np.zeros((5, outputs[0].shape[0]), np.int64)
        beside = Beside()
        return cls(
            {spec.name: OutputTally(spec) for spec in outputs[1:]}, classes, beside, beside if first else Beside()
        )

    def add_own(self, found: Answers, expected: Answers) -> None:
        """Count a batch by itself, and its further outputs beside the original's, which may be the same."""
        self.images += len(found.predictions)
        self.non_finite += int((found.predictions == compare.NONE).sum())
        if found.right is not None:
            self.right += found.right.sum(1)
        for name, tally in self.outputs.items():
            tally.add(expected.further[name], found.further[name])

    def add(
        self, expected: Answers, before: Answers, found: Answers, labels: compare.Classes | None, start: int
    ) -> None:
        """Count a batch whose first image is number ``start``: the original's answers, those before it, its own."""
        self.add_own(found, expected)
        self.original.add(expected, found)
        if self.before is not self.original:
            self.before.add(before, found)
        for i in map(int, np.flatnonzero(compare.flipped(expected.predictions, found.predictions))):
            label = -1 if labels is None else int(labels[i])
            classes = int(expected.predictions[i]), int(found.predictions[i])
            self.flips.append(Flip(start + i, "", label, *classes, expected.margin(i), found.margin(i)))
        if labels is None or expected.right is None or found.right is None:
            return
        one, other = expected.right[0], found.right[0]
        for row, chosen in zip(self.classes, (np.ones_like(one), one, other, one & ~other, other & ~one), strict=True):
            row += np.bincount(labels[chosen], minlength=len(row))

    def accuracy(self, *, labelled: bool) -> tuple[float | None, float | None]:
        """Top-1 and top-5 in percent."""
        if not labelled:
            return None, None
        top1, top5 = (percent(int(count), self.images) for count in self.right)
        return top1, top5

    def leg(self, name: str, original: Tally, previous: str, margin: float, *, labelled: bool) -> Leg:
        """The report of all that was counted; flips have neither a name nor a thumbnail yet."""
        top1, top5 = self.accuracy(labelled=labelled)
        losses = self.original.losses() if labelled else ()
        proven = (
            verdicts(percent(int(right), self.images), lost, self.images, margin)
            for right, lost in zip(original.right, losses, strict=False)
        )
        return Leg(
            name,
            top1,
            top5,
            losses,
            tuple(itertools.chain.from_iterable(proven)),
            agreement=percent(self.images - len(self.flips), self.images),
            flips=tuple(self.flips),
            logit_max_abs=self.original.error.max_abs,
            logit_sqnr_db=self.original.error.sqnr_db,
            cosine=self.original.cosine,
            step=self._step(previous, labelled=labelled),
            classes=tuple(
                ClassCount(label, *map(int, counts)) for label, counts in enumerate(self.classes.T) if counts[0]
            ),
            non_finite=self.non_finite,
            outputs=tuple(tally.error(original.outputs[output]) for output, tally in self.outputs.items()),
        )

    def _step(self, previous: str, *, labelled: bool) -> Step:
        beside = self.before
        drop = percent(int(beside.lost[0] - beside.gained[0]), beside.images) if labelled else None
        return Step(previous, drop, beside.flips, beside.cosine, beside.error.sqnr_db, beside.error.max_abs)
