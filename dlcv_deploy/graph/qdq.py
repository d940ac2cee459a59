"""INT8 as explicit symmetric Q/DQ pairs, placed so that TensorRT and OpenVINO fuse them into their convolutions.

Found by compiling ResNet-18, 20 and 50 (OpenVINO 2026.4's runtime model, the tensor types in TensorRT-RTX 1.7's
engine): with pairs on the inputs of convolutions and on the shortcut of each residual sum, every convolution runs in
int8 and takes in bias, sum, ReLU and the next Q. An option A shortcut (Slice, Pad) and the stem's MaxPool run in int8
only where the pairs before and after them share one scale; then the second pair loses nothing.
"""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Mapping, Sequence, Set

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from ..errors import SpecError
from ..types import ExportedModel, LeftAlone, QuantizedModel
from .index import Array, Index, attribute, check_finite, drop, index, initializer, is_op, opset, replace, taps

_TOP = 127
_TINY = 2.0**-64
"""The smallest scale written: the product of two is a normal float32."""
_BIAS_STEPS = 2.0**30
_FLOAT32_MAX = float(np.finfo(np.float32).max)

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_MOVERS = ("Flatten", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Operators whose outputs are values of their input (or zeros): they give the same in int8 as in float32."""
_SILENT = (*_MOVERS, "Cast", "Clip", "Concat", "Constant", "Dropout", "Identity", "Relu", "Shape")

_AVERAGE = "int8 would round its averages, and it takes little time beside the convolutions"
_REASONS = {
    "AveragePool": _AVERAGE,
    "GlobalAveragePool": _AVERAGE,
    "ReduceMean": _AVERAGE,
    "BatchNormalization": "it does not follow a convolution that it could be folded into",
    "LRN": "its sums of squares and its power need the range of floating point",
    "Softmax": "its exponentials need the range of floating point",
}
_OTHER = "only convolutions, matrix products and residual sums are computed in int8"
_PLAIN_SUM = "neither input is an int8 convolution that feeds this sum alone, so there is nothing to fuse it into"


_CONSTANT_SUM = "it adds a constant, which takes little time beside the convolutions"


def quantizable(model: ModelProto) -> tuple[str, ...]:
    """The tensors whose range ``quantize`` needs, in the order of the graph.

    Raises:
        SpecError: A graph that no pass understands, or one that is quantized already.
    """
    plan = _plan(model.graph, frozenset())
    wanted = set(plan.range_of.values())
    tensors = [*(i.name for i in model.graph.input), *(t for node in model.graph.node for t in node.output)]
    return tuple(t for t in tensors if t in wanted)


def quantize(exported: ExportedModel, amax: Mapping[str, float]) -> QuantizedModel:
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
    plan, scales = _scaled(model.graph, amax)
    if not plan.quantized:
        reason = plan.left_alone[0].reason if plan.left_alone else "it has no convolutions or matrix products"
        raise SpecError(f"nothing in {exported.name} can be computed in int8: {reason}", fix="build it in fp16 or fp32")
    _rewrite(model.graph, plan, scales)
    onnx = model.SerializeToString(deterministic=True)
    quantized = dc.replace(exported, onnx=onnx, precision="int8")
    return QuantizedModel(quantized, tuple(plan.quantized), tuple(plan.left_alone))


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


def _scaled(graph: GraphProto, amax: Mapping[str, float]) -> tuple[_Plan, dict[str, float]]:
    """The pairs that remain without the tensors that were always 0, and the scale of each.

    Ranges are looked up where the whole plan has them, for only those were asked for.
    """
    whole = _plan(graph, frozenset())
    dead = frozenset(t for t in whole.range_of.values() if amax[t] / _TOP < _TINY)
    plan = _plan(graph, dead)
    ranges = {t: amax[whole.range_of[source]] for t, source in plan.range_of.items()}
    return plan, {t: float(np.float32(top / _TOP)) for t, top in ranges.items()}


@dc.dataclass(slots=True)
class _Plan:
    """Where pairs go: ``range_of`` gives for each tensor with a pair the tensor whose range it takes.

    ``reads`` are the inputs, as (first output of the node, position), that read a pair instead of the tensor.
    """

    range_of: dict[str, str] = dc.field(default_factory=dict)
    reads: set[tuple[str, int]] = dc.field(default_factory=set)
    quantized: list[str] = dc.field(default_factory=list)
    left_alone: list[LeftAlone] = dc.field(default_factory=list)

    def read(self, node: NodeProto, position: int) -> None:
        """Put a pair on an input; one is enough for a tensor."""
        tensor = node.input[position]
        self.range_of.setdefault(tensor, tensor)
        self.reads.add((node.output[0], position))

    def only_int8(self, at: Index, tensor: str) -> bool:
        """Whether all that read a tensor read its pair."""
        inputs = ((n.output[0], p) for n in at.consumers[tensor] for p, t in enumerate(n.input) if t == tensor)
        return tensor not in at.outputs and all(i in self.reads for i in inputs)


def _plan(graph: GraphProto, dead: Set[str]) -> _Plan:
    plan, at = _Plan(), index(graph, without=taps(graph))
    zero = set(dead)
    depth: dict[str, int] = {}
    convs: dict[str, bool] = {}  # output of a Conv that can be quantized: whether it is
    for node in graph.node:
        depth[node.output[0]] = 1 + max((depth.get(t, 0) for t in node.input), default=0)
        position, reason = 0, ""
        if is_op(node, "QuantizeLinear", "DequantizeLinear"):
            raise SpecError("the graph is quantized already", fix="start from the fp32 export")
        if is_op(node, *_PRODUCTS):
            reason = _why_no_product(node, at)
        elif is_op(node, "Add"):
            mains = [p for p in (0, 1) if node.input[p] in convs and at.only_reader(node.input[p]) is node]
            main = max(mains, key=[depth.get(t, 0) for t in node.input].__getitem__, default=0)
            position = 1 - main
            fuses = bool(mains) and convs[node.input[main]]
            constant = any(t in at.initializers for t in node.input)
            reason = _CONSTANT_SUM if constant else "" if fuses else _PLAIN_SUM
        elif is_op(node, *_SILENT):
            zero.update(node.output if _moves(node, at) and node.input[0] in zero else ())
            continue
        else:
            reason = _REASONS.get(node.op_type, _OTHER)
        is_conv = is_op(node, "Conv") and not reason
        if not reason and node.input[position] in zero:
            reason = f"its input {node.input[position]} was 0 on every calibration image"
        if is_conv:
            convs[node.output[0]] = not reason
        if reason:
            plan.left_alone.append(LeftAlone(node.name, node.op_type, reason))
        else:
            plan.read(node, position)
            plan.quantized.append(node.name)
    _carry_through(graph, plan, at)
    return plan


def _why_no_product(node: NodeProto, at: Index) -> str:
    weight = at.initializers.get(node.input[1])
    if weight is None or node.input[0] in at.initializers:
        return "its weight is computed at run time"
    if weight.data_type != TensorProto.FLOAT:
        return f"its weight is {TensorProto.DataType.Name(weight.data_type).lower()}, not float32"
    if attribute(node, "transA", 0) or (node.op_type == "MatMul" and len(weight.dims) != 2):
        return "it is not a product of activations with one weight matrix"
    return ""


def _carry_through(graph: GraphProto, plan: _Plan, at: Index) -> None:
    """Share one scale across operators that only move values, so that they work on int8.

    Where a tensor with a pair was moved from another with a pair, it takes the other's scale and the moving starts
    from the other's pair. Where one MaxPool made it from a tensor that nothing else reads, that tensor gets a pair with
    its scale; not across more (TensorRT-RTX dequantizes before the MaxPool if Flatten stands before the second pair).
    """
    for tensor in [t for node in graph.node for t in node.output if t in plan.range_of]:
        source, movers = tensor, list[NodeProto]()
        while (mover := at.producer.get(source)) is not None and _moves(mover, at):
            movers.append(mover)
            source = mover.input[0]
            if source in plan.range_of or at.only_reader(source) is None:
                break
        if not movers or not plan.only_int8(at, tensor):
            continue
        if source in plan.range_of:
            plan.range_of[tensor] = plan.range_of[source]
        elif [mover.op_type for mover in movers] == ["MaxPool"] and at.only_reader(source) is not None:
            plan.range_of[source] = plan.range_of[tensor]
        else:
            continue
        plan.reads.add((movers[-1].output[0], 0))


def _moves(node: NodeProto, at: Index) -> bool:
    if not is_op(node, *_MOVERS) or len(node.output) != 1:
        return False
    filler = node.input[2] if is_op(node, "Pad") and len(node.input) > 2 else ""
    return not filler or (filler in at.initializers and not np.any(at.array(filler)))


def _rewrite(graph: GraphProto, plan: _Plan, scales: Mapping[str, float]) -> None:
    at = index(graph)
    nodes: list[NodeProto] = []
    added: dict[str, TensorProto] = {}
    for value in graph.input:
        nodes += _pair(value.name, scales, added)
    for node in graph.node:
        if is_op(node, *_PRODUCTS) and (node.output[0], 0) in plan.reads:
            nodes.append(_weight(node, at, scales[node.input[0]], added))
        for position, tensor in enumerate(node.input):
            if (node.output[0], position) in plan.reads:
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
