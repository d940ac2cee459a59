"""What an application calls an image, as pixels: a path, a file's content, an open file, an array, a Pillow image."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union, cast

import numpy as np

from ..calibration.images import Pixels, converted, decode
from ..errors import ArtifactError, SpecError

if TYPE_CHECKING:
    from PIL.Image import Image as Opened

Picture: TypeAlias = Union[str, "os.PathLike[str]", bytes, BinaryIO, "Opened"]
ImageLike: TypeAlias = Picture | Pixels
_KINDS = "give a path, the bytes of a file, an RGB array (height, width, 3) of uint8, or a Pillow image"
_CONTENT = (bytes, bytearray, memoryview)


def is_one(images: ImageLike | Iterable[ImageLike]) -> bool:
    """Whether this is an image, and not several of them."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return not isinstance(images, Iterable) or isinstance(images, (str, *_CONTENT)) or hasattr(images, "read")


def pixels_of(image: ImageLike | Any, name: str) -> Pixels:  # noqa: ANN401 - what it is, is asked here
    """An image as RGB: (H, W, 3). A file or a Pillow image becomes so as ``calibration.images.decode`` says.

    Args:
        image: One image.
        name: What to call it in errors, where it is no path.

    Raises:
        ArtifactError: A file that is damaged, cut off, too large or absent; names it.
        SpecError: An array that holds no RGB image of bytes, or something that is no image.
    """
    if isinstance(image, np.ndarray):
        return _checked(image)
    try:
        if isinstance(image, str | os.PathLike):
            return decode(Path(image), str(image))
        if isinstance(image, _CONTENT):
            return decode(io.BytesIO(image), name)
        if hasattr(image, "read"):
            return decode(cast(BinaryIO, image), name)
        from PIL import Image

        if isinstance(image, Image.Image):
            return converted(image, name)
    except ArtifactError as e:
        raise ArtifactError(e.what, fix="give another image, or leave it out") from e
    raise SpecError(f"{name} is no image, but of type {type(image).__name__}", fix=_KINDS)


def _checked(image: Pixels) -> Pixels:
    """An array that says of itself why it is no image; its shape is asked for where it is cut."""
    if np.issubdtype(image.dtype, np.floating):
        raise SpecError(
            f"an image is {image.dtype} of shape {image.shape}",
            fix="for values in [0, 1] give (255 * image).round().astype('uint8'); a network's inputs go to run()",
        )
    return image
