"""A folder of photographs: which files are images, and how each becomes RGB."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError

if TYPE_CHECKING:
    from PIL.Image import Image as Opened

Pixels = npt.NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError, struct.error, zlib.error)
"""What Pillow raises on damaged files; its decoders leak each of these."""
_ORIENTATION = 0x0112
_SKIP = "replace it, or leave such files out with --skip-bad"


def find(folder: Path) -> tuple[str, ...]:
    """Paths of the image files below a folder, relative to it with /, sorted; nothing hidden, no links to folders.

    Raises:
        ArtifactError: A name that is not UTF-8, which no report could say.
    """
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        path = Path(where).relative_to(folder)
        found += [
            (path / name).as_posix() for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    for name in found:
        if not name.isascii() and name != name.encode("utf-8", "replace").decode():
            raise ArtifactError(f"the name of the image {name!a} is not UTF-8", fix="rename it")
    return tuple(sorted(found))


def check(path: Path, name: str, *, whole: bool = False) -> bool:
    """Read the header of an image, which is cheap and finds files that are no images; or the ``whole`` of it.

    The header alone does not tell images that are cut off.

    Returns:
        Whether its EXIF data ask for it to be turned or mirrored before it is shown, which ``decode`` does not do.

    Raises:
        ArtifactError: It is no image of a known format; names it.
    """
    from PIL import Image

    with _opened(path, name) as file:
        if whole:
            _rgb(file)
        # not the file's own getexif, which decodes all of a PNG to find data behind the pixels
        return Image.Image.getexif(file).get(_ORIENTATION, 1) in range(2, 9)


def decode(path: Path | BinaryIO, name: str) -> Pixels:
    """An image as RGB: (H, W, 3), as it is stored: an EXIF orientation is ignored, as the papers' pipelines do.

    Grayscale, palette and CMYK are converted, an alpha channel is dropped, 16 bits become 8 by their upper half. Of an
    animation it is the first frame.

    Args:
        path: Where it is; or its content, opened.
        name: What to call it in errors.

    Raises:
        ArtifactError: It is damaged, cut off, too large to be a photograph, or no image of a known format; names it.

    Source: torchvision's ``pil_loader``, which knows no EXIF either.
    """
    with _opened(path, name) as file:
        return _rgb(file)


def converted(image: Opened, name: str) -> Pixels:
    """An image that Pillow holds, or has opened, as ``decode`` would give it.

    Raises:
        ArtifactError: As ``decode``.
    """
    with _named(name, name):
        return _rgb(image)


@contextmanager
def _opened(path: Path | BinaryIO, name: str) -> Iterator[Opened]:
    """An image file whose every failure, until it is closed, is one error."""
    from PIL import Image

    with _named(name, path), Image.open(path, formats=_FORMATS) as file:
        yield file


@contextmanager
def _named(name: str, path: Path | BinaryIO | str) -> Iterator[None]:
    """Pillow's failures as one error."""
    from PIL import Image

    try:
        yield
    except (*_BROKEN, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise ArtifactError(f"image {name} cannot be read: {_words(e, path)}", fix=_SKIP) from e


def _rgb(image: Opened) -> Pixels:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits; Pillow would clip them at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    elif image.mode == "P":  # by way of RGBA, where transparency is not lost with a warning
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _words(error: Exception, path: Path | BinaryIO | str) -> str:
    """The library's words without the path, which may be anywhere."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words.replace(repr(str(path)), "the file").replace(str(path), "the file") or type(error).__name__
