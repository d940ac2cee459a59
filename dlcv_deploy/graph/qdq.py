"""INT8 as explicit symmetric Q/DQ pairs, in the places that ``plan`` finds for them."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from ..errors import SpecError
from ..types import ExportedModel, QuantizedModel
from .index import Array, Index, attribute, check_finite, drop, index, initializer, is_op, opset, replace
from .plan import PRODUCTS, Plan, plan

_TOP = 127
_TINY = 2.0**-64
"""The smallest scale written: the product of two is a normal float32."""
_BIAS_STEPS = 2.0**30
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def quantizable(model: ModelProto) -> tuple[str, ...]:
    """The tensors whose range ``quantize`` needs, with ``through_lrn`` or without, in the order of the graph.

    Raises:
        SpecError: A graph that no pass understands, or one that is quantized already.
    """
    wanted = set(plan(model.graph, through_lrn=True).range_of.values())  # without, it is fewer
    tensors = [*(i.name for i in model.graph.input), *(t for node in model.graph.node for t in node.output)]
    return tuple(t for t in tensors if t in wanted)


def quantize(exported: ExportedModel, amax: Mapping[str, float], *, through_lrn: bool = False) -> QuantizedModel:
    """The network in INT8: Q/DQ pairs on activations, int8 weights behind a DQ; biases stay float32.

    Activations have one scale a tensor, ``amax / 127``; weights of Conv, Gemm and MatMul one an output channel, their
    largest magnitude over 127. Zero points are 0. A tensor has one pair, which all its int8 readers share. Of a
    residual sum the shortcut is quantized and the main path is not, so that it fuses into the main path's convolution
    (TensorRT documentation, "Working with Quantized Types"); with convolutions on both, the shorter is the shortcut.

    An output that repeats an inner tensor (``index.taps``) changes none of this: the same pairs with the same scales
    stand in the graph as without it, so one table serves both. It is float32, as the node before computes it: where
    int8 nodes read the tensor too, they alone read it rounded, since features and maps are worth more exact than the
    one write of an int8 tensor that rounding them would save.

    A weight scale is never so small that the bias, counted in steps of both scales, leaves int32: ONNX Runtime counts
    it so and wraps around, which would lose the bias of every dead channel. The weights' error in such a channel is
    below a thousandth of the bias.

    Args:
        amax: Largest magnitude to represent, in the unit of the tensor, for each name that ``quantizable`` gives. A
            tensor that is always 0 is not quantized, and the nodes that read it are left alone.
        through_lrn: For a kernel that takes and gives int8 around an LRN: what an LRN reads has a pair too, where
            int8 nodes alone read what it gives, themselves or by one MaxPool.

    Raises:
        SpecError: A range is missing, negative or not finite; a weight is not finite; the model is not fp32 or its
            opset below 13; nothing can be quantized.
    """
    model = ModelProto.FromString(exported.onnx)
    if exported.precision != "fp32" or opset(model) < 13:
        raise SpecError(
            f"{exported.name} is {exported.precision} with opset {opset(model)} and cannot be quantized",
            fix="quantize the fp32 export, with opset 13 or later",
        )
    check_finite(model.graph)
    _check_ranges(quantizable(model), amax)
    places, scales = _scaled(model.graph, amax, through_lrn=through_lrn)
    if not places.quantized:
        reason = places.left_alone[0].reason if places.left_alone else "it has no convolutions or matrix products"
        raise SpecError(f"nothing in {exported.name} can be computed in int8: {reason}", fix="build it in fp16 or fp32")
    _rewrite(model.graph, places, scales)
    onnx = model.SerializeToString(deterministic=True)
    quantized = dc.replace(exported, onnx=onnx, precision="int8")
    return QuantizedModel(quantized, tuple(places.quantized), tuple(places.left_alone))


def _check_ranges(wanted: Sequence[str], amax: Mapping[str, float]) -> None:
    missing = [t for t in wanted if t not in amax]
    if missing:
        raise SpecError(
            f"there is no range for {len(missing)} of {len(wanted)} tensors, the first being {missing[0]!r}",
            fix="calibrate this model; these ranges belong to another",
        )
    for tensor in wanted:
        if not (math.isfinite(amax[tensor]) and 0 <= amax[tensor] <= _FLOAT32_MAX):
            raise SpecError(
                f"the range of {tensor!r} is {amax[tensor]}",
                fix="calibrate again with images on which the network gives finite numbers",
            )


def _scaled(graph: GraphProto, amax: Mapping[str, float], *, through_lrn: bool) -> tuple[Plan, dict[str, float]]:
    """The pairs that remain without the tensors that were always 0, and the scale of each.

    Ranges are looked up where the whole plan has them, for only those were asked for.
    """
    whole = plan(graph, through_lrn=through_lrn)
    dead = frozenset(t for t in whole.range_of.values() if amax[t] / _TOP < _TINY)
    left = plan(graph, dead, through_lrn=through_lrn)
    ranges = {t: amax[whole.range_of[source]] for t, source in left.range_of.items()}
    return left, {t: float(np.float32(top / _TOP)) for t, top in ranges.items()}


def _rewrite(graph: GraphProto, places: Plan, scales: Mapping[str, float]) -> None:
    at = index(graph)
    nodes: list[NodeProto] = []
    added: dict[str, TensorProto] = {}
    for value in graph.input:
        nodes += _pair(value.name, scales, added)
    for node in graph.node:
        if is_op(node, *PRODUCTS) and (node.output[0], 0) in places.reads:
            nodes.append(_weight(node, at, scales[node.input[0]], added))
        for position, tensor in enumerate(node.input):
            if (node.output[0], position) in places.reads:
                node.input[position] = f"{tensor}_dq"
        nodes.append(node)
        for tensor in node.output:
            nodes += _pair(tensor, scales, added)
    read = {t for node in nodes for t in node.input}
    replace(graph.node, nodes)
    drop(graph.initializer, lambda i: i.name not in read)
    graph.initializer.extend(added.values())
    del graph.value_info[:]


def _pair(tensor: str, scales: Mapping[str, float], added: dict[str, TensorProto]) -> list[NodeProto]:
    """Q and DQ of a tensor, where it has a scale."""
    if tensor not in scales:
        return []
    scale, zero, q = f"{tensor}_scale", f"{tensor}_zero_point", f"{tensor}_q"
    added[scale] = initializer(scale, np.asarray(scales[tensor], np.float32))
    added[zero] = initializer(zero, np.asarray(0, np.int8))
    return [
        helper.make_node("QuantizeLinear", [tensor, scale, zero], [q], f"{tensor}_quantize"),
        helper.make_node("DequantizeLinear", [q, scale, zero], [f"{tensor}_dq"], f"{tensor}_dequantize"),
    ]


def _weight(node: NodeProto, at: Index, input_scale: float, added: dict[str, TensorProto]) -> NodeProto:
    """Make a node read its weight from int8, through the DequantizeLinear that is returned."""
    tensor = node.input[1]
    axis = 0 if is_op(node, "Conv") or attribute(node, "transB", 0) else 1
    bias = at.array(node.input[2]) if len(node.input) > 2 and node.input[2] in at.initializers else np.zeros(1)
    steps, scale = _steps(at.array(tensor), axis, bias, input_scale)
    name = tensor
    while f"{name}_q" in added:  # another node's, with another bias
        name += "_again"
    added[f"{name}_q"] = initializer(f"{name}_q", steps)
    added[f"{name}_scale"] = initializer(f"{name}_scale", scale)
    node.input[1] = f"{name}_dq"
    read = [f"{name}_q", f"{name}_scale"]
    return helper.make_node("DequantizeLinear", read, [f"{name}_dq"], f"{name}_dequantize", axis=axis)


def _steps(weight: Array, axis: int, bias: Array, input_scale: float) -> tuple[Array, Array]:
    """A weight as int8, and the float32 scale of each channel along ``axis``; the bias's last axis is the channel."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    amax = np.abs(rows).max(axis=1).astype(np.float64)
    most = np.abs(bias.astype(np.float64)).reshape(-1, bias.shape[-1] if bias.ndim else 1).max(axis=0)
    least = np.maximum(most / input_scale / _BIAS_STEPS, _TINY)
    scale = np.maximum(amax / _TOP, least).astype(np.float32)
    steps = np.empty(rows.shape, np.int8)
    for at, row in enumerate(rows):  # a row in float64 fits a cache; a whole weight may not fit memory
        steps[at] = np.clip(np.rint(row / np.float64(scale[at])), -_TOP, _TOP)
    moved = [weight.shape[axis], *(n for a, n in enumerate(weight.shape) if a != axis)]
    return np.moveaxis(steps.reshape(moved), 0, axis), scale
