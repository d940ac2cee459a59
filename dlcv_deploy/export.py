"""PyTorch to ONNX: standard operators, dynamic batch, one ``LRN`` node a layer, checked against the original."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import SpecError, ToolError
from .types import BATCH, ExportedModel, TensorSpec

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from .backends.base import Array, Session

OPSET = 18
CHECK_BATCHES = (1, 2, 7)
TOLERANCE = 1e-4
"""Largest difference accepted between ONNX and PyTorch logits, as a share of the largest PyTorch logit."""


def export(
    name: str,
    net: nn.Module,
    input_shape: tuple[int, ...],
    *,
    outputs: tuple[str, ...] = ("logits",),
    weights_sha256: str,
) -> ExportedModel:
    """A network in eval mode as ONNX, its batch norms folded and its tensors named by this tool.

    Nodes know the PyTorch module that they stem from (``graph.modules``).

    Args:
        name: The network's name in the catalogue.
        net: Takes (N, *input_shape) float32 and returns (N, classes) logits, or a tuple of what ``outputs`` names.
        input_shape: Without the batch axis, which stays free from 1 to ``BATCH.hi``.
        outputs: What the outputs are called, in their order.
        weights_sha256: Digest of the network's weights.

    Raises:
        ToolError: The exporter refused; names the module and the line of the network's code, and keeps the reason.
    """
    from .graph.fold import fold
    from .graph.modules import mark
    from .graph.names import name as name_tensors
    from .models.outputs import Selected

    proto = _trace(name, net, input_shape)
    mark(proto, within="net" if isinstance(net, Selected) else "")
    proto = name_tensors(fold(proto), outputs=outputs)
    return from_proto(name, proto, weights_sha256)


def _trace(name: str, net: nn.Module, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    import torch

    batch = torch.export.Dim("batch", min=BATCH.lo, max=BATCH.hi)
    example = torch.zeros(2, *input_shape)
    with _quiet(), torch.no_grad():
        try:
            traced = torch.export.export(net.eval(), (example,), dynamic_shapes=({0: batch},), strict=False)
        except Exception as e:  # it runs the network's code, which may raise anything, and has no error of its own
            raise _untraceable(name, net, e) from e
        try:
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table=_translations(),
                optimize=False,  # it would fold in float32, and drop biases that happen to be zero; see graph.fold
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as e:
            raise _untranslatable(name, net, e) from e
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns, logs and prints much of what is then an error; and so may a network's own code."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _untraceable(name: str, net: nn.Module, error: Exception) -> ToolError:
    """Why torch.export refused: where, and in words."""
    from .models.outputs import Selected
    from .models.own import where

    said, log = str(error), ""
    if "data-dependent" in said:
        what = "it computes otherwise for some images than for others (an if, a loop or a number made of a tensor)"
        fix = "decide by shapes alone, or compute both ways and choose with torch.where"
    elif fixed := re.search(r"specialized it to be a constant \((\d+)\)", said):
        what = f"its batch is fixed: the code makes a number of the batch size (it was {fixed[1]})"
        fix = "keep the batch axis free: x.flatten(1) or x.reshape(x.shape[0], -1), without int() and ifs on it"
    else:
        what, fix, log = where.described(error), "it must trace with torch.export; rewrite that line", said
    inside, places = where.module(error, net.net if isinstance(net, Selected) else net), where.lines(error)
    place = "".join(f"\n  {line}" for line in ([f"in {inside}"] if inside else []) + places)
    return ToolError(f"PyTorch could not export {name}: {what}{place}", fix=fix, log="" if places else log)


def _untranslatable(name: str, net: nn.Module, error: Exception) -> ToolError:
    """Which operator has no ONNX, and which line of the network's code it is from."""
    from .models.outputs import Selected
    from .models.own import where

    cause = error.__cause__ or error
    node = where.traced(cause)
    if node is None:
        what, places = where.described(cause), []
    else:
        what = f"{node.target} cannot be written as ONNX"
        places = where.origin(node, "net." if isinstance(net, Selected) else "")
    place = "".join(f"\n  {line}" for line in places)
    return ToolError(
        f"PyTorch could not export {name}: {what}{place}",
        fix="write that operation with others that ONNX has",
        log="" if places else str(error),
    )


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Keeps local response normalization one node; the exporter would take it apart into six."""
    import torch
    from onnxscript import opset18

    from .models import lrn  # noqa: F401  registers the operator

    def translate(x: Any, size: int, alpha: float, beta: float, bias: float) -> Any:  # noqa: ANN401
        return opset18.LRN(x, size=size, alpha=alpha, beta=beta, bias=bias)

    return {torch.ops.dlcv.lrn.default: translate}


def from_proto(name: str, proto: onnx.ModelProto, weights_sha256: str) -> ExportedModel:
    """The value for a graph that is already ONNX; shapes are read from it."""
    return ExportedModel(
        name=name,
        onnx=proto.SerializeToString(deterministic=True),
        inputs=tuple(_spec(v) for v in proto.graph.input),
        outputs=tuple(_spec(v) for v in proto.graph.output),
        weights_sha256=weights_sha256,
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, tuple(d.dim_value for d in tensor.shape.dim[1:]), dtype)


def check(model: ExportedModel, reference: Session, candidate: Session, inputs: Array) -> float:
    """Largest difference of ONNX and PyTorch logits at batches of 1, 2 and 7, as a share of the largest logit.

    Args:
        inputs: (7 or more, ...) float32, real network inputs.

    Raises:
        ToolError: It is above ``TOLERANCE``, a shape differs, or a logit is not finite.
        SpecError: PyTorch's own answer is not finite.
    """
    worst = 0.0
    for batch in CHECK_BATCHES:
        feed = np.ascontiguousarray(inputs[:batch])
        want, got = _run(reference, feed), _run(candidate, feed)
        if bad := [key for key, value in want.items() if not np.isfinite(value).all()]:
            raise SpecError(
                f"{model.name} itself answers with NaN or infinity in {', '.join(bad)}, in PyTorch",
                fix="look at its weights, and at the --mean and --std it was trained with",
            )
        if want.keys() != got.keys() or any(want[k].shape != got[k].shape for k in want):
            raise ToolError(
                f"the exported {model.name} answers a batch of {batch} with other shapes than PyTorch",
                fix="the exporter fixed an axis that must stay free; try another PyTorch version",
            )
        for key, expected in want.items():
            scale = float(np.abs(expected).max(initial=1e-12))
            error = float(np.abs(expected - got[key]).max(initial=0.0)) / scale
            if not error <= TOLERANCE:  # NaN must not pass
                raise ToolError(
                    f"the exported {model.name} differs from PyTorch by {error:.2g} of the largest value of "
                    f"{key!r} at batch {batch} (allowed: {TOLERANCE:g})",
                    fix="the export is wrong; try another PyTorch or onnxscript version",
                )
            worst = max(worst, error)
    return worst


def _run(session: Session, feed: Array) -> Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]:
    return {k: v.astype(np.float64) for k, v in session.run({session.inputs[0].name: feed}).items()}


def exporter_versions() -> dict[str, str]:
    """Versions of all that can change an exported graph."""
    return {package: version(package) for package in ("torch", "onnxscript", "onnx")}
