"""Images that Python code has at hand, as samples: a sequence as it is, anything else by way of a file."""

from __future__ import annotations

import dataclasses as dc
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..atomic import nameless
from ..digest import digest
from ..errors import ArtifactError, SpecError

Pixels = npt.NDArray[np.uint8]


@dc.dataclass(frozen=True, eq=False)
class Given:
    """Images by number, without labels; ``read`` gives one, checked already."""

    read: Callable[[int], Pixels] = dc.field(repr=False)
    count: int
    source: str
    labels: None = None
    skipped: tuple[str, ...] = ()
    random: bool = False
    rotated: int = 0

    def __len__(self) -> int:
        return self.count

    def turned(self, i: int) -> bool:
        """Never: arrays have no EXIF data."""
        return False

    def image(self, i: int) -> Pixels:
        """Image ``i``: (H, W, 3), RGB."""
        return self.read(range(self.count)[i])

    def name(self, i: int) -> str:
        """What to call image ``i``."""
        return _name(i)

    def digest_of(self, i: int) -> str:
        """Digest of the pixels of image ``i``."""
        image = self.image(i)
        return digest(shape=image.shape, pixels=image.tobytes())

    def sha256(self) -> str:
        """Digest of all pixels, in their order."""
        return digest(images=[self.digest_of(i) for i in range(self.count)])


def from_images(images: Iterable[npt.ArrayLike], *, source: str = "images from Python") -> Given:
    """Images to calibrate or measure on, out of a program.

    A sequence (``len(images)`` and ``images[i]``: a list, an array of shape (N, H, W, 3), a data set) is read image by
    image when it is needed, by one thread at a time, and more than once. Anything else is gone through once, at once,
    into a file without a name in the folder for temporary files (TMPDIR), which goes with the samples or the process.

    Args:
        images: RGB, uint8 of shape (height, width, 3) each; sizes may differ. Pillow's images will do, in mode RGB.
        source: What they are, in words for reports.

    Raises:
        SpecError: No images, or one that is something else; names it. Of a sequence, when it is read.
        ArtifactError: The file cannot be written.
    """
    if isinstance(images, Mapping):
        raise SpecError("a mapping has no order of images", fix="give from_images its values()")
    if hasattr(images, "__len__") and hasattr(images, "__getitem__"):
        return _sequence(images, source)
    places: list[tuple[int, tuple[int, ...]]] = []
    with _kept():
        file = nameless()
    try:
        end = 0
        for i, image in enumerate(images):
            pixels = _checked(image, i)
            with _kept():
                file.write(pixels.tobytes())
            places.append((end, pixels.shape))
            end += pixels.size
        with _kept():
            file.flush()
        count = _some(len(places))
    except BaseException:
        file.close()
        raise

    def read(i: int) -> Pixels:
        at, shape = places[i]
        data = os.pread(file.fileno(), int(np.prod(shape)), at)
        if len(data) != np.prod(shape):
            raise ArtifactError(f"{_name(i)} cannot be read back", fix="look at the disk that TMPDIR is on")
        return np.frombuffer(data, np.uint8).reshape(shape)

    samples = Given(read, count, source)
    weakref.finalize(samples, file.close)
    return samples


@contextmanager
def _kept() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise ArtifactError(
            f"the images cannot be kept in {tempfile.gettempdir()}: {e.strerror or e}",
            fix="free space there, or set TMPDIR to a folder with more of it",
        ) from e


def _sequence(images: Any, source: str) -> Given:  # noqa: ANN401 - anything with a length and numbered items
    turn = threading.Lock()

    def read(i: int) -> Pixels:
        with turn:
            return _checked(images[i], i)

    return Given(read, _some(len(images)), source)


def _some(count: int) -> int:
    if not count:
        raise SpecError("there are no images in what was given", fix="give at least one")
    return count


def _checked(image: npt.ArrayLike, i: int) -> Pixels:
    fix = "give RGB images, uint8 of shape (height, width, 3)"
    try:
        pixels = np.asarray(image)
    except ValueError as e:
        raise SpecError(f"{_name(i)} is no array: {e}", fix=fix) from e
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise SpecError(f"{_name(i)} is {pixels.dtype} of shape {pixels.shape}", fix=fix)
    return pixels


def _name(i: int) -> str:
    return f"images[{i}]"
