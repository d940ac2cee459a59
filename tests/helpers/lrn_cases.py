"""Cases for the LRN kernels, and the judge of their answers: float64, and where that overflows otherwise, PyTorch."""

import dataclasses as dc
import itertools

import numpy as np

from dlcv_deploy.plugin import reference
from dlcv_deploy.plugin.formats import FORMATS

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


@dc.dataclass(frozen=True)
class Case:
    """One call of a kernel."""

    form: str
    size: int
    shape: tuple
    pool: tuple | None = None
    alpha: float = 1e-2
    beta: float = 0.75
    bias: float = 2.0
    scales: tuple = (0.05, 0.04)
    spread: float = 20.0

    @property
    def format(self):
        return FORMATS[self.form]

    @property
    def attributes(self):
        return {"size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.bias}

    def __str__(self):
        return f"{self.form}, window {self.size}, {'x'.join(map(str, self.shape))}, pool {self.pool}"

    def drawn(self, seed=0):
        rng = np.random.default_rng(seed)
        if self.format.dtype == "int8":
            return rng.integers(-128, 128, self.shape).astype(np.int8)
        return (rng.standard_normal(self.shape) * self.spread).astype(self.format.dtype)

    def run(self, kernels, x, **how):
        return kernels.run(x, self.format, **self.attributes, scales=self.scales, pool=self.pool, **how)

    def wanted(self, x):
        """The answer in float64, before it is rounded or quantized."""
        wide = x.astype(np.float64)
        if self.format.dtype == "int8":
            wide *= np.float64(np.float32(self.scales[0]))
        numbers = {k: v if k == "size" else float(np.float32(v)) for k, v in self.attributes.items()}
        found = reference.lrn(wide, **numbers)
        return found if self.pool is None else pooled(found, self.pool)


def pooled(found, pool):
    return reference.max_pool(found, pool[:2], pool[2:4], pool[4:])


def fits(case):
    """Whether the pool's window fits into the map."""
    p, (h, w) = case.pool, case.shape[2:]
    return p is None or (h + p[4] + p[6] >= p[0] and w + p[5] + p[7] >= p[1])


def covering():
    """Every window with every number of channels, in every format, with and without a pool; sides and batch in turn."""
    sides = itertools.cycle(itertools.product(SIDES, SIDES))
    batches, pools = itertools.cycle((1, 2, 3)), itertools.cycle(POOLS)
    for form, size, channels in itertools.product(FORMATS, SIZES, CHANNELS):
        for fused in (False, True):
            shape = (next(batches), channels, *next(sides))
            if np.prod(shape) > 300_000:
                shape = (1, *shape[1:])
            case = Case(form, size, shape, next(pools) if fused else None)
            yield case if fits(case) else dc.replace(case, pool=(1, 1, 1, 1, 0, 0, 0, 0))


def crossed():
    """All that the covering ones are drawn from."""
    for form, size, channels, h, w, batch, pool in itertools.product(
        FORMATS, SIZES, CHANNELS, SIDES, SIDES, (1, 2, 3), (None, POOL)
    ):
        case = Case(form, size, (batch, channels, h, w), pool)
        if fits(case):
            yield case


def complaint(case, x, answer, slack=1.0):
    """What is wrong with a kernel's answer; empty where it is right.

    ``slack`` widens the bound on float32's own rounding, for devices whose square roots are approximate.
    """
    y, padding = answer
    if not np.array_equal(padding, np.zeros_like(padding)):
        return f"{case}: {np.count_nonzero(padding)} values other than 0 in the padding channels"
    want = case.wanted(x)
    if y.shape != want.shape:
        return f"{case}: shape {y.shape}, not {want.shape}"
    bound = slack * (3 + abs(case.beta)) * 2e-7  # relative; sums of 15 squares, a power, a product
    wrong = {"float32": _wrong_float, "float16": _wrong_half, "int8": _wrong_int8}[case.format.dtype](
        y, want, bound, case
    )
    if wrong.any():
        at = tuple(int(i[0]) for i in np.nonzero(wrong))
        return f"{case}: {np.count_nonzero(wrong)} of {y.size} wrong, at {at} {y[at]} for {want[at]}"
    return ""


def _wrong_float(y, want, bound, case):
    y = y.astype(np.float64)
    same = (y == want) | (np.isnan(y) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        return ~(same | (np.abs(y - want) <= bound * np.abs(want) + 1e-45))


def _wrong_half(y, want, bound, case):
    """Half a step of float16, and what float32 lost before."""
    with np.errstate(over="ignore", invalid="ignore"):
        exact = want.astype(np.float16)
        step = np.maximum(np.spacing(np.abs(exact)), np.spacing(np.abs(y))).astype(np.float64)
        near = np.abs(y.astype(np.float64) - want) <= step / 2 + bound * np.abs(want)
        top = (np.abs(want) > 65519 * (1 - bound)) & (np.abs(want) < 65520 * (1 + bound))
    same = (y == exact) | (np.isnan(y) & np.isnan(exact)) | top
    return ~(same | near)


def _wrong_int8(y, want, bound, case):
    """Half a step, and what float32 lost before; NaN is the lowest."""
    with np.errstate(invalid="ignore"):
        steps = np.clip(want / np.float64(np.float32(case.scales[1])), -128, 127)
        near = np.abs(y.astype(np.float64) - steps) <= 0.5 + bound * np.abs(steps)
    return ~(near | (np.isnan(want) & (y == -128)))
