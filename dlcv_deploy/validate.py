"""Engines of a bundle held against the PyTorch original, on images."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .bundle import Bundle, open_bundle
from .errors import SpecError
from .parity.answers import Kept
from .parity.values import Average, ParityReport
from .progress import Progress, silent
from .proof import legs, original_identity, original_network
from .reference import TorchSession
from .stages import Stages
from .store import Store

if TYPE_CHECKING:
    from .models.catalogue import Network
    from .models.weights import LoadedWeights


def validate(
    path: Path,
    *,
    data: str,
    crops: int,
    store: Store,
    average: Average = "softmax",
    margin: float = 0.5,
    count: int | None = None,
    truth: Path | None = None,
    weights: str | None = None,
    model: str | None = None,
    targets: tuple[str, ...] = (),
    skip_bad: bool = False,
    gated: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> ParityReport:
    """Parity of a bundle's graph and engines with the PyTorch original, on images.

    The original is exported once more, for the step from it to ONNX; the store has it from the build, or keeps it. The
    answers of each leg are kept there too.

    Raises:
        SpecError: ``gated``, and the images have no labels.
    """
    from .calibration.samples import open_samples
    from .parity.evaluate import evaluate

    bundle = open_bundle(path)
    m = bundle.manifest
    classes = bundle.classes()
    samples = open_samples(data, count=count, skip_bad=skip_bad, classes=classes, truth=truth, progress=progress)
    if gated and samples.labels is None:
        raise SpecError(
            f"--margin and --max-drop need labelled images, and {samples.source} has no labels",
            fix="put a labels.csv (file,label) beside the images, or use an .npz with labels",
        )
    engines = [bundle.engine(name) for name in targets or m.engines]
    network, chosen = original_network(bundle, weights, model, progress)
    graphs: dict[str, bytes | str] = {f"{m.precision} graph": bundle.read("model.onnx")}
    if m.precision != "fp32":
        graphs = {"fp32 graph": _exported(bundle, network, chosen, classes, Stages(store, say)), **graphs}
    with (
        TorchSession(chosen.net, m.inputs, m.outputs) as reference,
        legs(engines, graphs, m.precision) as candidates,
    ):
        return evaluate(
            reference,
            candidates,
            samples,
            m.preprocess,
            crops=crops,
            average=average,
            margin=margin,
            kept=Kept(store, original_identity(bundle)),
            progress=progress,
        )


def _exported(
    bundle: Bundle, network: Network, chosen: LoadedWeights, classes: tuple[str, ...], stages: Stages
) -> bytes | str:
    """The original as ONNX, before FP16 or INT8; or why it cannot be had here."""
    from .subject import Subject

    if find_spec("onnxscript") is None:
        return "exporting the original takes onnxscript: pip install 'dlcv-deploy[torch]'"
    m = bundle.manifest
    outputs = tuple(spec.name for spec in m.outputs)
    return Subject(network, chosen, m.preprocess, classes, outputs).exported(stages).onnx
