"""Outputs besides the logits, held against the reference's image by image; vectors also by what they retrieve."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import SpecError
from ..types import TensorSpec
from . import compare
from .values import OutputError

if TYPE_CHECKING:
    from ..backends.base import Session

GALLERY_IMAGES = 10_000
GALLERY_VALUES = 1 << 24
"""Vectors are kept for retrieval as float32, 64 MiB a session and output at most: of the first 10,000 images where a
vector has up to 1,677 values, of 4,096 where it has 4,096."""


def shared(reference: Session, sessions: Mapping[str, Session]) -> tuple[TensorSpec, ...]:
    """The reference's outputs, the logits first; by these names every session answers too.

    Raises:
        SpecError: The first is no row of logits; a session lacks one, or gives it another shape.
    """
    logits, *_ = outputs = reference.outputs
    if len(logits.shape) != 1:
        raise SpecError(f"output {logits.name!r} is no row of logits: {logits.shape}")
    for name, session in sessions.items():
        there = {spec.name: spec.shape for spec in session.outputs}
        for spec in outputs:
            if spec.name not in there:
                raise SpecError(
                    f"{name} lacks the output {spec.name!r}; it answers with {', '.join(there)}",
                    fix=f"build it again, with --outputs {','.join(o.name for o in outputs)}",
                )
            if there[spec.name] != spec.shape:
                own = f"{spec.shape[0]} classes" if spec is logits else f"{spec.name} of shape {spec.shape}"
                raise SpecError(
                    f"the original answers with {own}, and {name} with shape {there[spec.name]}",
                    fix="compare engines with the network they were built from",
                )
    return outputs


@dc.dataclass(slots=True)
class OutputTally:
    """What is gathered of one output of one session, batch by batch: a few numbers an image, and the first vectors."""

    spec: TensorSpec
    errors: list[npt.NDArray[np.float64]] = dc.field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = dc.field(default_factory=list)
    kept: int = 0

    def add(self, expected: compare.Scores, found: compare.Scores) -> None:
        """Count one batch: (N, *shape) each, one row an image. The reference beside itself has no errors to count."""
        if found is not expected:
            self.errors.append(compare.vector_errors(expected, found))
        room = self._room() - self.kept
        if room > 0:
            self.vectors.append(np.array(found[:room], np.float32))
            self.kept += len(self.vectors[-1])

    def error(self, original: OutputTally) -> OutputError:
        """The report of all that was counted, with the reference's own tally."""
        cosines, signals, noises = np.concatenate(self.errors).T
        near, among = None, 0
        if self.kept >= compare.FEWEST:
            near = compare.neighbours_percent(np.concatenate(original.vectors), np.concatenate(self.vectors))
            among = self.kept
        return OutputError(
            self.spec.name,
            cosine_mean=math.fsum(cosines) / len(cosines),
            cosine_min=float(cosines.min()),
            error_percent=compare.relative_percent(math.fsum(noises), math.fsum(signals)),
            error_max_percent=float(np.max([*map(compare.relative_percent, noises, signals)])),
            neighbours_percent=near,
            neighbours_of=among,
            non_finite=int(np.isnan(cosines).sum()),
        )

    def _room(self) -> int:
        """Images whose vectors are kept; none of a map's."""
        return min(GALLERY_IMAGES, GALLERY_VALUES // self.spec.shape[0]) if len(self.spec.shape) == 1 else 0
