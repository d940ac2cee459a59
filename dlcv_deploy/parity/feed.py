"""Images as sessions take them: read, cut and normalized in threads, ahead of their use."""

from __future__ import annotations

import dataclasses as dc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..digest import digest
from ..errors import SpecError
from ..types import BATCH, Preprocess
from .crops import COUNTS, Input, canvas, fill

K = TypeVar("K")
T = TypeVar("T")
_BATCH_PIXELS = 1 << 19
"""Pixels a session takes at once by default: ten crops of 224 x 224."""
_CHUNK_PIXELS = 1 << 26
_CHUNK_IMAGES = 1000
"""Answers are kept in chunks of at most so many pixels (133 images of ten crops of 224 x 224) and images."""


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

    @property
    def rotated(self) -> int:
        """How many have an EXIF orientation, which is ignored."""
        ...

    def __len__(self) -> int: ...

    def image(self, i: int) -> npt.NDArray[np.uint8]:
        """Image ``i``: (H, W, 3), RGB. Called from other threads."""
        ...

    def name(self, i: int) -> str:
        """What to call image ``i`` in a report."""
        ...

    def digest_of(self, i: int) -> str:
        """Digest of what is in image ``i``."""
        ...


@dc.dataclass(frozen=True, slots=True)
class Feed:
    """How images are put before sessions: ``images`` are read at a time, and ``rows`` crops of them run at once."""

    samples: Samples
    pre: Preprocess
    crops: int
    images: int
    rows: int

    @classmethod
    def of(cls, samples: Samples, pre: Preprocess, crops: int, images: int | None, rows: int | None) -> Feed:
        """With what is usual in place of ``None``.

        Raises:
            SpecError: A number that cannot be.
        """
        if rows is None:
            rows = rows_at_once(pre)
        if crops not in COUNTS or rows < 1 or (images is not None and images < 1):
            raise SpecError(f"cannot evaluate {crops} crops, {images} images at a time, {rows} crops a run")
        return cls(samples, pre, crops, images or max(1, rows // crops), rows)

    def chunks(self) -> Iterator[range]:
        """Images whose answers are kept together, a whole number of batches but for the last."""
        batches = max(1, min(_CHUNK_IMAGES, _CHUNK_PIXELS // (self.crops * self.pre.size**2)) // self.images)
        return _parts(range(len(self.samples)), batches * self.images)

    def batches(self, chunk: range) -> Iterator[range]:
        """Images read at a time."""
        return _parts(chunk, self.images)

    def inputs(self, images: range) -> Input:
        """(images x crops, 3, S, S); the crops of one image after those of another.

        Raises:
            ArtifactError: An image cannot be read; names it.
            SpecError: An image is not of the network's size, where that is asked for.
        """
        out = np.empty((len(images), self.crops, 3, self.pre.size, self.pre.size), np.float32)
        for rows, i in zip(out, images, strict=True):
            fill(rows, canvas(self.samples.image(i), self.pre), self.pre, self.crops)
        return out.reshape(-1, *out.shape[2:])

    def digest(self, images: range) -> str:
        """Of all that decides what sessions are fed, and in which batches."""
        return digest(
            images=[self.samples.digest_of(i) for i in images],
            preprocess=self.pre,
            sizes=[self.crops, self.images, self.rows],
            pillow=version("pillow"),
        )


def rows_at_once(pre: Preprocess) -> int:
    """The crops that a session takes at once by default."""
    return max(1, min(BATCH.hi, _BATCH_PIXELS // pre.size**2))


def labels_of(samples: Samples, classes: int) -> npt.NDArray[np.int64] | None:
    """The labels of images, where they have any.

    Raises:
        SpecError: No images, or labels that are not of so many classes.
    """
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


def ahead(make: Callable[[K], T], keys: Iterable[K], threads: int) -> Iterator[tuple[K, T]]:
    """Each key with what is made of it, in order; ``threads`` of them are made while one is used, and no more."""
    waiting: deque[tuple[K, Future[T]]] = deque()
    pool = ThreadPoolExecutor(threads, "read")
    try:
        for key in keys:
            waiting.append((key, pool.submit(make, key)))
            if len(waiting) > threads:
                first, made = waiting.popleft()
                yield first, made.result()
        while waiting:
            first, made = waiting.popleft()
            yield first, made.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _parts(images: range, size: int) -> Iterator[range]:
    return (images[at : at + size] for at in range(0, len(images), size))
