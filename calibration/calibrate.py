"""The calibration stage: images through the network, a table of ranges and corrections out."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ..graph.equalize import equalization, equalize
from ..graph.qdq import quantizable
from ..parity.crops import canvas, crops, to_input
from ..progress import Progress, silent
from ..types import Corrections, ExportedModel, Preprocess
from .channels import ChannelPeaks
from .collect import collect, observed, workers_here
from .correct import correct, images_for
from .histogram import Histogram, Tally
from .methods import resolve
from .recipe import Recipe
from .samples import Samples, contents
from .subset import first_by_content
from .table import CalibrationTable, Statistics

if TYPE_CHECKING:
    from ..backends.base import Session


_PEAK_PIXELS = 1 << 21
"""Input pixels that channels are equalized by: 41 images of 224 x 224, 2,048 of 32 x 32. More hardly change it."""


class Load(Protocol):
    """Makes a session of a graph that ``streams`` threads will call at once."""

    def __call__(self, onnx: bytes, *, streams: int = 1) -> Session: ...


@dc.dataclass(frozen=True, slots=True)
class Runtimes:
    """What runs graphs: ``whole`` the network, ``int8`` the network in INT8.

    ``part`` runs what needs no proof that it can be loaded, since the network has run before: a few of its nodes, or it
    with other outputs or weights.
    """

    whole: Callable[[bytes], Session]
    part: Load
    int8: Callable[[bytes], Session]
    versions: Mapping[str, str] = dc.field(default_factory=dict)


@dc.dataclass(frozen=True, slots=True)
class Subject:
    """What is calibrated: a network in fp32, the digest of its graph's structure, and how images become its inputs."""

    model: ExportedModel
    graph_sha256: str
    preprocess: Preprocess


@dc.dataclass(frozen=True, slots=True)
class Observed:
    """What images showed of a network: the equalization that follows, and its tensors in the equalized network.

    Every method is a function of the histograms.
    """

    equalization: Mapping[str, tuple[float, ...]]
    histograms: Mapping[str, Histogram]


def calibrate(
    subject: Subject,
    samples: Samples,
    recipe: Recipe,
    runtimes: Runtimes,
    *,
    float_nodes: tuple[str, ...] = (),
    workers: int | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Measure the range of every tensor on sample images, one centre crop each, and correct the layers.

    The table is the same to the last bit whatever the order of the images and the number of workers.

    Args:
        subject: The network.
        samples: The images.
        recipe: The method, and which corrections.
        runtimes: What runs graphs.
        float_nodes: Nodes that are to stay in floating point.
        workers: Images run at once; by default one on each core, at most 8.
        progress: Told of each image, and of each node that is corrected.

    Raises:
        SpecError: No images, an image that does not fit the network, or a network that cannot be quantized.
        ToolError: The network gives NaN or infinity.
        ArtifactError: An image cannot be read.
    """
    seen = observe(subject, samples, runtimes, equalized=recipe.equalize, workers=workers, progress=progress)
    return tabulated(subject, samples, seen, recipe, runtimes, float_nodes=float_nodes, progress=progress)


def observe(
    subject: Subject,
    samples: Samples,
    runtimes: Runtimes,
    *,
    equalized: bool,
    workers: int | None = None,
    progress: Progress = silent,
) -> Observed:
    """Run the images for the histograms; before, some of them for the channels' ranges, where those are equalized."""
    from onnx import load_model_from_string

    workers = workers_here() if workers is None else workers
    pre, onnx = subject.preprocess, subject.model.onnx
    proto = load_model_from_string(onnx)
    tensors, factors = quantizable(proto), dict[str, tuple[float, ...]]()
    if equalized:
        few = first_by_content(samples, _PEAK_PIXELS // pre.size**2)
        with runtimes.part(observed(onnx, tensors), streams=workers) as session:
            peaks = channel_amax(session, tensors, few, pre, workers=workers, progress=progress)
        factors = equalization(proto, peaks, tensors)
        equalize(proto, factors)
        onnx = proto.SerializeToString()
    del proto
    with runtimes.part(observed(onnx, tensors), streams=workers) as session:
        found = histograms(session, tensors, samples, pre, workers=workers, progress=progress)
    return Observed(factors, found)


def tabulated(
    subject: Subject,
    samples: Samples,
    seen: Observed,
    recipe: Recipe,
    runtimes: Runtimes,
    *,
    float_nodes: tuple[str, ...] = (),
    progress: Progress = silent,
) -> CalibrationTable:
    """The table that follows from what was observed; corrections look at the images, as many as fit, again."""
    measure, model, pre = resolve(recipe.method), subject.model, subject.preprocess
    amax = {name: measure(histogram) for name, histogram in seen.histograms.items()}
    made = Corrections(
        pixels=(pre.mean, pre.std) if recipe.pixels else None,
        equalization=seen.equalization,
        float_sums=not recipe.sums,
        float_nodes=float_nodes,
    )
    if recipe.corrects:
        inputs = first_inputs(samples, pre, images_for(model, runtimes.part))
        made = correct(model, amax, made, inputs, runtimes.part, recipe, progress)
    return CalibrationTable(
        model=model.name,
        weights_sha256=model.weights_sha256,
        graph_sha256=subject.graph_sha256,
        preprocess=pre,
        method=recipe.method,
        samples=samples.source,
        samples_sha256=contents(samples),
        images=len(samples),
        random=samples.random,
        amax=amax,
        corrections=made,
        statistics={name: _seen(histogram) for name, histogram in sorted(seen.histograms.items())},
        versions=runtimes.versions,
    )


def _seen(of: Histogram) -> Statistics:
    return Statistics(of.amax, of.zeros, of.nonzero, of.constant)


def first_inputs(samples: Samples, pre: Preprocess, count: int) -> npt.NDArray[np.float32]:
    """Network inputs of up to ``count`` images, the first in the order of their digests: (images, 3, size, size)."""
    first = first_by_content(samples, count)
    return to_input(np.concatenate([crops(canvas(first.image(i), pre), pre, 1) for i in range(len(first))]), pre)


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
