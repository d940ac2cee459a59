"""PyTorch to ONNX: standard operators, dynamic batch, one ``LRN`` node a layer, checked against the original."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ToolError
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

    Args:
        name: The network's name in the catalogue.
        net: Takes (N, *input_shape) float32 and returns (N, classes) logits, or a tuple of what ``outputs`` names.
        input_shape: Without the batch axis, which stays free from 1 to ``BATCH.hi``.
        outputs: What the outputs are called, in their order.
        weights_sha256: Digest of the network's weights.

    Raises:
        ToolError: The exporter refused; its reason is kept.
    """
    from .graph.fold import fold
    from .graph.names import name as name_tensors

    proto = name_tensors(fold(_trace(name, net, input_shape)), outputs=outputs)
    return from_proto(name, proto, weights_sha256)


def _trace(name: str, net: nn.Module, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    import torch

    batch = torch.export.Dim("batch", min=BATCH.lo, max=BATCH.hi)
    example = torch.zeros(2, *input_shape)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                net.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: batch},),
                opset_version=OPSET,
                custom_translation_table=_translations(),
                optimize=False,  # it would fold in float32, and drop biases that happen to be zero; see graph.fold
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as e:
        reason = str(e.__cause__ or e).strip().splitlines()
        raise ToolError(
            f"PyTorch could not export {name}: {reason[0] if reason else type(e).__name__}",
            fix="the network must trace with torch.export at a free batch size; rewrite the operation named above",
            log=str(e),
        ) from e
    finally:
        quiet.setLevel(level)
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


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
    """
    worst = 0.0
    for batch in CHECK_BATCHES:
        feed = np.ascontiguousarray(inputs[:batch])
        want, got = _run(reference, feed), _run(candidate, feed)
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
