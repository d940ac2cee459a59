"""Runs images through a graph and folds every tensor's values into its histogram, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import SpecError, ToolError
from ..progress import Progress, silent
from .histogram import Histogram

Array = npt.NDArray[np.generic]
Run = Callable[[npt.NDArray[np.float32]], Mapping[str, Array]]


def collect(
    session_run: Run,
    batches: Iterable[npt.NDArray[np.float32]],
    tensors: Sequence[str],
    *,
    total: int,
    progress: Progress = silent,
) -> dict[str, Histogram]:
    """A histogram for each tensor, over all batches.

    What is held at a time is one batch, what the session gives for it (let go tensor by tensor), and 64 KiB a tensor.

    Args:
        session_run: Gives the tensors by name for one batch of inputs.
        batches: (n, C, H, W) each; n may differ.
        tensors: Names of the tensors to watch.
        total: Images in all batches, for the progress bar.
        progress: Told of each batch's images.

    Raises:
        SpecError: No images.
        ToolError: The session does not give a tensor, or a value of it is NaN or infinite; names the tensor.
    """
    histograms = {name: Histogram.none() for name in tensors}
    images = 0
    with progress("calibrate", total) as advance:
        for batch in batches:
            outputs = dict(session_run(batch))
            for name in histograms:
                if name not in outputs:
                    raise ToolError(f"the session gives no tensor {name!r}", fix="run the graph that observed() made")
                histograms[name] = histograms[name].merge(_histogram(name, outputs.pop(name)))
            images += len(batch)
            advance(len(batch))
    if not images:
        raise SpecError("no images to calibrate on", fix="give at least one image")
    return histograms


def observed(onnx: bytes, tensors: Sequence[str]) -> bytes:
    """The graph with inner tensors as outputs too, so that any session gives them.

    Tensors that are inputs or outputs of the graph already are left as they are.

    Args:
        onnx: A serialized ModelProto.
        tensors: Names of its tensors.

    Raises:
        SpecError: The graph has no tensor of a name, or its type is not known.
    """
    from onnx import load_model_from_string, shape_inference

    model = load_model_from_string(onnx)
    graph = shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in graph.value_info}
    there = {value.name for value in (*graph.input, *graph.output)}
    for name in tensors:
        if name in there:
            continue
        if name not in known:
            raise SpecError(f"the graph has no tensor {name!r} whose shape is known", fix="export the model again")
        model.graph.output.append(known[name])
    return bytes(model.SerializeToString())


def _histogram(name: str, values: Array) -> Histogram:
    try:
        return Histogram.of(values)
    except ToolError as e:
        raise ToolError(
            f"tensor {name!r}: {e.what}",
            fix="look for NaN in the weights, or for a preprocessing that the network was not trained with",
        ) from e
