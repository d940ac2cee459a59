"""The calibration stage: images through the network, a range for each tensor out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..progress import Progress, silent
from ..types import ExportedModel, Preprocess
from .channels import ChannelPeaks
from .collect import collect
from .histogram import Histogram, Tally
from .methods import DEFAULT, resolve
from .samples import Samples, contents
from .table import CalibrationTable, Statistics

if TYPE_CHECKING:
    from ..backends.base import Session


def calibrate(
    model: ExportedModel,
    graph_sha256: str,
    tensors: Sequence[str],
    session: Session,
    samples: Samples,
    preprocess: Preprocess,
    *,
    method: str = DEFAULT,
    workers: int | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Measure the range of every tensor on sample images, one centre crop each.

    The table is the same to the last bit whatever the order of the images and the number of workers.

    Args:
        model: The network, in fp32.
        graph_sha256: Names the structure of its graph.
        tensors: Those to measure; the network's input may be among them.
        session: Runs ``observed(model.onnx, tensors)``.
        samples: The images.
        preprocess: How they become inputs.
        method: How a range follows from the values seen: see ``methods.METHODS``.
        workers: Images run at once; by default one on each core, at most 8.
        progress: Told of each image.

    Raises:
        SpecError: No such method, no images, or an image that does not fit the network.
        ToolError: The session gives NaN, infinity, or no such tensor.
        ArtifactError: An image cannot be read.
    """
    measure = resolve(method)
    found = histograms(session, tensors, samples, preprocess, workers=workers, progress=progress)
    return CalibrationTable(
        model=model.name,
        weights_sha256=model.weights_sha256,
        graph_sha256=graph_sha256,
        preprocess=preprocess,
        method=method,
        samples=samples.source,
        samples_sha256=contents(samples),
        images=len(samples),
        random=samples.random,
        amax={name: measure(histogram) for name, histogram in found.items()},
        statistics={name: Statistics(seen.amax, seen.zeros, seen.nonzero) for name, seen in found.items()},
    )


def histograms(
    session: Session,
    tensors: Sequence[str],
    samples: Samples,
    preprocess: Preprocess,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> dict[str, Histogram]:
    """A histogram of each tensor over all images: what every method computes a range from. See ``collect``."""
    tallies = collect(session, tensors, samples, preprocess, Tally, workers=workers, progress=progress)
    return {name: tally.histogram() for name, tally in tallies.items()}


def channel_amax(
    session: Session,
    tensors: Sequence[str],
    samples: Samples,
    preprocess: Preprocess,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> dict[str, npt.NDArray[np.float32]]:
    """The largest |x| of each channel of each tensor over all images, (C,) each. See ``collect``."""
    peaks = collect(session, tensors, samples, preprocess, ChannelPeaks, workers=workers, progress=progress)
    return {name: peak.amax for name, peak in peaks.items()}
