"""Runs candidates beside the reference over a stream of images, on the same pixels, and counts."""

from __future__ import annotations

import dataclasses as dc
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from ..errors import SpecError, ToolError
from ..latency.measure import cores
from ..progress import Progress, silent
from ..report.document import REFERENCE
from ..types import Preprocess, TensorSpec
from . import compare
from .answers import Candidate, Chunk, Kept
from .crops import CENTRE, Input
from .feed import Feed, Samples, ahead, labels_of
from .outputs import shared
from .tally import Answers, Tally
from .thumbnails import pictured, thumbnail
from .values import Average, Leg, ParityReport

if TYPE_CHECKING:
    from ..backends.base import Session

ORIGINAL = "the original"
_MOST_THREADS = 16


def evaluate(
    reference: Session,
    candidates: Mapping[str, Candidate],
    samples: Samples,
    pre: Preprocess,
    *,
    crops: int = 10,
    average: Average = "softmax",
    margin: float = 0.5,
    batch_images: int | None = None,
    max_batch: int | None = None,
    further: bool = True,
    kept: Kept | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Every candidate's answers held against the reference's, image by image.

    An image's score is the mean of its crops' softmax, in float64; with one crop the logits themselves, which rank
    alike and cannot underflow to ties. The first input of each session is used, and of the reference's outputs the
    first as the logits. The other outputs are compared on the centre crop of each image, whatever the number of crops.

    Images are read and cut in threads, one batch for each core ahead of the sessions. Memory grows with the flips found
    and by a few numbers an image and output; vectors are kept up to ``outputs.GALLERY_VALUES``. With ``kept`` the
    logits go to disk chunk by chunk. A session is not asked again for a chunk that is there, nor are the images decoded
    where none is: a run that was cut off goes on in the chunk where it ended.

    Args:
        reference: The original.
        candidates: By name, in the order of the report.
        samples: At least one image.
        pre: The network's preprocessing.
        crops: 1 or 10 crops an image.
        average: Whether the softmax or the logits of an image's crops are averaged.
        margin: Points that verdicts allow to be lost.
        batch_images: Images read at a time; by default as many as fill ``max_batch``.
        max_batch: The most crops a session takes at once; more are run in pieces. By default by their size, so that
            a network's activations stay within some hundred MB.
        further: Whether outputs besides the logits are compared; where there are any, no answers are kept.
        kept: Where answers are kept.
        progress: Told of each image.

    Raises:
        SpecError: no images, labels that do not fit, networks with different classes, or without an output.
        ArtifactError: an image that cannot be read; names it.
        ToolError: a session that does not answer each crop with a row of logits.

    Source: Krizhevsky, Sutskever, Hinton (2012), section 4.1 (ten crops, softmax averaged).
    """
    sessions = {name: c.session for name, c in candidates.items() if not isinstance(c.session, str)}
    outputs = shared(reference, sessions)
    labels = labels_of(samples, outputs[0].shape[0])
    outputs = outputs if further else outputs[:1]
    feed = Feed.of(samples, pre, crops, batch_images, max_batch)
    if not 0 < margin <= 100:
        raise SpecError(f"a margin of {margin:g} points cannot be shown", fix="give points above 0, 100 at most")
    previous = {name: _previous(candidates, name) for name in sessions}
    own = Tally.of(outputs)
    tallies = {name: Tally.of(outputs, first=not previous[name]) for name in sessions}
    run = _Run({ORIGINAL: reference, **sessions}, outputs, feed, average, labels)
    names = {} if kept is None or len(outputs) > 1 else {ORIGINAL: kept.original}
    if names:
        names |= {name: candidates[name].identity for name in sessions if candidates[name].identity}
    with progress("parity", len(samples), unit="images") as advance:
        for images, answers in run.answers(names, kept):
            expected, truth = answers[ORIGINAL], None if labels is None else labels[images.start : images.stop]
            own.add_own(expected, expected)
            for name, tally in tallies.items():
                tally.add(expected, answers[previous[name] or ORIGINAL], answers[name], truth, images.start)
            advance(len(images))

    labelled = labels is not None
    picture = functools.cache(lambda i: thumbnail(samples.image(i)))
    legs = []
    for name, candidate in candidates.items():
        if isinstance(candidate.session, str):
            legs.append(Leg(name, not_run=candidate.session))
            continue
        leg = tallies[name].leg(name, own, previous[name] or REFERENCE, margin, labelled=labelled)
        flips = tuple(dc.replace(flip, name=samples.name(flip.index)) for flip in leg.flips)
        legs.append(dc.replace(leg, flips=pictured(flips, picture)))
    return ParityReport(
        samples.source,
        len(samples),
        crops,
        labelled,
        *own.accuracy(labelled=labelled),
        tuple(legs),
        non_finite=own.non_finite,
        average=average,
        margin=margin,
        rotated=samples.rotated,
    )


@dc.dataclass(frozen=True, slots=True)
class _Run:
    """Sessions by name that answer the same images."""

    sessions: Mapping[str, Session]
    outputs: Sequence[TensorSpec]
    feed: Feed
    average: Average
    labels: compare.Classes | None

    def answers(self, identities: Mapping[str, str], kept: Kept | None) -> Iterator[tuple[range, dict[str, Answers]]]:
        """Batch by batch what each session says; those with an identity are asked for what is not kept yet."""

        def batches() -> Iterator[tuple[range, Chunk]]:
            for images in self.feed.chunks():
                chunk = Chunk(images, {}, {}, {})
                if kept is not None and identities:
                    chunk = Chunk.look_up(images, self.feed.digest(images), identities, kept.store)
                for batch in self.feed.batches(images):
                    yield batch, chunk

        def read(batch: tuple[range, Chunk]) -> Input | None:
            images, chunk = batch
            return self.feed.inputs(images) if self.sessions.keys() - chunk.known.keys() else None

        for (images, chunk), x in ahead(read, batches(), min(cores(), _MOST_THREADS)):
            yield images, {name: self._answer(name, images, chunk, x) for name in self.sessions}
            if kept is not None and images.stop == chunk.images.stop:
                chunk.keep(kept.store)

    def _answer(self, name: str, images: range, chunk: Chunk, x: Input | None) -> Answers:
        crops, start = self.feed.crops, images.start - chunk.images.start
        further: dict[str, compare.Scores] = {}
        if name in chunk.known:
            logits = chunk.known[name][start * crops : (start + len(images)) * crops]
        else:
            assert x is not None
            logits, further = self._ask(name, x)
        if name in chunk.fresh:
            chunk.fresh[name].append(logits)
        truth = None if self.labels is None else self.labels[images.start : images.stop]
        rows = np.asarray(logits, np.float64).reshape(len(images), crops, -1)
        return Answers.of(rows, self.average, truth, further)

    def _ask(self, name: str, x: Input) -> tuple[compare.Scores, dict[str, compare.Scores]]:
        """Logits of all crops, and the further outputs of the centre crops."""
        session, crops = self.sessions[name], self.feed.crops
        source = session.inputs[0]
        pieces: dict[str, list[compare.Scores]] = {spec.name: [] for spec in self.outputs}
        for start in range(0, len(x), self.feed.rows):
            piece = x[start : start + self.feed.rows].astype(source.dtype, copy=False)
            found = session.run({source.name: piece})
            for spec in self.outputs:
                out = found[spec.name]
                if out.shape != (len(piece), *spec.shape):
                    raise ToolError(f"{name}: output {spec.name!r} has shape {out.shape} for a batch of {len(piece)}")
                chosen = slice(None) if spec is self.outputs[0] else slice((CENTRE[crops] - start) % crops, None, crops)
                pieces[spec.name].append(cast(compare.Scores, out[chosen]))
        first, *others = ((spec.name, np.concatenate(pieces[spec.name])) for spec in self.outputs)
        return first[1], dict(others)


def _previous(candidates: Mapping[str, Candidate], name: str) -> str:
    """The nearest before a candidate that ran; empty for the original."""
    before = candidates[name].previous
    while before and isinstance(candidates[before].session, str):
        before = candidates[before].previous
    return before
