"""The preprocessing contract: its steps in words, golden inputs to hold another pipeline against, and how far it is."""

from __future__ import annotations

import dataclasses as dc
import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..types import Preprocess
from .crops import canvas, crops, to_input
from .values import Loss

Pixels = npt.NDArray[np.uint8]
Input = npt.NDArray[np.float32]
FOLDER = "golden"
INPUTS, LOGITS = f"{FOLDER}/inputs.npy", f"{FOLDER}/logits.npy"
EQUAL_LEVELS = 255 * 2.0**-20
"""Grey levels that roundings of the arithmetic explain: see ``crops.to_input``."""
TOLERANCE_LEVELS = 1.0
"""The greatest difference that passes: pixels rounded otherwise in one step, and nothing else."""


@dc.dataclass(frozen=True, slots=True)
class Distance:
    """How far tensors are from the contract's, in grey levels of 255 after undoing its normalization: R, G, B each."""

    images: int
    max_levels: tuple[float, float, float]
    mean_levels: tuple[float, float, float]

    @property
    def greatest(self) -> float:
        """The greatest difference of all."""
        return max(self.max_levels)

    @property
    def mean(self) -> float:
        """The mean difference of all values."""
        return sum(self.mean_levels) / 3

    @property
    def equal(self) -> bool:
        """Whether nothing but the rounding of floating point is between the two."""
        return self._below(EQUAL_LEVELS)

    @property
    def within(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self._below(TOLERANCE_LEVELS)

    def _below(self, levels: float) -> bool:
        return all(value <= levels for value in self.max_levels)  # NaN is not

    def merge(self, other: Distance) -> Distance:
        """That of these and of other images together."""
        images = self.images + other.images
        means = zip(self.mean_levels, other.mean_levels, strict=True)
        return Distance(
            images,
            _three(np.maximum(self.max_levels, other.max_levels)),
            _three(np.array([(self.images * a + other.images * b) / images for a, b in means])),
        )


@dc.dataclass(frozen=True, slots=True)
class Cost:
    """What other pixels cost one network: top-1 in percent on the contract's and on theirs, and the images that flip.

    Accuracies and the loss are ``None`` without labels; ``not_run`` says why it could not be run.
    """

    name: str
    top1_contract: float | None = None
    top1_pixels: float | None = None
    loss: Loss | None = None
    flips: int | None = None
    not_run: str = ""


@dc.dataclass(frozen=True, slots=True)
class PixelsReport:
    """A pipeline's tensors beside the contract's, for the same images.

    ``mistakes`` are what explains the difference best, in words, and ``left`` is what remains once they are allowed
    for; empty and ``None`` where there is nothing to explain, or nothing explains it.
    """

    source: str
    images: int
    distance: Distance
    mistakes: tuple[str, ...] = ()
    left: Distance | None = None
    costs: tuple[Cost, ...] = ()
    tolerance_levels: float = TOLERANCE_LEVELS

    @property
    def passed(self) -> bool:
        """Whether the tensors are the contract's: in its layout, and as near as its tolerance asks."""
        return self.distance.within and not self.mistakes


def steps(pre: Preprocess) -> tuple[str, ...]:
    """The exact steps from an image file to a network's input, in words."""
    whole = [f"take images of {pre.size} x {pre.size} pixels as they are, unscaled"]
    if pre.fit == "resize":
        side = pre.canvas
        whole = [
            f"scale the shorter side to {side} pixels and the longer one to floor({side} * longer / shorter), by "
            f"Pillow's BILINEAR, which antialiases when it reduces, rounded to 8 bits; a side of {side} stays as it is",
            f"cut the {side} x {side} in the centre: from round((length - {side}) / 2), halves to even",
            f"cut the {pre.size} x {pre.size} in the centre of that likewise",
        ]
    numbers = "({}, {}, {})".format
    return (
        "decode to RGB, 8 bits a channel, without alpha, and as it is stored: an EXIF orientation is ignored",
        *whole,
        f"(x / 255 - mean) / std in float32, with the RGB mean {numbers(*pre.mean)} and std {numbers(*pre.std)}",
        f"channels first, red, green, blue: N x 3 x {pre.size} x {pre.size}",
    )


def golden_sizes(pre: Preprocess) -> tuple[tuple[int, int], ...]:
    """Heights and widths of golden images: to enlarge, to reduce, upright and lying, and one to leave as it is."""
    if pre.fit == "pad":
        return ((pre.size, pre.size),) * 4
    side = pre.canvas
    return ((37, 53), (side, side), (side * 5 // 4 + 1, side * 3 // 2), (side * 7 // 6 + 1, max(1, side * 4 // 5)))


def inputs_of(images: Sequence[Pixels], pre: Preprocess) -> Input:
    """The contract's tensor: one centre crop of each image, (N, 3, S, S)."""
    return to_input(np.concatenate([crops(canvas(image, pre), pre, 1) for image in images]), pre)


def golden_files(images: Sequence[Pixels], inputs: Input, logits: npt.NDArray[np.float32]) -> dict[str, bytes]:
    """What a bundle holds of the contract: images as PNG, their inputs, and the original's logits for these."""
    from PIL import Image

    files = {}
    for i, image in enumerate(images):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        height, width = image.shape[:2]
        files[f"{FOLDER}/{i}-{width}x{height}.png"] = out.getvalue()
    for name, array in ((INPUTS, inputs), (LOGITS, logits)):
        out = io.BytesIO()
        np.save(out, np.ascontiguousarray(array), allow_pickle=False)
        files[name] = out.getvalue()
    return files


def golden_images(files: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the golden images among a bundle's files, in the order of the tensors."""
    return tuple(sorted(name for name in files if name.startswith(f"{FOLDER}/") and name.endswith(".png")))


def distance(contract: Input, found: Input, pre: Preprocess) -> Distance:
    """How far tensors (N, 3, S, S) are from the contract's; in float64, NaN where there is NaN."""
    scale = 255 * np.array(pre.std, np.float64)
    largest, total = np.zeros(3), np.zeros(3)
    for ours, theirs in zip(contract, found, strict=True):  # image by image: little memory
        levels = np.abs(np.asarray(theirs, np.float64) - ours).reshape(3, -1) * scale[:, None]
        largest, total = np.maximum(largest, levels.max(1)), total + levels.mean(1)
    return Distance(len(contract), _three(largest), _three(total / len(contract)))


def _three(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue
