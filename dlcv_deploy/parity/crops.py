"""From a photograph to a network's input: a square canvas, one crop or ten of it, numbers."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import SpecError
from ..types import Preprocess

Pixels = npt.NDArray[np.uint8]
Input = npt.NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)
COUNTS = (1, 10)
CENTRE = {1: 0, 10: 4}
"""Which one of so many crops is the centre, unmirrored."""


def canvas(image: Pixels, pre: Preprocess) -> Pixels:
    """The square that crops are cut from; pixel for pixel what torchvision's Resize and CenterCrop give a PIL image.

    Args:
        image: (H, W, 3), RGB.
        pre: Its ``fit`` says how; ``canvas`` is the side C in pixels.

    Returns:
        (C, C, 3).

    Raises:
        SpecError: not an RGB image of bytes; or, for "pad", one that is not ``size`` x ``size``.

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks" (2012),
    section 2 (shorter side to 256, centre square); torchvision's ``_compute_resized_output_size`` for the rounding.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise SpecError(
            f"an image is {image.dtype} of shape {image.shape}",
            fix="give RGB images, uint8 of shape (height, width, 3)",
        )
    return _pad(image, pre) if pre.fit == "pad" else _resize(image, pre.canvas)


def crops(canvas: Pixels, pre: Preprocess, count: int) -> Pixels:
    """One crop, the centre; or ten, in the order of torchvision's TenCrop.

    The ten are top left, top right, bottom left, bottom right and centre, then the same five of the mirrored canvas:
    the sixth is thus the mirror image of the second.

    Args:
        canvas: (C, C, 3).
        pre: Its ``size`` is the side S of a crop in pixels.
        count: 1 or 10.

    Returns:
        (count, S, S, 3), C-contiguous.

    Raises:
        SpecError: another count, or a canvas that is not ``pre.canvas`` on both sides.

    Source: Krizhevsky et al. (2012), section 4.1; torchvision's ``five_crop``, ``ten_crop`` and ``center_crop``.
    """
    return np.stack(_views(canvas, pre, count))


def fill(out: Input, canvas: Pixels, pre: Preprocess, count: int) -> None:
    """Put ``to_input(crops(canvas, pre, count), pre)`` into ``out``, bit for bit, in a quarter of the time.

    The canvas is normalized once, and each crop of it is copied once.

    Args:
        out: (count, 3, S, S), C-contiguous.
        canvas: (C, C, 3).
        pre: As for both.
        count: 1 or 10.

    Raises:
        SpecError: As ``crops``.
    """
    planes = to_input(canvas[None], pre)[0]
    for crop, view in zip(out, _views(planes.transpose(1, 2, 0), pre, count), strict=True):
        crop[...] = view.transpose(2, 0, 1)


def to_input(pixels: Pixels, pre: Preprocess) -> Input:
    """Crops as a network's input: (x / 255 - mean) / std, computed as x * scale + bias in float32.

    Scale 1 / (255 std) and bias -mean / std are rounded from float64 once a channel. With mean in [0, 1] the result
    is within 2**-22 / std of the exact value, and within 2**-20 / std of ToTensor and Normalize (their own rounding
    included): at most 5e-6 for ImageNet's std, 2,000 times less than half a grey level.

    Args:
        pixels: (N, S, S, 3).
        pre: Its ``mean`` and ``std``, RGB in [0, 1].

    Returns:
        (N, 3, S, S), C-contiguous.
    """
    mean, std = np.array(pre.mean, np.float64), np.array(pre.std, np.float64)
    scale, bias = (1 / (255 * std)).astype(np.float32)[:, None, None], (-mean / std).astype(np.float32)[:, None, None]
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    out: Input = np.multiply(planes, scale, dtype=np.float32)
    out += bias
    return out


def _views(canvas: npt.NDArray[Number], pre: Preprocess, count: int) -> list[npt.NDArray[Number]]:
    """The crops of a canvas of any numbers, uncopied; the mirrored ones run backwards."""
    if count not in COUNTS:
        raise SpecError(f"cannot cut {count} crops of an image", fix="--crops 1 for the centre, or --crops 10")
    if canvas.shape != (pre.canvas, pre.canvas, 3):
        raise SpecError(f"a canvas of shape {canvas.shape} is not {pre.canvas} x {pre.canvas}, RGB")
    size, end, middle = pre.size, pre.canvas - pre.size, _centre(pre.canvas, pre.size)
    if count == 1:
        return [canvas[middle : middle + size, middle : middle + size]]
    corners = ((0, 0), (0, end), (end, 0), (end, end), (middle, middle))
    return [side[y : y + size, x : x + size] for side in (canvas, canvas[:, ::-1]) for y, x in corners]


def _centre(length: int, size: int) -> int:
    """Where a centred crop starts; halves go to the even neighbour, as in torchvision."""
    return round((length - size) / 2)


def _pad(image: Pixels, pre: Preprocess) -> Pixels:
    """Black around the image, which stands where the centre crop is cut."""
    if image.shape[:2] != (pre.size, pre.size):
        height, width = image.shape[:2]
        raise SpecError(
            f"an image is {width} x {height} pixels, and this network takes {pre.size} x {pre.size} unscaled",
            fix=f"scale the images to {pre.size} x {pre.size} as those the network was trained on",
        )
    out, start = np.zeros((pre.canvas, pre.canvas, 3), np.uint8), _centre(pre.canvas, pre.size)
    out[start : start + pre.size, start : start + pre.size] = image
    return out


def _resize(image: Pixels, side: int) -> Pixels:
    """Shorter side to ``side`` (PIL's bilinear filter, which widens with the reduction), then the centre square."""
    height, width = image.shape[:2]
    short, long = min(height, width), int(side * max(height, width) / min(height, width))
    if short != side:
        from PIL import Image

        to = (side, long) if width <= height else (long, side)
        image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(to, Image.Resampling.BILINEAR))
    y, x = _centre(image.shape[0], side), _centre(image.shape[1], side)
    return np.ascontiguousarray(image[y : y + side, x : x + side])
