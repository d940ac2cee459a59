"""The calibration stage: images through the network, a range for each tensor out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import SpecError
from ..parity.crops import canvas, crops, to_input
from ..progress import Progress, silent
from ..types import BATCH, ExportedModel, Preprocess
from .collect import Array, collect
from .methods import DEFAULT, resolve
from .samples import Samples
from .table import CalibrationTable

if TYPE_CHECKING:
    from ..backends.base import Session

_BATCH_PIXELS = 1 << 18
"""Input pixels a batch: 4 or 5 images of 224 x 224, whose activations in a ResNet-50 take about 200 MB."""


def calibrate(
    model: ExportedModel,
    graph_sha256: str,
    tensors: Sequence[str],
    session: Session,
    samples: Samples,
    preprocess: Preprocess,
    *,
    method: str = DEFAULT,
    batch_images: int | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Measure the range of every tensor on sample images, one centre crop each.

    Args:
        model: The network, in fp32.
        graph_sha256: Names the structure of its graph.
        tensors: Those to measure; the network's input may be among them.
        session: Runs ``observed(model.onnx, tensors)``.
        samples: The images; read one batch at a time.
        preprocess: How they become inputs.
        method: How a range follows from the values seen: see ``methods.METHODS``.
        batch_images: Images a batch; by default by their size.
        progress: Told of each batch.

    Raises:
        SpecError: No such method, no images, or an image that does not fit the network.
        ToolError: The session gives NaN, infinity, or no such tensor.
        ArtifactError: An image cannot be read.
    """
    measure = resolve(method)
    (source,) = model.inputs
    step = max(1, min(BATCH.hi, _BATCH_PIXELS // preprocess.size**2)) if batch_images is None else batch_images
    if step < 1:
        raise SpecError(f"cannot calibrate on batches of {step} images", fix="give 1 or more")

    def run(batch: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        return {source.name: batch, **session.run({source.name: batch})}

    feed = _batches(samples, preprocess, step)
    histograms = collect(run, feed, tensors, total=len(samples), progress=progress)
    return CalibrationTable(
        model=model.name,
        weights_sha256=model.weights_sha256,
        graph_sha256=graph_sha256,
        preprocess=preprocess,
        method=method,
        samples=samples.source,
        samples_sha256=samples.sha256(),
        images=len(samples),
        random=samples.random,
        amax={name: measure(histogram) for name, histogram in histograms.items()},
    )


def _batches(samples: Samples, pre: Preprocess, step: int) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(samples), step):
        images = map(samples.image, range(start, min(start + step, len(samples))))
        yield to_input(np.concatenate([crops(canvas(image, pre), pre, 1) for image in images]), pre)
