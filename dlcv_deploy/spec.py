"""What a build is asked for, checked before anything is done."""

from __future__ import annotations

import dataclasses as dc
import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from .errors import SpecError
from .types import PRECISIONS, Precision, Preprocess

LrnRequest = Literal["native", "plugin", "race"]
Quality = Literal["fast", "default", "best"]
LRN: tuple[LrnRequest, ...] = ("native", "plugin", "race")
"""TensorRT's own local response normalization, this project's plugin, or the faster of both."""


@dc.dataclass(frozen=True, slots=True)
class BuildSpec:
    """One build. ``None`` and empty fields leave the choice to the catalogue, or to what this machine has.

    ``weights`` is a file, the name of a set in the catalogue, or "random"; ``bgr`` says that a file's weights take BGR;
    ``calib`` is a folder, an .npz, a table or "random"; ``data`` labelled images to measure parity on, ``truth`` a file
    with their labels; ``outputs`` the tensors to answer with, logits first; ``sm`` GPU architectures as 89 for SM 8.9;
    ``lrn`` is one of ``LRN``, and ``lrn_library`` the plugin's library, where it is not to be built.

    ``quality`` is how INT8 is calibrated ("default" where nothing is said), ``method`` and ``switches`` change its
    method for ranges and its corrections: see ``calibration.recipe``. ``tournament``, ``robustness`` and ``max_drop``
    are what is tried on held-out images first: see ``calibration.choose``.

    ``allow_partial`` takes engines that run less of the network in INT8 than was asked for.

    ``model`` is a name of the catalogue, or "FILE.py:factory" or "package.module:factory" for a network of the user's
    own; ``input_shape``, channels first, is for those. ``canvas`` is what the shorter side of images is scaled to;
    ``labels`` a file of class names.
    """

    model: str
    precision: Precision = "fp32"
    weights: str | None = None
    bgr: bool = False
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    input_shape: tuple[int, int, int] | None = None
    canvas: int | None = None
    labels: Path | None = None
    calib: str | None = None
    calib_count: int = 128
    quality: Quality | None = None
    method: str | None = None
    switches: Mapping[str, bool] = dc.field(default_factory=dict)
    tournament: bool = False
    robustness: int | None = None
    max_drop: float | None = None
    data: str | None = None
    truth: Path | None = None
    outputs: tuple[str, ...] = ("logits",)
    targets: tuple[str, ...] = ("auto",)
    sm: tuple[int, ...] = ()
    lrn: LrnRequest = "native"
    lrn_library: Path | None = None
    allow_partial: bool = False
    output: Path | None = None
    force: bool = False
    skip_bad: bool = False

    def __post_init__(self) -> None:
        _check_model(self.model, self.input_shape)
        if self.precision not in PRECISIONS:
            raise SpecError(f"no precision {self.precision!r}", fix=f"one of {', '.join(PRECISIONS)}")
        if self.precision != "int8" and self.calib is not None:
            raise SpecError(
                f"--calib is for INT8, and this build is {self.precision}", fix="add --int8, or leave --calib out"
            )
        if self.precision != "int8" and self.calibration_words():
            raise SpecError(
                f"{self.calibration_words()} is for INT8, and this build is {self.precision}",
                fix="add --int8, or leave it out",
            )
        if self.truth is not None and self.data is None:
            raise SpecError("--truth labels the images of --data, and none are named", fix="add --data DIR")
        if self.calib_count < 1:
            raise SpecError(f"cannot calibrate on {self.calib_count} images", fix="--calib-count 1 or more")
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise SpecError(f"cannot lose at most {self.max_drop} points", fix="--max-drop 0.1, or another from 0 on")
        if self.robustness is not None and self.robustness < 2:
            raise SpecError(f"{self.robustness} subset shows no spread", fix="--robustness 5, or any number from 2 on")
        if self.precision != "int8" and self.allow_partial:
            raise SpecError(
                f"--allow-partial is for INT8, and this build is {self.precision}", fix="add --int8, or leave it out"
            )
        if self.sm and not {"tensorrt", "tensorrt_rtx"} & set(self.targets):
            raise SpecError("--sm chooses GPU architectures, and no target is a GPU's", fix="add --target tensorrt_rtx")
        if self.lrn not in LRN:
            raise SpecError(f"no LRN {self.lrn!r}", fix=f"one of {', '.join(LRN)}")
        if self.lrn == "native" and self.lrn_library is not None:
            raise SpecError(
                "--lrn-library is the plugin's, and --lrn is native", fix="add --lrn plugin, or leave it out"
            )

    def preprocess(self, default: Preprocess) -> Preprocess:
        """The network's preprocessing with ``mean``, ``std`` and ``canvas`` in their place, where they are given."""
        normal = dc.replace(default, mean=self.mean or default.mean, std=self.std or default.std)
        if self.canvas is None:
            return normal
        if self.canvas < normal.size:
            raise SpecError(
                f"--canvas {self.canvas} is smaller than the network's input", fix=f"--canvas {normal.size} or more"
            )
        return dc.replace(normal, canvas=self.canvas, fit="resize")

    def calibration_words(self) -> str:
        """What was said about how to calibrate, as on the command line; empty where nothing was."""
        said = [f"--{name} {value}" for name in ("quality", "method") if (value := getattr(self, name)) is not None]
        said += ["--tournament"] if self.tournament else []
        said += [f"--robustness {self.robustness}"] if self.robustness else []
        said += [f"--max-drop {self.max_drop:g}"] if self.max_drop is not None else []
        said += [f"--{'' if on else 'no-'}{name}" for name, on in self.switches.items()]
        return ", ".join(said)

    def path(self) -> Path:
        """Where the bundle goes."""
        name = own_name(self.model) if is_own(self.model) else self.model
        return self.output or Path(f"{name}-{self.precision}.dlcv")


def is_own(model: str) -> bool:
    """Whether this names a network of the user's own, by what makes it, and not one of the catalogue."""
    return ":" in model


def own_name(factory: str) -> str:
    """What to call a network of the user's own, in files too: "net-factory" for "folder/net.py:factory"."""
    place, _, attribute = factory.rpartition(":")
    stem = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{stem}-{attribute}")


def _check_model(model: str, input_shape: tuple[int, int, int] | None) -> None:
    place, _, attribute = model.rpartition(":")
    if not is_own(model):
        if model.endswith(".py") or "/" in model:
            raise SpecError(
                f"{model} does not say what makes the network", fix=f"{model}:NAME, a class or function in that file"
            )
        if input_shape is not None:
            raise SpecError(
                f"--input is for a network of your own, and {model} is of the catalogue", fix="leave --input out"
            )
        return
    dotted = all(part.isidentifier() for part in place.split("."))
    if not attribute.isidentifier() or not (place.endswith(".py") or dotted):
        raise SpecError(f"{model!r} names no factory", fix="write it as path/to/FILE.py:NAME or package.module:NAME")
    if input_shape is not None and (input_shape[0] != 3 or input_shape[1] != input_shape[2]):
        size = "x".join(map(str, input_shape))
        raise SpecError(
            f"--input {size} is no square RGB image, and images are prepared as those",
            fix="--input 3xSxS, as 3x224x224",
        )


def nearest(what: str, name: str, known: tuple[str, ...]) -> SpecError:
    """The error for an unknown name, with the names that look like it."""
    near = difflib.get_close_matches(name, known, 3, 0.6)
    return SpecError(
        f"no {what} {name!r}", fix=f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(known)}"
    )
