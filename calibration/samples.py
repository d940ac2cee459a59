"""Images to calibrate and measure on, read one at a time: from a folder, an .npz, or CIFAR-10."""

from __future__ import annotations

import dataclasses as dc
import hashlib
from pathlib import Path
from typing import Protocol

from ..digest import digest, sha256, sha256_file
from ..errors import ArtifactError, SpecError
from ..progress import Progress, silent
from . import images, labels
from .drawn import drawn, noise
from .given import from_images
from .npz import Labels, Pixels, read_npz

__all__ = ["Samples", "contents", "drawn", "from_images", "noise", "open_samples"]

CIFAR10 = {"cifar10": "test", "cifar10-train": "train"}


class Samples(Protocol):
    """Images by number, none of them kept. May be read from several threads."""

    @property
    def source(self) -> str:
        """What they are, in words for reports; no path."""
        ...

    @property
    def labels(self) -> Labels | None:
        """A class index for each image, or ``None`` where they are not known."""
        ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the images that could not be read and are not among these."""
        ...

    @property
    def random(self) -> bool:
        """Whether these are noise, that says nothing about a network's ranges."""
        ...

    @property
    def rotated(self) -> int:
        """How many of them have an EXIF orientation, which is ignored."""
        ...

    def __len__(self) -> int: ...

    def turned(self, i: int) -> bool:
        """Whether image ``i`` has an EXIF orientation, which is ignored."""
        ...

    def image(self, i: int) -> Pixels:
        """Image ``i``: (H, W, 3), RGB.

        Raises:
            ArtifactError: It cannot be read; names it.
        """
        ...

    def name(self, i: int) -> str:
        """What to call image ``i`` in a report."""
        ...

    def digest_of(self, i: int) -> str:
        """Digest of image ``i`` alone: of its pixels, or of its file; neither its name nor its label counts.

        Raises:
            ArtifactError: It cannot be read; names it.
        """
        ...

    def sha256(self) -> str:
        """Digest of all that is in them: names, content, labels."""
        ...


def contents(samples: Samples) -> str:
    """Digest of the images alone, whatever their order, names and labels.

    Raises:
        ArtifactError: An image cannot be read; names it.
    """
    return digest(images=sorted(samples.digest_of(i) for i in range(len(samples))))


def open_samples(
    source: Path | str,
    *,
    count: int | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    classes: tuple[str, ...] | None = None,
    truth: Path | None = None,
    progress: Progress = silent,
) -> Samples:
    """Images from a folder (all below it), an .npz (``images``, ``labels``), "cifar10" or "cifar10-train".

    CIFAR-10 is taken from the folder that DLCV_DATA names, else from the cache, else from its official archive.

    Args:
        source: A path, or one of the two words; "./cifar10" is a folder of that name.
        count: How many, chosen by the seed; where there are fewer, all of them, which ``source`` then says.
        skip_bad: Leave images out that cannot be read (others take their place): each is decoded once beforehand.
            Otherwise only headers are looked at beforehand, and a damaged image is an error, at the latest when read.
        seed: The same seed chooses the same images, and the first of them whatever the count.
        classes: The network's class names, to tell labels by; see ``labels.find``.
        truth: A file with the labels of a folder's images; see ``labels.find``.
        progress: Told of each image looked at, and of bytes downloaded.

    Raises:
        SpecError: No such place, nothing in it, or not a kind of source.
        ArtifactError: An image, an .npz or a labels.csv is damaged; names it.
    """
    if count is not None and count < 1:
        raise SpecError(f"cannot take {count} images", fix="give 1 or more, or leave the count out for all")
    if truth is not None and (source in CIFAR10 or not Path(source).expanduser().is_dir()):
        raise SpecError(f"{truth.name} is to label a folder of images, and {source} is none", fix="leave --truth out")
    if source in CIFAR10:
        from .cifar10 import load

        split = CIFAR10[str(source)]
        return _array(*load(split, progress), split, f"CIFAR-10 {split} images", count, seed)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, count, skip_bad, seed, classes, truth, progress)
    if not path.exists():
        raise SpecError(f"there is no {source}", fix="give a folder of images, an .npz, or cifar10")
    if path.suffix.lower() != ".npz":
        raise SpecError(f"{path.name} is neither a folder of images nor an .npz", fix="give the folder it is in")
    return _array(*read_npz(path), "images", f"images of {path.name}", count, seed)


