"""The usual mistakes of preprocessing, tried one by one and together: which of them explain a tensor."""

from __future__ import annotations

import dataclasses as dc
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..types import Preprocess
from .contract import Distance, Input, Pixels
from .crops import canvas, crops

Floats = npt.NDArray[np.float64]
Make = Callable[[Pixels], npt.NDArray[np.generic]]
NHWC = "channels last: the tensor is N x S x S x 3, and the contract's N x 3 x S x S"
_PLACES = 1024
"""Pixels of an image by which mistakes are told apart; what is chosen is then held against all of them."""
_NEAR, _NEAR_LEVELS = 1.25, 0.05
"""Explanations as good as the best, by factor and grey levels: of these the one with the fewest mistakes is taken."""


@dc.dataclass(frozen=True, slots=True)
class Explanation:
    """What makes the contract's pixels those of a tensor, in words, and what difference is left then."""

    mistakes: tuple[str, ...]
    left: Distance


@dc.dataclass(frozen=True, slots=True)
class _Values:
    """Pixels x, 0 to 255, as values ``slope`` x + ``offset``, for each place among the channels; ``said`` in words."""

    said: str
    slope: Floats
    offset: Floats


@dc.dataclass(frozen=True, slots=True)
class _Way:
    """One way to a tensor, by names that are empty where it is the contract's."""

    shape: str
    read: str
    order: str
    values: str

    def weight(self) -> int:
        """How many mistakes it has; values by a fit, which always come near, count as two."""
        return len(self.words()) + (self.values == _FITTED)

    def words(self) -> tuple[str, ...]:
        return tuple(word for word in (self.shape, self.read, self.order, self.values) if word)


def explain(images: Sequence[Pixels], found: Input, pre: Preprocess) -> Explanation | None:
    """The mistakes that explain a tensor best, at most one each of geometry, layout, order of channels and values.

    Args:
        images: What the tensor was made of: a few, of which some are to be reduced, and with something to see in them.
        found: (N, 3, S, S), finite.
        pre: The contract.

    Returns:
        ``None`` where no mistake explains at least half of the mean difference.
    """
    shapes = {said: np.stack([_planes(make(image)) for image in images]) for said, make in _geometries(pre)}
    step = max(1, pre.size**2 // _PLACES)
    tried: list[tuple[float, _Way]] = []
    for (read, layout), (order, (turn_x, turn_u)) in itertools.product(_READS.items(), _ORDERS.items()):
        u = _pixels(layout(found))[:, ::turn_u, ::step]
        for shape, planes in shapes.items():
            x = planes[:, ::turn_x, ::step]
            for values in (*_values(pre), _fitted(u, x)):
                left = _left(u, x, values)
                error = np.inf if left is None else float(np.abs(left).mean())
                known = _FITTED if values.said.startswith(_FITTED) else values.said
                tried.append((error, _Way(shape, read, order, known)))
    contract, best = tried[0][0], min(error for error, _ in tried)
    near = [(way.weight(), error, i) for i, (error, way) in enumerate(tried) if error <= _NEAR * best + _NEAR_LEVELS]
    count, error, i = min(near)
    if not count or error > contract / 2:
        return None
    return _whole(tried[i][1], shapes, found, pre)


def _whole(way: _Way, shapes: dict[str, Floats], found: Input, pre: Preprocess) -> Explanation | None:
    """An explanation held against every pixel."""
    turn_x, turn_u = _ORDERS[way.order]
    u, x = _pixels(_READS[way.read](found))[:, ::turn_u], shapes[way.shape][:, ::turn_x]
    values = _fitted(u, x) if way.values == _FITTED else next(v for v in _values(pre) if v.said == way.values)
    left = _left(u, x, values)
    if left is None:
        return None
    levels = np.abs(left)[:, ::turn_x]
    (red, green, blue), means = levels.max((0, 2)).tolist(), levels.mean((0, 2)).tolist()
    words = dc.replace(way, values=values.said).words()
    return Explanation(words, Distance(len(found), (red, green, blue), (means[0], means[1], means[2])))


# layout and order of channels


def _as_is(found: Input) -> Input:
    return found


def _reshaped(found: Input) -> Input:
    count, channels, height, width = found.shape
    return np.asarray(np.ascontiguousarray(found).reshape(count, height, width, channels).transpose(0, 3, 1, 2))


_READS: dict[str, Callable[[Input], Input]] = {
    "": _as_is,
    "channels last, reshaped to channels first and not transposed": _reshaped,
}
_ORDERS = {
    "": (1, 1),
    "channels swapped (BGR), with R's mean and std for B and B's for R": (-1, 1),
    "channels swapped (BGR)": (1, -1),
}
"""Steps through the channels of pixels, and of the tensor."""


# values

_FITTED = "another mean or std"


def _values(pre: Preprocess) -> Iterator[_Values]:
    """Ways of turning pixels into values, the contract's first."""
    mean, std, none, one = np.array(pre.mean), np.array(pre.std), np.zeros(3), np.ones(3)
    yield _Values("", 1 / (255 * std), -mean / std)
    yield _Values("/ 255 is missing", 1 / std, -mean / std)
    yield _Values("mean and std are missing", one / 255, none)
    yield _Values("/ 255, mean and std are missing", one, none)
    yield _Values("/ 255 and std are missing", one, -255 * mean)
    yield _Values("the mean is missing", 1 / (255 * std), none)
    yield _Values("the std is missing", one / 255, -mean)
    yield _Values("scaled to -1 to 1, in place of mean and std", one / 127.5, -one)


def _fitted(u: Floats, x: Floats) -> _Values:
    """Slope and offset by least squares, a channel each, and the mean and std that these mean."""
    mean_x, mean_u = x.mean((0, 2)), u.mean((0, 2))
    dx, du = x - mean_x[:, None], u - mean_u[:, None]
    spread = (dx * dx).sum((0, 2))
    slope = np.divide((dx * du).sum((0, 2)), spread, out=np.zeros(3), where=spread > 0)
    offset = mean_u - slope * mean_x
    said = _FITTED
    if (slope > 0).all():
        mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (-offset / slope / 255, 1 / (255 * slope)))
        said = f"{_FITTED}: as if the mean were ({mean}) and the std ({std})"
    return _Values(said, slope, offset)


