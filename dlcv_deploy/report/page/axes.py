"""From figures to places on a drawing: linear and logarithmic scales, and ticks that people would choose."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Iterable, Sequence

_MOST = 12


@dc.dataclass(frozen=True, slots=True)
class Scale:
    """Maps ``lo`` to the place ``a`` and ``hi`` to ``b``; what is beyond them, to the nearer end."""

    lo: float
    hi: float
    a: float
    b: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a figure; NaN is where ``lo`` is."""
        if math.isnan(value):
            return self.a
        value = min(max(value, self.lo), self.hi)
        if self.log:
            part = math.log(value / self.lo) / math.log(self.hi / self.lo)
        else:
            part = (value - self.lo) / (self.hi - self.lo)
        return self.a + part * (self.b - self.a)

    def ticks(self, about: int = 5, *, whole: bool = False) -> tuple[float, ...]:
        """Round figures within the scale, about so many; of things that are counted, ``whole`` ones."""
        if self.log and self.hi / self.lo >= 5:
            return self._log_ticks(about)
        rough = (self.hi - self.lo) / max(1, about)
        unit = 10.0 ** math.floor(math.log10(rough))
        step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough * (1 - 1e-9))
        step = max(step, 1.0) if whole else step
        first = math.ceil(self.lo / step - 1e-9)
        last = math.floor(self.hi / step + 1e-9)
        return tuple(round(i * step, 12) + 0.0 for i in range(first, min(last, first + _MOST) + 1))

    def _log_ticks(self, about: int) -> tuple[float, ...]:
        first, last = math.floor(math.log10(self.lo)), math.ceil(math.log10(self.hi))
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [m * 10.0**e for e in range(first, last + 1) for m in steps]
            found = [tick for tick in found if self.lo * (1 - 1e-9) <= tick <= self.hi * (1 + 1e-9)]
            if len(found) <= about + 2:
                break
        return tuple(found[:: max(1, -(-len(found) // (about + 2)))])


_LARGEST = 1e100
"""From here on figures are damaged, and differences of them overflow; below its inverse, ratios do."""


def finite(values: Iterable[float | None]) -> list[float]:
    """Those that are figures, of a size that a scale can hold."""
    return [value for value in values if value is not None and abs(value) < _LARGEST]


def scale(
    values: Iterable[float | None], a: float, b: float, *, log: bool = False, zero: bool = False, pad: float = 0.04
) -> Scale:
    """A scale on which all finite values have a place, with a margin; one value, or none, gets room around it.

    Args:
        values: The figures; a logarithmic scale leaves out those that are not above zero.
        a: The place of the least.
        b: The place of the greatest.
        log: Logarithmic, where there are values for it.
        zero: Whether zero is on a linear scale too.
        pad: The margin at either end, as a share of the extent; none at zero.
    """
    found = finite(values)
    if log and (above := [value for value in found if value > 1 / _LARGEST]):
        lo, hi = min(above), max(above)
        wide = (hi / lo) ** pad if hi / lo > 1.2 else 1.2
        return Scale(lo / wide, hi * wide, a, b, log=True)
    lo, hi = (min(found), max(found)) if found else (0.0, 1.0)
    if zero:
        lo, hi = min(lo, 0.0), max(hi, 0.0)
    if hi - lo <= 1e-9 * max(abs(lo), abs(hi)):
        room = abs(lo) / 10 or 1.0
        return Scale(0.0 if zero and lo >= 0 else lo - room, hi + room, a, b)
    room = pad * (hi - lo)
    return Scale(lo if zero and lo == 0 else lo - room, hi if zero and hi == 0 else hi + room, a, b)


def tick_text(value: float) -> str:
    """A tick's figure, as short as it can be."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.6f}".rstrip("0").rstrip(".") or "0"


def thinned(values: Sequence[float], most: int) -> Sequence[float]:
    """At most so many of the values, evenly, the last among them."""
    step = max(1, -(-len(values) // most))
    return values[::-1][::step][::-1]