@dc.dataclass(frozen=True, slots=True, eq=False)
class _Array:
    """Some images of an array, which is shared and not copied."""

    pixels: Pixels = dc.field(repr=False)
    chosen: tuple[int, ...] = dc.field(repr=False)
    labels: Labels | None
    prefix: str
    source: str
    skipped: tuple[str, ...] = ()
    random: bool = False
    rotated: int = 0

    def __len__(self) -> int:
        return len(self.chosen)

    def turned(self, i: int) -> bool:
        return False

    def image(self, i: int) -> Pixels:
        image: Pixels = self.pixels[self.chosen[i]]
        return image

    def name(self, i: int) -> str:
        return f"{self.prefix}[{self.chosen[i]}]"

    def digest_of(self, i: int) -> str:
        return sha256(self.image(i).tobytes())

    def sha256(self) -> str:
        return digest_all(self)


@dc.dataclass(frozen=True, slots=True, eq=False)
class _Folder:
    """Some image files of a folder."""

    folder: Path
    names: tuple[str, ...] = dc.field(repr=False)
    labels: Labels | None
    source: str
    skipped: tuple[str, ...] = ()
    turns: frozenset[str] = dc.field(default=frozenset(), repr=False)
    random: bool = False

    @property
    def rotated(self) -> int:
        return len(self.turns)

    def __len__(self) -> int:
        return len(self.names)

    def turned(self, i: int) -> bool:
        return self.names[i] in self.turns

    def image(self, i: int) -> Pixels:
        return images.decode(self.folder / self.names[i], self.names[i])

    def name(self, i: int) -> str:
        return self.names[i]

    def digest_of(self, i: int) -> str:
        try:
            return sha256_file(self.folder / self.names[i])
        except OSError as e:
            raise ArtifactError(f"image {self.names[i]} cannot be read: {e.strerror}") from e

    def sha256(self) -> str:
        return digest_all(self)


def digest_all(samples: Samples) -> str:
    """Digest of names, content and labels of all images."""
    h = hashlib.sha256()
    for i in range(len(samples)):
        label = -1 if samples.labels is None else int(samples.labels[i])
        h.update(digest(name=samples.name(i), content=samples.digest_of(i), label=label).encode())
    return h.hexdigest()


def _array(pixels: Pixels, truth: Labels | None, prefix: str, what: str, count: int | None, seed: int) -> Samples:
    pixels.flags.writeable = False
    order = _order([f"{prefix}[{i}]" for i in range(len(pixels))], count, seed)[:count]
    chosen = None if truth is None else truth[order]
    return _Array(pixels, tuple(order), chosen, prefix, _words(what, len(order), len(pixels), count))


def _folder(
    folder: Path,
    count: int | None,
    skip_bad: bool,
    seed: int,
    classes: tuple[str, ...] | None,
    truth: Path | None,
    progress: Progress,
) -> Samples:
    where = folder.resolve().name or "the root folder"
    names = images.find(folder)
    if not names:
        raise SpecError(f"no images in {where}", fix=f"give a folder with files {', '.join(images.SUFFIXES)}")
    known = labels.find(folder, names, classes, truth)
    order = _order(names, count, seed)
    chosen: list[int] = []
    skipped: list[str] = []
    turns: set[str] = set()
    with progress("look at images", min(len(order), count or len(order))) as advance:
        for i in order:
            if len(chosen) == count:
                break
            try:
                if images.check(folder / names[i], names[i], whole=skip_bad):
                    turns.add(names[i])
            except ArtifactError:
                if not skip_bad:
                    raise
                skipped.append(names[i])
                continue
            chosen.append(i)
            advance(1)
    if not chosen:
        raise ArtifactError(f"none of the {len(names)} images in {where} can be read", fix="look at the files")
    what = f"images of the folder {where}" + (f", {len(skipped)} skipped as unreadable" if skipped else "")
    return _Folder(
        folder,
        tuple(names[i] for i in chosen),
        None if known is None else known[chosen],
        _words(what, len(chosen), len(names), count),
        tuple(skipped),
        frozenset(turns),
    )


def _order(names: list[str] | tuple[str, ...], count: int | None, seed: int) -> list[int]:
    """Numbers of all the images: as they stand, or shuffled by the seed, alike on every machine and with any NumPy."""
    if count is None:
        return list(range(len(names)))
    return sorted(range(len(names)), key=lambda i: hashlib.sha256(f"{seed}:{names[i]}".encode()).digest())


def _words(what: str, taken: int, there: int, count: int | None) -> str:
    if count is not None and count > taken:
        return f"all {taken} {what} ({count} were asked for)"
    return f"{taken} of {there} {what}" if taken < there else f"{taken} {what}"
