"""Runs candidates beside the reference over a stream of images, on the same pixels, and counts."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import SpecError, ToolError
from ..progress import Progress, silent
from ..types import BATCH, Preprocess, TensorSpec
from . import compare
from .crops import CENTRE, COUNTS, canvas, to_input
from .crops import crops as cut
from .outputs import OutputTally, shared
from .values import Flip, Leg, Loss, ParityReport

if TYPE_CHECKING:
    from ..backends.base import Session

T = TypeVar("T")
_BATCH_PIXELS = 1 << 19
"""Pixels a session takes at once by default: ten crops of 224 x 224."""


class Samples(Protocol):
    """Images to measure on, read one at a time; ``source`` says in words where they are from."""

    @property
    def source(self) -> str:
        """Where the images are from, for people."""
        ...

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """A class for each image, or ``None`` where they are not known."""
        ...

    def __len__(self) -> int: ...

    def image(self, i: int) -> npt.NDArray[np.uint8]:
        """Image ``i``: (H, W, 3), RGB. Called from one other thread."""
        ...

    def name(self, i: int) -> str:
        """What to call image ``i`` in a report."""
        ...


def evaluate(
    reference: Session,
    candidates: Mapping[str, Session | str],
    samples: Samples,
    pre: Preprocess,
    *,
    crops: int = 10,
    batch_images: int | None = None,
    max_batch: int | None = None,
    further: bool = True,
    progress: Progress = silent,
) -> ParityReport:
    """Every candidate's answers held against the reference's, image by image.

    An image's score is the mean of its crops' softmax, in float64; with one crop the logits themselves, which rank
    alike and cannot underflow to ties. The first input of each session is used, and of the reference's outputs the
    first as the logits. The other outputs are compared on the centre crop of each image, whatever the number of crops.
    Images are read and cut in a thread while the sessions run, two batches at most at a time: memory grows with the
    flips found and by a few numbers an image and output, and vectors are kept up to ``outputs.GALLERY_VALUES``.

    Args:
        reference: The original.
        candidates: By name, in the order of the report; a text in place of a session is why it could not be run.
        samples: At least one image.
        pre: The network's preprocessing.
        crops: 1 or 10 crops an image.
        batch_images: Images read at a time; by default as many as fill ``max_batch``.
        max_batch: The most crops a session takes at once; more are run in pieces. By default by their size, so that
            a network's activations stay within some hundred MB.
        further: Whether outputs besides the logits are compared.
        progress: Told of each image.

    Raises:
        SpecError: no images, labels that do not fit, networks with different classes, or without an output.
        ToolError: a session that does not answer each crop with a row of logits.

    Source: Krizhevsky, Sutskever, Hinton (2012), section 4.1 (ten crops, softmax averaged).
    """
    sessions = {name: session for name, session in candidates.items() if not isinstance(session, str)}
    outputs = shared(reference, sessions)
    labels = _labels(samples, outputs[0].shape[0])
    outputs = outputs if further else outputs[:1]
    if max_batch is None:
        max_batch = max(1, min(BATCH.hi, _BATCH_PIXELS // pre.size**2))
    if crops not in COUNTS or max_batch < 1 or (batch_images is not None and batch_images < 1):
        raise SpecError(f"cannot evaluate {crops} crops, {batch_images} images at a time, {max_batch} crops a run")
    step = batch_images or max(1, max_batch // crops)
    starts = range(0, len(samples), step)

    def feed(start: int) -> npt.NDArray[np.float32]:
        images = map(samples.image, range(start, min(start + step, len(samples))))
        return to_input(np.concatenate([cut(canvas(image, pre), pre, crops) for image in images]), pre)

    original, tallies = _Tally.of(outputs), {name: _Tally.of(outputs) for name in sessions}
    with progress("parity", len(samples)) as advance:
        for start, x in zip(starts, _ahead(feed, starts), strict=True):
            count = len(x) // crops
            truth = None if labels is None else labels[start : start + count]
            expected = _answer("the original", reference, outputs, x, crops, max_batch)
            original.add(expected, expected, truth, start)
            for name, session in sessions.items():
                tallies[name].add(expected, _answer(name, session, outputs, x, crops, max_batch), truth, start)
            advance(count)

    legs = tuple(
        Leg(name, not_run=candidate)
        if isinstance(candidate, str)
        else tallies[name].leg(name, samples, labels, original)
        for name, candidate in candidates.items()
    )
    top1, top5 = original.accuracy(labels)
    return ParityReport(
        samples.source, len(samples), crops, labels is not None, top1, top5, legs, non_finite=original.non_finite
    )


@dc.dataclass(frozen=True, slots=True)
class _Answers:
    """One session's answers to one batch of images: logits (N, crops, K), scores (N, K), predictions (N,).

    ``further`` are the other outputs for the centre crops, (N, *shape) each.
    """

    logits: compare.Scores
    scores: compare.Scores
    predictions: compare.Classes
    further: Mapping[str, compare.Scores]


def _answer(
    name: str,
    session: Session,
    outputs: Sequence[TensorSpec],
    x: npt.NDArray[np.float32],
    crops: int,
    max_batch: int,
) -> _Answers:
    source = session.inputs[0]
    pieces: dict[str, list[compare.Scores]] = {spec.name: [] for spec in outputs}
    for start in range(0, len(x), max_batch):
        piece = x[start : start + max_batch].astype(source.dtype, copy=False)
        found = session.run({source.name: piece})
        for spec in outputs:
            out = found[spec.name]
            if out.shape != (len(piece), *spec.shape):
                raise ToolError(f"{name}: output {spec.name!r} has shape {out.shape} for a batch of {len(piece)}")
            chosen = slice(None) if spec is outputs[0] else slice((CENTRE[crops] - start) % crops, None, crops)
            pieces[spec.name].append(np.array(out[chosen], np.float64 if spec is outputs[0] else out.dtype))
    first, *further = (np.concatenate(parts) for parts in pieces.values())
    logits = first.reshape(len(x) // crops, crops, -1)
    finite = compare.finite_rows(logits)[:, None]
    scores = logits[:, 0] if crops == 1 else compare.softmax(logits).mean(1)
    scores = np.where(finite, scores, np.nan)  # softmax turns -infinity into 0, which would pass for an answer
    names = [spec.name for spec in outputs[1:]]
    return _Answers(logits, scores, compare.predictions(scores), dict(zip(names, further, strict=True)))


@dc.dataclass(slots=True)
class _Tally:
    """What is counted of one session; ``lost`` only the reference got right, ``gained`` only the session did."""

    images: int = 0
    top1: int = 0
    top5: int = 0
    lost: int = 0
    gained: int = 0
    non_finite: int = 0
    error: compare.LogitError = dc.field(default_factory=compare.LogitError)
    flips: list[tuple[int, int, int]] = dc.field(default_factory=list)
    outputs: dict[str, OutputTally] = dc.field(default_factory=dict)

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec]) -> _Tally:
        """Nothing yet, of the logits and of the outputs after them."""
        return cls(outputs={spec.name: OutputTally(spec) for spec in outputs[1:]})

    def add(self, expected: _Answers, found: _Answers, labels: compare.Classes | None, start: int) -> None:
        """Count one batch, whose first image is number ``start``."""
        self.images += len(found.predictions)
        self.non_finite += int((found.predictions == compare.NONE).sum())
        self.error = self.error.merge(compare.LogitError.of(expected.logits, found.logits))
        for i in np.flatnonzero(compare.flipped(expected.predictions, found.predictions)):
            self.flips.append((start + int(i), int(expected.predictions[i]), int(found.predictions[i])))
        for name, tally in self.outputs.items():
            tally.add(expected.further[name], found.further[name])
        if labels is None:
            return
        before, after = (compare.hits(answers.scores, labels, 1) for answers in (expected, found))
        self.top1 += int(after.sum())
        self.top5 += int(compare.hits(found.scores, labels, 5).sum())
        self.lost += int((before & ~after).sum())
        self.gained += int((after & ~before).sum())

    def accuracy(self, labels: compare.Classes | None) -> tuple[float | None, float | None]:
        """Top-1 and top-5 in percent."""
        if labels is None:
            return None, None
        return compare.percent(self.top1, self.images), compare.percent(self.top5, self.images)

    def leg(self, name: str, samples: Samples, labels: compare.Classes | None, original: _Tally) -> Leg:
        """The report of all that was counted."""
        top1, top5 = self.accuracy(labels)
        losses: tuple[Loss, ...] = ()
        if labels is not None:
            drop = compare.percent(self.lost - self.gained, self.images)
            low, high = compare.paired_interval(self.lost, self.gained, self.images)
            losses = (Loss(1, drop, low, high, self.lost, self.gained, math.nan),)
        return Leg(
            name,
            top1,
            top5,
            losses,
            agreement=compare.percent(self.images - len(self.flips), self.images),
            flips=tuple(
                Flip(i, samples.name(i), -1 if labels is None else int(labels[i]), expected, found)
                for i, expected, found in self.flips
            ),
            logit_max_abs=self.error.max_abs,
            logit_sqnr_db=self.error.sqnr_db,
            non_finite=self.non_finite,
            outputs=tuple(tally.error(original.outputs[output]) for output, tally in self.outputs.items()),
        )


def _labels(samples: Samples, classes: int) -> compare.Classes | None:
    if len(samples) < 1:
        raise SpecError(f"no images to compare on ({samples.source})", fix="give at least one image")
    labels = samples.labels
    if labels is None:
        return None
    if labels.shape != (len(samples),):
        raise SpecError(f"{samples.source}: {len(samples)} images, and labels of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise SpecError(
            f"{samples.source}: a label is {wrong}, and the network's classes are 0 to {classes - 1}",
            fix="give images labelled with this network's classes",
        )
    return labels


def _ahead(make: Callable[[int], T], keys: Sequence[int]) -> Iterator[T]:
    """``make`` of each key in order, the next one made in a thread while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(make, keys[0])
        for key in keys[1:]:
            now, later = later.result(), pool.submit(make, key)
            yield now
        yield later.result()
