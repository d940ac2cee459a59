"""Small pictures of the images that flipped."""

from __future__ import annotations

import base64
import dataclasses as dc
import io
from collections.abc import Callable

from .crops import Pixels
from .values import Change, Flip

SIDE = 96
"""Pixels of the longer side, at most."""
SHOWN = 32
"""Flips of one leg that have a thumbnail."""
_ORDER: tuple[Change, ...] = ("right to wrong", "wrong to right", "wrong to wrong", "changed")
_QUALITY = 75


def pictured(flips: tuple[Flip, ...], picture: Callable[[int], str]) -> tuple[Flip, ...]:
    """The flips in their order, up to ``SHOWN`` of them with a thumbnail: those from right to wrong first.

    Args:
        flips: Of one leg.
        picture: Gives an image's thumbnail by its number.
    """
    first = sorted(flips, key=lambda flip: _ORDER.index(flip.change))[:SHOWN]
    shown = {flip.index: picture(flip.index) for flip in first}
    return tuple(dc.replace(flip, thumbnail=shown.get(flip.index, "")) for flip in flips)


def thumbnail(pixels: Pixels) -> str:
    """An image scaled down to ``SIDE``, as the base64 of a JPEG; one that is small already, of a PNG, unchanged."""
    from PIL import Image

    image, file = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
        image.save(file, "JPEG", quality=_QUALITY)
    else:
        image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
