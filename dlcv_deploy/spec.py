"""What a build is asked for, checked before anything is done."""

from __future__ import annotations

import dataclasses as dc
import difflib
from pathlib import Path

from .errors import SpecError
from .types import PRECISIONS, Precision, Preprocess


@dc.dataclass(frozen=True, slots=True)
class BuildSpec:
    """One build. ``None`` and empty fields leave the choice to the catalogue, or to what this machine has.

    ``weights`` is a file or "random"; ``calib`` a folder, an .npz, a table or "random"; ``data`` labelled images to
    measure parity on; ``outputs`` the tensors to answer with, logits first; ``sm`` GPU architectures as 89 for SM 8.9.
    """

    model: str
    precision: Precision = "fp32"
    weights: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    calib: str | None = None
    calib_count: int = 128
    method: str = "mse"
    data: str | None = None
    outputs: tuple[str, ...] = ("logits",)
    targets: tuple[str, ...] = ("auto",)
    sm: tuple[int, ...] = ()
    output: Path | None = None
    force: bool = False
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SpecError(f"no precision {self.precision!r}", fix=f"one of {', '.join(PRECISIONS)}")
        if self.precision != "int8" and self.calib is not None:
            raise SpecError(
                f"--calib is for INT8, and this build is {self.precision}", fix="add --int8, or leave --calib out"
            )
        if self.calib_count < 1:
            raise SpecError(f"cannot calibrate on {self.calib_count} images", fix="--calib-count 1 or more")
        if self.sm and not {"tensorrt", "tensorrt_rtx"} & set(self.targets):
            raise SpecError("--sm chooses GPU architectures, and no target is a GPU's", fix="add --target tensorrt_rtx")

    def preprocess(self, default: Preprocess) -> Preprocess:
        """The catalogue's preprocessing with ``mean`` and ``std`` in their place, where they are given."""
        return dc.replace(default, mean=self.mean or default.mean, std=self.std or default.std)

    def path(self) -> Path:
        """Where the bundle goes."""
        return self.output or Path(f"{self.model}-{self.precision}.dlcv")


def nearest(what: str, name: str, known: tuple[str, ...]) -> SpecError:
    """The error for an unknown name, with the names that look like it."""
    near = difflib.get_close_matches(name, known, 3, 0.6)
    return SpecError(
        f"no {what} {name!r}", fix=f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(known)}"
    )
