"""Cases for the LRN kernels, and the judge of their answers: float64, and what a type's one rounding allows."""

from __future__ import annotations

import dataclasses as dc
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import reference
from .formats import FORMATS, Array, Format
from .reference import Doubles

SIZES = (1, 3, 5, 7, 9, 11, 13, 15)
CHANNELS = (1, 3, 5, 96, 192, 256, 257)
SIDES = (1, 13, 27, 55)
POOL = (3, 3, 2, 2, 0, 0, 0, 0)
"""AlexNet's: kernel, strides, pads."""
POOLS = (
    POOL,
    (3, 3, 2, 2, 0, 0, 1, 1),
    (3, 3, 1, 1, 1, 1, 1, 1),
    (2, 3, 1, 2, 1, 1, 0, 2),
    (1, 1, 1, 1, 0, 0, 0, 0),
    (1, 5, 3, 1, 0, 4, 0, 2),
)
_MOST_ELEMENTS = 300_000

Bools = npt.NDArray[np.bool_]
Answer = tuple[Array, Array]
"""What a kernel gave, and what it wrote into the channels that pad the last vector."""


class Kernels(Protocol):
    """What runs the kernels: :class:`~dlcv_deploy.plugin.host.HostKernels`, or a device's."""

    def run(
        self,
        x: Array,
        form: Format,
        *,
        size: int,
        alpha: float,
        beta: float,
        bias: float,
        scales: tuple[float, float] = ...,
        pool: Sequence[int] | None = ...,
    ) -> Answer | None:
        """The answer; None where the kernel refused."""
        ...


@dc.dataclass(frozen=True)
class Case:
    """One call of a kernel; ``pool`` is kernel (2), strides (2) and pads (4), ``spread`` that of drawn floats."""

    form: str
    size: int
    shape: tuple[int, int, int, int]
    pool: tuple[int, ...] | None = None
    alpha: float = 1e-2
    beta: float = 0.75
    bias: float = 2.0
    scales: tuple[float, float] = (0.05, 0.04)
    spread: float = 20.0

    @property
    def format(self) -> Format:
        """Its type and layout."""
        return FORMATS[self.form]

    @property
    def attributes(self) -> dict[str, Any]:
        """Those of the normalization."""
        return {"size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.bias}

    def __str__(self) -> str:
        return f"{self.form}, window {self.size}, {'x'.join(map(str, self.shape))}, pool {self.pool}"

    def drawn(self, seed: int = 0) -> Array:
        """An input."""
        rng = np.random.default_rng(seed)
        if self.format.dtype == "int8":
            return rng.integers(-128, 128, self.shape).astype(np.int8)
        drawn: Array = (rng.standard_normal(self.shape) * self.spread).astype(self.format.dtype)
        return drawn

    def run(self, kernels: Kernels, x: Array, **how: Any) -> Answer | None:  # noqa: ANN401
        """What the kernels give."""
        return kernels.run(x, self.format, **self.attributes, scales=self.scales, pool=self.pool, **how)

    def wanted(self, x: Array) -> Doubles:
        """The answer in float64, before it is rounded or quantized."""
        wide = x.astype(np.float64)
        if self.format.dtype == "int8":
            wide *= np.float64(np.float32(self.scales[0]))
        alpha, beta, bias = (float(np.float32(v)) for v in (self.alpha, self.beta, self.bias))
        found = reference.lrn(wide, self.size, alpha, beta, bias)
        return found if self.pool is None else reference.max_pool(found, self.pool[:2], self.pool[2:4], self.pool[4:])


def fits(case: Case) -> bool:
    """Whether the pool's window fits into the map."""
    p, (h, w) = case.pool, case.shape[2:]
    return p is None or (h + p[4] + p[6] >= p[0] and w + p[5] + p[7] >= p[1])


def covering() -> Iterator[Case]:
    """Every window with every number of channels, in every format, with and without a pool; sides and batch in turn."""
    sides = itertools.cycle(itertools.product(SIDES, SIDES))
    batches, pools = itertools.cycle((1, 2, 3)), itertools.cycle(POOLS)
    for form, size, channels in itertools.product(FORMATS, SIZES, CHANNELS):
        for fused in (False, True):
            batch, (h, w) = next(batches), next(sides)
            if batch * channels * h * w > _MOST_ELEMENTS:
                batch = 1
            case = Case(form, size, (batch, channels, h, w), next(pools) if fused else None)
            yield case if fits(case) else dc.replace(case, pool=(1, 1, 1, 1, 0, 0, 0, 0))


def crossed() -> Iterator[Case]:
    """All that the covering ones are drawn from."""
    for form, size, channels, h, w, batch, pool in itertools.product(
        FORMATS, SIZES, CHANNELS, SIDES, SIDES, (1, 2, 3), (None, POOL)
    ):
        case = Case(form, size, (batch, channels, h, w), pool)
        if fits(case):
            yield case


def complaint(case: Case, x: Array, answer: Answer | None, slack: float = 1.0) -> str:
    """What is wrong with a kernel's answer; empty where it is right.

    Args:
        case: What was computed.
        x: From what.
        answer: The kernel's.
        slack: Widens the bound on float32's own rounding, for devices whose square roots are approximate.
    """
    if answer is None:
        return f"{case}: refused"
    y, padding = answer
    if np.any(padding):
        return f"{case}: {np.count_nonzero(padding)} values other than 0 in the padding channels"
    want = case.wanted(x)
    if y.shape != want.shape:
        return f"{case}: shape {y.shape}, not {want.shape}"
    bound = slack * (3 + abs(case.beta)) * 2e-7  # relative; sums of 15 squares, a power, a product
    wrong = _JUDGES[case.format.dtype](y, want, bound, case.scales[1])
    if wrong.any():
        at = tuple(int(i[0]) for i in np.nonzero(wrong))
        return f"{case}: {np.count_nonzero(wrong)} of {y.size} wrong, at {at} {y[at]} for {want[at]}"
    return ""


def _wrong_float(y: Array, want: Doubles, bound: float, scale: float) -> Bools:
    wide = y.astype(np.float64)
    same = (wide == want) | (np.isnan(wide) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        wrong: Bools = ~(same | (np.abs(wide - want) <= bound * np.abs(want) + 1e-45))
    return wrong


def _wrong_half(y: Array, want: Doubles, bound: float, scale: float) -> Bools:
    """Half a step of float16, and what float32 lost before."""
    with np.errstate(over="ignore", invalid="ignore"):
        exact = want.astype(np.float16)
        step = np.maximum(np.spacing(np.abs(exact)), np.spacing(np.abs(y.astype(np.float16)))).astype(np.float64)
        near = np.abs(y.astype(np.float64) - want) <= step / 2 + bound * np.abs(want)
        top = (np.abs(want) > 65519 * (1 - bound)) & (np.abs(want) < 65520 * (1 + bound))
    wrong: Bools = ~((y == exact) | (np.isnan(y) & np.isnan(exact)) | top | near)
    return wrong


def _wrong_int8(y: Array, want: Doubles, bound: float, scale: float) -> Bools:
    """Half a step, and what float32 lost before; NaN is the lowest."""
    with np.errstate(invalid="ignore"):
        steps = np.clip(want / np.float64(np.float32(scale)), -128, 127)
        near = np.abs(y.astype(np.float64) - steps) <= 0.5 + bound * np.abs(steps)
    wrong: Bools = ~(near | (np.isnan(want) & (y == -128)))
    return wrong


_JUDGES: dict[str, Callable[[Array, Doubles, float, float], Bools]] = {
    "float32": _wrong_float,
    "float16": _wrong_half,
    "int8": _wrong_int8,
}
