"""Which images a build calibrates on and which it measures itself on; never the same ones where others are there."""

from __future__ import annotations

import dataclasses as dc
from pathlib import Path
from typing import TYPE_CHECKING

from .calibration.recipe import Recipe, recipe
from .calibration.samples import Samples, drawn, noise, open_samples
from .calibration.subset import Subset
from .calibration.table import CalibrationTable, bundled
from .errors import ArtifactError, SpecError
from .progress import Progress, silent
from .spec import BuildSpec

if TYPE_CHECKING:
    from .calibration.choose import Trials
    from .types import Preprocess

QUICK_SIDE = 64
"""Networks with inputs up to this side are fast enough to be measured on more images within a build."""
FEWEST = 8
"""Fewer images than this left over from calibration are no measure; drawn images are taken instead."""


@dc.dataclass(frozen=True, slots=True)
class Sources:
    """The images of a build; ``table`` takes the place of ``calibration`` where there is one already.

    ``parity`` pairs images with a number of crops: one crop on many, ten crops on as many as time allows.
    """

    calibration: Samples | None
    table: CalibrationTable | None
    parity: tuple[tuple[int, Samples], ...]

    @classmethod
    def open(
        cls,
        spec: BuildSpec,
        pre: Preprocess,
        *,
        weights_sha256: str,
        classes: tuple[str, ...],
        progress: Progress = silent,
    ) -> Sources:
        """Find the images that ``spec`` asks for.

        Raises:
            SpecError: INT8 without images or table; test images to calibrate on.
            ArtifactError: A damaged image or table.
        """
        many, few = (256, 256) if pre.size <= QUICK_SIDE else (32, 2)
        samples, table, rest = None, None, None
        if spec.precision == "int8":
            samples, table, rest = _calibration(spec, pre, weights_sha256, classes, many, progress)
        if spec.data is not None:
            data = open_samples(spec.data, skip_bad=spec.skip_bad, classes=classes, truth=spec.truth, progress=progress)
            return cls(samples, table, ((1, data), (10, data)))
        measured = rest if rest is not None and len(rest) >= FEWEST else drawn(many, pre.size)
        return cls(samples, table, ((1, first(measured, many)), (10, first(measured, few))))


def first(samples: Samples, count: int) -> Samples:
    """The first images of a source, or all where there are no more."""
    if len(samples) <= count:
        return samples
    return Subset(samples, tuple(range(count)), f"the first {count} of: {samples.source}", samples.skipped)


def recipe_of(spec: BuildSpec) -> Recipe:
    """How a build calibrates.

    Raises:
        SpecError: No such method.
    """
    return recipe(spec.quality or "default", spec.method, spec.switches)


def trials_of(spec: BuildSpec) -> Trials:
    """What a build tries before it calibrates."""
    from .calibration.choose import Trials

    return Trials(spec.tournament, spec.robustness, spec.max_drop)


def open_calibration(
    spec: BuildSpec, pre: Preprocess, count: int, classes: tuple[str, ...], progress: Progress
) -> Samples:
    """Images or noise to calibrate on.

    Raises:
        SpecError: CIFAR-10's test images, on which reports are measured; no such method.
    """
    recipe_of(spec)  # a wrong method is refused before any work
    if spec.calib == "random":
        return noise(spec.calib_count, pre.size)
    if spec.calib == "cifar10":
        raise SpecError(
            "cifar10 names the test images; calibrating on them would spoil every figure measured on them",
            fix="--calib cifar10-train",
        )
    assert spec.calib is not None
    return open_samples(spec.calib, count=count, skip_bad=spec.skip_bad, classes=classes, progress=progress)


def _calibration(
    spec: BuildSpec, pre: Preprocess, weights_sha256: str, classes: tuple[str, ...], spare: int, progress: Progress
) -> tuple[Samples | None, CalibrationTable | None, Samples | None]:
    """Images to calibrate on, or a table, and the images that are left over."""
    said = spec.calibration_words()
    if said and (spec.calib is None or Path(spec.calib).suffix.lower() == ".json"):
        raise SpecError(
            f"{said} says how to calibrate, and a calibration table is taken as it is",
            fix="--calib DIR, FILE.npz or cifar10-train to calibrate anew, or leave it out",
        )
    if spec.calib is None:
        table = bundled(weights_sha256)
        if table is None or table.preprocess != pre:
            raise SpecError(
                f"INT8 needs images to calibrate {spec.model} on, and no table for these weights is bundled",
                fix="--calib DIR with some hundred typical images (or FILE.npz, or TABLE.json from "
                "dlcv-deploy calibrate); --calib random only to see whether it compiles",
            )
        return None, table, None
    if Path(spec.calib).suffix.lower() == ".json":
        return None, read_table(Path(spec.calib)), None
    used = open_calibration(spec, pre, spec.calib_count, classes, progress)
    if used.random or len(used) < spec.calib_count:
        return used, None, None
    whole = open_calibration(spec, pre, spec.calib_count + spare, classes, progress)  # the first of them the same
    source = f"images not calibrated on, from where those are ({used.source})"
    return used, None, Subset(whole, tuple(range(len(used), len(whole))), source, whole.skipped)


def read_table(path: Path) -> CalibrationTable:
    """A calibration table from a file.

    Raises:
        ArtifactError: It is absent or damaged.
    """
    try:
        return CalibrationTable.from_json(path.read_bytes(), name=path.name)
    except OSError as e:
        raise ArtifactError(
            f"the calibration table {path} cannot be read: {e.strerror}", fix="dlcv-deploy calibrate makes one"
        ) from e