def _left(u: Floats, x: Floats, values: _Values) -> Floats | None:
    """What is left of a tensor (N, 3, P), in grey levels, once pixels explain it; ``None`` where they do not at all."""
    if not (values.slope > 0).all():
        return None
    return np.asarray((u - values.offset[:, None]) / values.slope[:, None] - x)


# geometry


def _geometries(pre: Preprocess) -> Iterator[tuple[str, Make]]:
    """Ways from an image to its crop (S, S, 3), the contract's first."""

    def ours(image: Pixels) -> Pixels:
        return np.asarray(crops(canvas(image, pre), pre, 1)[0])

    yield "", ours
    yield "mirrored left to right", lambda image: ours(image)[:, ::-1]
    yield "upside down", lambda image: ours(image)[::-1]
    yield "rows and columns swapped", lambda image: ours(image).swapaxes(0, 1)
    for (up, dy), (left, dx) in itertools.product(
        (("1 up", -1), ("", 0), ("1 down", 1)), (("1 left", -1), ("", 0), ("1 right", 1))
    ):
        if said := " and ".join(filter(None, (up, left))):
            yield f"the crop is off by {said}", functools.partial(_shifted, pre=pre, dy=dy, dx=dx)
    if pre.fit == "pad":
        return
    for name in ("nearest", "bicubic", "lanczos", "box"):
        yield f"scaled by {name} in place of bilinear", functools.partial(_cut, pre=pre, how=name)
    yield "scaled without antialiasing", functools.partial(_cut, pre=pre, how="")
    yield "squashed to a square, whatever the sides were", functools.partial(_squashed, pre=pre, side=pre.canvas)
    if pre.size < pre.canvas:
        yield (
            f"squashed to {pre.size} x {pre.size}, without a crop",
            functools.partial(_squashed, pre=pre, side=pre.size),
        )
        small = dc.replace(pre, canvas=pre.size)
        yield f"the shorter side scaled to {pre.size} in place of {pre.canvas}", lambda image: canvas(image, small)


def _planes(crop: npt.NDArray[np.generic]) -> Floats:
    """A crop (S, S, 3) as (3, S S)."""
    return np.asarray(crop.transpose(2, 0, 1), np.float64).reshape(3, -1)


def _pixels(found: Input) -> Floats:
    """A tensor (N, 3, S, S) as (N, 3, S S)."""
    return found.astype(np.float64).reshape(len(found), 3, -1)


def _shifted(image: Pixels, pre: Preprocess, dy: int, dx: int) -> npt.NDArray[np.generic]:
    """The centre crop taken a pixel off; past the canvas its border goes on."""
    wide = np.pad(canvas(image, pre), ((1, 1), (1, 1), (0, 0)), "edge")
    moved = wide[1 + dy : 1 + dy + pre.canvas, 1 + dx : 1 + dx + pre.canvas]
    return np.asarray(crops(np.ascontiguousarray(moved), pre, 1)[0])


def _cut(image: Pixels, pre: Preprocess, how: str) -> npt.NDArray[np.generic]:
    """The contract's crop of an image that was scaled another way."""
    height, width = image.shape[:2]
    long = int(pre.canvas * max(height, width) / min(height, width))
    to = (long, pre.canvas) if width <= height else (pre.canvas, long)
    y, x = (round((length - pre.canvas) / 2) + round((pre.canvas - pre.size) / 2) for length in to)
    return _scaled(image, to, how)[y : y + pre.size, x : x + pre.size]


def _squashed(image: Pixels, pre: Preprocess, side: int) -> npt.NDArray[np.generic]:
    start = round((side - pre.size) / 2)
    return _scaled(image, (side, side), "bilinear")[start : start + pre.size, start : start + pre.size]


def _scaled(image: Pixels, to: tuple[int, int], how: str) -> npt.NDArray[np.generic]:
    """An image at (height, width) by one of Pillow's filters; by "" in float, between the four nearest pixels."""
    if image.shape[:2] == to:
        return image
    if how:
        from PIL import Image

        method = Image.Resampling[how.upper()]
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(to[::-1], method))
    out: Floats = image.astype(np.float64)
    for axis, length in enumerate(to):
        at = ((np.arange(length) + 0.5) * image.shape[axis] / length - 0.5).clip(0, image.shape[axis] - 1)
        low = np.floor(at).astype(np.int64)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, image.shape[axis] - 1)
        out = np.asarray(out.take(low, axis) * (1 - part) + out.take(high, axis) * part)
    return out
