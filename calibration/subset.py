"""Parts of the calibration images, chosen by what is in them: the same whatever the images' order and names."""

from __future__ import annotations

import dataclasses as dc
import hashlib
from collections.abc import Iterable

import numpy as np

from ..digest import digest
from ..errors import SpecError
from .npz import Labels, Pixels
from .samples import Samples


@dc.dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Some images of a source, in the order of ``indices``."""

    whole: Samples
    indices: tuple[int, ...] = dc.field(repr=False)
    source: str
    skipped: tuple[str, ...] = ()

    @property
    def random(self) -> bool:
        """Whether they are noise."""
        return self.whole.random

    @property
    def rotated(self) -> int:
        """How many of them have an EXIF orientation."""
        return sum(map(self.turned, range(len(self)))) if self.whole.rotated else 0

    @property
    def labels(self) -> Labels | None:
        """Their labels."""
        return None if self.whole.labels is None else self.whole.labels[np.asarray(self.indices, np.int64)]

    def __len__(self) -> int:
        return len(self.indices)

    def turned(self, i: int) -> bool:
        """Whether image ``i`` of the subset has an EXIF orientation."""
        return self.whole.turned(self.indices[i])

    def image(self, i: int) -> Pixels:
        """Image ``i`` of the subset."""
        return self.whole.image(self.indices[i])

    def name(self, i: int) -> str:
        """The name of image ``i``."""
        return self.whole.name(self.indices[i])

    def digest_of(self, i: int) -> str:
        """Digest of what is in image ``i``."""
        return self.whole.digest_of(self.indices[i])

    def sha256(self) -> str:
        """Digest of all that is in them: names, content, labels."""
        labels = [-1] * len(self) if self.labels is None else [int(label) for label in self.labels]
        return digest(images=[(self.name(i), self.digest_of(i), labels[i]) for i in range(len(self))])


def held_out(samples: Samples, share: float = 0.25, *, seed: int = 0) -> tuple[Subset, Subset]:
    """Images to calibrate on, and images to judge by what came of it.

    Copies of one image go to the same side. Which side follows from the content and the seed alone, and each side is
    in an order that follows from the content too.

    Args:
        samples: At least two different images.
        share: Of the images for judging, above 0 and below 1; at least one image, and never all.
        seed: Another one splits otherwise.

    Returns:
        The calibration part and the held-out part.

    Raises:
        SpecError: A share out of range, or all images alike.
        ArtifactError: An image cannot be read.
    """
    if not 0 < share < 1:
        raise SpecError(f"cannot hold {share} of the images out", fix="give a share above 0 and below 1: 0.25")
    copies = _by_content(samples)
    if len(copies) < 2:
        raise SpecError(
            f"{samples.source}: {len(copies)} different image cannot be split into some to calibrate on and some to "
            "judge by",
            fix="give more images; some hundred are usual",
        )
    drawn = _drawn(copies, f"held out:{seed}")
    count = min(max(1, round(share * len(drawn))), len(drawn) - 1)
    kept, out = (_subset(samples, copies, part) for part in (drawn[count:], drawn[:count]))
    return (
        dc.replace(kept, source=f"{len(kept)} of: {samples.source}"),
        dc.replace(out, source=f"{len(out)} held out of: {samples.source}"),
    )


def draws(samples: Samples, k: int, share: float = 0.5, *, seed: int = 0) -> tuple[Subset, ...]:
    """``k`` random subsets, each drawn by itself from all images; by their content, as ``held_out`` does.

    Raises:
        SpecError: Fewer than two subsets, a share out of range, or all images alike.
        ArtifactError: An image cannot be read.
    """
    if k < 2:
        raise SpecError(f"{k} subset shows no spread", fix="--robustness 5, or any number from 2 on")
    if not 0 < share < 1:
        raise SpecError(f"cannot draw {share} of the images", fix="give a share above 0 and below 1: 0.5")
    copies = _by_content(samples)
    if len(copies) < 2:
        raise SpecError(f"{samples.source}: subsets of {len(copies)} different image are all alike", fix="give more")
    count = max(1, int(share * len(copies)))
    found = []
    for n in range(1, k + 1):
        subset = _subset(samples, copies, _drawn(copies, f"draw {n}:{seed}")[:count])
        found.append(dc.replace(subset, source=f"draw {n} of {k}, {len(subset)} of: {samples.source}"))
    return tuple(found)


def first_by_content(samples: Samples, count: int) -> Subset:
    """The first ``count`` images in the order of their digests, or all: the same whatever their own order."""
    indices = sorted(range(len(samples)), key=samples.digest_of)[:count]
    return Subset(samples, tuple(indices), f"{len(indices)} of: {samples.source}", samples.skipped)


def _by_content(samples: Samples) -> dict[str, list[int]]:
    """Numbers of the images by the digest of what is in them, copies in the order of their names."""
    copies: dict[str, list[int]] = {}
    for i in range(len(samples)):
        copies.setdefault(samples.digest_of(i), []).append(i)
    return {content: sorted(copies[content], key=samples.name) for content in sorted(copies)}


def _drawn(contents: Iterable[str], salt: str) -> list[str]:
    """All of them, shuffled alike on every machine and with any NumPy."""
    return sorted(contents, key=lambda content: hashlib.sha256(f"{salt}:{content}".encode()).digest())


def _subset(samples: Samples, copies: dict[str, list[int]], contents: Iterable[str]) -> Subset:
    indices = tuple(i for content in sorted(contents) for i in copies[content])
    return Subset(samples, indices, samples.source, samples.skipped)
