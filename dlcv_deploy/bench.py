"""Engines of a bundle timed beside the PyTorch original, in one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .bundle import open_bundle
from .latency.values import LatencyReport
from .progress import Progress, silent
from .proof import loaded, original, pixels_of
from .report.document import REFERENCE
from .types import Preprocess

if TYPE_CHECKING:
    from .backends.base import Array, Session


def bench(
    path: Path,
    *,
    weights: str | None = None,
    model: str | None = None,
    targets: tuple[str, ...] = (),
    progress: Progress = silent,
) -> LatencyReport:
    """Latency of a bundle's engines beside the PyTorch original."""
    bundle = open_bundle(path)
    engines = [bundle.engine(name) for name in targets or bundle.manifest.engines]
    with (
        original(bundle, weights, model, progress) as reference,
        loaded(engines, bundle.manifest.precision) as sessions,
    ):
        return timed(reference, sessions, bundle.manifest.preprocess, brief=False, progress=progress)


def timed(
    reference: Session, sessions: Mapping[str, Session | str], pre: Preprocess, *, brief: bool, progress: Progress
) -> LatencyReport:
    """Latency at batches of 1 and 10, the sessions in turn, on drawn images: 50 calls each or more, ``brief`` 3."""
    from .calibration.samples import drawn
    from .latency.measure import latency

    pixels = pixels_of(drawn(10, pre.size), pre, 10)

    def feeds(batch: int) -> Mapping[str, Array]:
        return {reference.inputs[0].name: np.ascontiguousarray(pixels[:batch])}

    calls: dict[str, Any] = {"at_least": 3, "warmup": 1, "budget_s": 2.0} if brief else {"at_least": 50}
    return latency({REFERENCE: reference, **sessions}, feeds, **calls, progress=progress)
