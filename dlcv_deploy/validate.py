"""Engines of a bundle held against the PyTorch original, on images."""

from __future__ import annotations

from pathlib import Path

from .bundle import open_bundle
from .errors import SpecError
from .parity.values import ParityReport
from .progress import Progress, silent
from .proof import legs, original


def validate(
    path: Path,
    *,
    data: str,
    crops: int,
    count: int | None = None,
    weights: str | None = None,
    model: str | None = None,
    targets: tuple[str, ...] = (),
    skip_bad: bool = False,
    gated: bool = False,
    progress: Progress = silent,
) -> ParityReport:
    """Parity of a bundle's graph and engines with the PyTorch original, on images.

    Raises:
        SpecError: ``gated``, and the images have no labels.
    """
    from .calibration.samples import open_samples
    from .parity.evaluate import evaluate

    bundle = open_bundle(path)
    m = bundle.manifest
    classes = tuple(bundle.read("labels.txt").decode().splitlines())
    samples = open_samples(data, count=count, skip_bad=skip_bad, classes=classes, progress=progress)
    if gated and samples.labels is None:
        raise SpecError(
            f"--max-drop needs labelled images, and {samples.source} has no labels",
            fix="put a labels.csv (file,label) beside the images, or use an .npz with labels",
        )
    engines = [bundle.engine(name) for name in targets or m.engines]
    graph = {f"{m.precision} graph": bundle.read("model.onnx")}
    with original(bundle, weights, model, progress) as reference, legs(engines, graph, m.precision) as candidates:
        return evaluate(reference, candidates, samples, m.preprocess, crops=crops, progress=progress)
