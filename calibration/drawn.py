"""Images made up on the spot: drawn ones where no photographs are at hand, and plain noise."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..digest import digest
from ..errors import SpecError

Pixels = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]


@dc.dataclass(frozen=True, slots=True)
class MadeUp:
    """Images that a recipe makes from a seed and a number, each on demand; square, without labels."""

    make: Callable[[np.random.Generator, int], Pixels] = dc.field(repr=False)
    count: int
    size: int
    seed: int
    source: str
    random: bool
    labels: None = None
    skipped: tuple[str, ...] = ()
    rotated: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.size < 1 or self.seed < 0:
            raise SpecError(f"cannot make {self.count} images of {self.size} pixels from seed {self.seed}")

    def __len__(self) -> int:
        return self.count

    def turned(self, i: int) -> bool:
        """Never: they are not photographs."""
        return False

    def image(self, i: int) -> Pixels:
        """Image ``i``: (size, size, 3), RGB."""
        return self.make(np.random.default_rng([self.seed, range(self.count)[i]]), self.size)

    def name(self, i: int) -> str:
        """What to call image ``i``."""
        return f"{'noise' if self.random else 'drawn'}[{range(self.count)[i]}]"

    def digest_of(self, i: int) -> str:
        """Digest of the pixels of image ``i``."""
        return digest(pixels=self.image(i).tobytes())

    def sha256(self) -> str:
        """Digest of all pixels."""
        return digest(**{self.name(i): self.digest_of(i) for i in range(self.count)})


def drawn(count: int, size: int, seed: int = 0) -> MadeUp:
    """Drawn images: colour gradients, waves, shapes and grain, in varied strengths and contrasts.

    Args:
        count: How many.
        size: Side in pixels.
        seed: The same seed draws the same images; image i does not depend on the count.
    """
    return MadeUp(_draw, count, size, seed, f"{count} drawn images (not photographs)", random=False)


def noise(count: int, size: int, seed: int = 0) -> MadeUp:
    """Images of independent, evenly distributed bytes."""
    return MadeUp(_noise, count, size, seed, f"{count} images of random noise", random=True)


def _noise(rng: np.random.Generator, size: int) -> Pixels:
    return rng.integers(0, 256, (size, size, 3), np.uint8)


def _draw(rng: np.random.Generator, size: int) -> Pixels:
    axis = (np.arange(size) + 0.5) / size
    x, y = axis[None, :], axis[:, None]
    picture = _gradient(rng, x, y)
    for _ in range(rng.integers(0, 4)):
        picture += _wave(rng, x, y)[..., None] * rng.uniform(-0.25, 0.25, 3)
    for _ in range(rng.integers(1, 7)):
        cover = _shape(rng, x, y)[..., None] * rng.uniform(0.5, 1)
        picture += cover * (_gradient(rng, x, y) - picture)
    contrast, brightness = rng.uniform(0.3, 1.2), rng.uniform(0.3, 0.7)
    picture = (picture - 0.5) * contrast + brightness
    picture += rng.normal(0, rng.choice([0.0, 0.01, 0.04, 0.1]), picture.shape)
    pixels: Pixels = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def _gradient(rng: np.random.Generator, x: _Floats, y: _Floats) -> _Floats:
    """(size, size, 3): one colour fading into another in some direction."""
    angle = rng.uniform(0, 2 * np.pi)
    share = (0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)).clip(0, 1)[..., None]
    colours: _Floats = (1 - share) * rng.random(3) + share * rng.random(3)
    return colours


def _wave(rng: np.random.Generator, x: _Floats, y: _Floats) -> _Floats:
    """(size, size) in [-1, 1]: stripes, from one to sixteen across the image."""
    angle, stripes = rng.uniform(0, 2 * np.pi), 2 ** rng.uniform(0, 4)
    along = x * np.cos(angle) + y * np.sin(angle)
    wave: _Floats = np.sin(2 * np.pi * (stripes * along + rng.random()))
    return wave


def _shape(rng: np.random.Generator, x: _Floats, y: _Floats) -> _Floats:
    """(size, size) in [0, 1]: an ellipse, a box or a rounded box somewhere, turned, its edge sharp or soft."""
    angle, power = rng.uniform(0, 2 * np.pi), rng.choice([2, 4, 16])
    dx, dy = x - rng.random(), y - rng.random()
    u = np.abs(dx * np.cos(angle) + dy * np.sin(angle)) / rng.uniform(0.05, 0.4)
    v = np.abs(dy * np.cos(angle) - dx * np.sin(angle)) / rng.uniform(0.05, 0.4)
    far = (u**power + v**power) ** (1 / power)
    cover: _Floats = ((1 - far) * rng.choice([4, 30]) + 0.5).clip(0, 1)
    return cover
