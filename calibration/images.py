"""A folder of photographs: which files are images, and how each becomes RGB."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError

Pixels = npt.NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError, struct.error, zlib.error)
"""What Pillow raises on damaged files; its decoders leak each of these."""
_SKIP = "replace it, or leave such files out with --skip-bad"


def find(folder: Path) -> tuple[str, ...]:
    """Paths of the image files below a folder, relative to it with /, sorted; nothing hidden, no links to folders."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        path = Path(where).relative_to(folder)
        found += [
            (path / name).as_posix() for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return tuple(sorted(found))


def check(path: Path, name: str) -> None:
    """Read the header of an image, which is cheap and finds files that are no images; not those that are cut off.

    Raises:
        ArtifactError: It is no image of a known format; names it.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS):
            pass
    except (*_BROKEN, Image.DecompressionBombError) as e:
        raise ArtifactError(f"image {name} cannot be read: {_words(e, path)}", fix=_SKIP) from e


def decode(path: Path, name: str) -> Pixels:
    """An image as RGB: (H, W, 3), turned upright as its EXIF orientation says.

    Grayscale, palette and CMYK are converted, an alpha channel is dropped, 16 bits become 8 by their upper half.

    Args:
        path: Where it is.
        name: What to call it in errors.

    Raises:
        ArtifactError: It is damaged, cut off, or no image of a known format; names it.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits; Pillow would clip them at 255
                image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
            elif image.mode == "P":  # by way of RGBA, where transparency is not lost with a warning
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except (*_BROKEN, Image.DecompressionBombError) as e:
        raise ArtifactError(f"image {name} cannot be read: {_words(e, path)}", fix=_SKIP) from e


def _words(error: Exception, path: Path) -> str:
    """The library's words without the path, which may be anywhere."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words.replace(repr(str(path)), "the file").replace(str(path), "the file") or type(error).__name__
