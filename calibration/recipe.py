"""How an INT8 graph comes about: the method for ranges and the corrections, one by one and in presets."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping

from ..errors import SpecError
from .methods import resolve


@dc.dataclass(frozen=True, slots=True)
class Recipe:
    """A method for ranges, and which corrections are made.

    ``pixels`` quantizes the image in its own 256 levels; ``equalize`` scales channels so that each uses the range of
    its tensor (cross-layer equalization); ``bias`` corrects the mean of every layer's output, ``norm`` its spread too
    (batch-norm re-estimation); ``rounding`` chooses the rounding of weights by the layer's output (AdaRound's aim);
    ``sums`` is whether residual sums take an INT8 operand.
    """

    method: str = "mse"
    pixels: bool = True
    equalize: bool = False
    bias: bool = False
    norm: bool = False
    rounding: bool = False
    sums: bool = True

    def __post_init__(self) -> None:
        resolve(self.method)

    @property
    def corrects(self) -> bool:
        """Whether layers are corrected one after another, which takes images again."""
        return self.bias or self.norm or self.rounding


PRESETS: Mapping[str, Recipe] = {
    "fast": Recipe(),
    "default": Recipe(equalize=True, bias=True),
    "best": Recipe(equalize=True, bias=True, norm=True, rounding=True, sums=False),
}
SWITCHES = ("pixels", "equalize", "bias", "norm", "rounding", "sums")


def recipe(quality: str = "default", method: str | None = None, switches: Mapping[str, bool] | None = None) -> Recipe:
    """A preset with another method, and with corrections switched on or off.

    Raises:
        SpecError: No such preset, method or correction.
    """
    if quality not in PRESETS:
        raise SpecError(f"no quality {quality!r}", fix=f"one of {', '.join(PRESETS)}")
    chosen = PRESETS[quality]
    if unknown := [name for name in switches or {} if name not in SWITCHES]:
        raise SpecError(f"no correction {unknown[0]!r}", fix=f"one of {', '.join(SWITCHES)}")
    return dc.replace(chosen, method=method or chosen.method, **(switches or {}))
