"""INT8 as explicit symmetric Q/DQ pairs, in the places that ``plan`` finds for them."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from ..errors import SpecError
from ..types import Corrections, ExportedModel, QuantizedModel
from .equalize import equalize, restore
from .index import Index, attribute, check_finite, drop, index, initializer, is_op, opset, replace
from .layer import TINY, TOP, Floats, Layer, misfit, unpacked
from .pixels import AMAX, TURNS, own, to_pixels
from .plan import PRODUCTS, Plan, plan

NO_CORRECTIONS = Corrections()
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def quantizable(model: ModelProto) -> tuple[str, ...]:
    """The tensors whose range ``quantize`` needs, with ``through_lrn`` or without, in the order of the graph.

    Raises:
        SpecError: A graph that no pass understands, or one that is quantized already.
    """
    wanted = set(plan(model.graph, through_lrn=True).range_of.values())  # without, it is fewer
    tensors = [*(i.name for i in model.graph.input), *(t for node in model.graph.node for t in node.output)]
    return tuple(t for t in tensors if t in wanted)


def quantize(
    exported: ExportedModel,
    amax: Mapping[str, float],
    corrections: Corrections = NO_CORRECTIONS,
    *,
    through_lrn: bool = False,
) -> QuantizedModel:
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
        amax: Largest magnitude to represent, in the unit of the tensor (after the equalization), for each name that
            ``quantizable`` gives. A tensor that is always 0 is not quantized, and the nodes that read it are left
            alone.
        corrections: What else is changed.
        through_lrn: For a kernel that takes and gives int8 around an LRN: what an LRN reads has a pair too, where
            int8 nodes alone read what it gives, themselves or by one MaxPool.

    Raises:
        SpecError: A range is missing, negative or not finite; a weight is not finite; the model is not fp32 or its
            opset below 13; nothing can be quantized; corrections do not fit the network.
    """
    prepared = prepare(exported, amax, corrections, through_lrn=through_lrn)
    model, places = prepared.model, prepared.places
    _rewrite(model.graph, places, prepared.scales, corrections)
    onnx = model.SerializeToString(deterministic=True)
    quantized = dc.replace(exported, onnx=onnx, precision="int8")
    return QuantizedModel(quantized, tuple(places.quantized), tuple(places.left_alone))


@dc.dataclass(frozen=True, slots=True)
class Prepared:
    """A network before it is written in INT8: still in fp32, equalized, with where pairs go and their scales."""

    model: ModelProto
    places: Plan
    scales: Mapping[str, float]


def prepare(
    exported: ExportedModel,
    amax: Mapping[str, float],
    corrections: Corrections = NO_CORRECTIONS,
    *,
    through_lrn: bool = False,
) -> Prepared:
    """What ``quantize`` starts from, and what corrections are measured on; arguments and errors are the same."""
    model = ModelProto.FromString(exported.onnx)
    if exported.precision != "fp32" or opset(model) < 13:
        raise SpecError(
            f"{exported.name} is {exported.precision} with opset {opset(model)} and cannot be quantized",
            fix="quantize the fp32 export, with opset 13 or later",
        )
    check_finite(model.graph)
    _check_ranges(quantizable(model), amax)
    _check_nodes(model.graph, corrections)
    repeated = equalize(model, corrections.equalization)
    levels = ""
    if corrections.pixels is not None and not _keeps_first(model.graph, corrections.float_nodes):
        levels = to_pixels(model, *corrections.pixels)
    ranges = {**amax, levels: AMAX} if levels else amax
    places, scales = _scaled(model.graph, ranges, corrections, through_lrn=through_lrn)
    turning = own(levels, model.graph)
    places.left_alone[:] = [
        dc.replace(left, reason=TURNS) if left.node in turning else left for left in places.left_alone
    ]
    if not places.quantized:
        reason = places.left_alone[0].reason if places.left_alone else "it has no convolutions or matrix products"
        raise SpecError(f"nothing in {exported.name} can be computed in int8: {reason}", fix="build it in fp16 or fp32")
    restore(model, repeated)
    return Prepared(model, places, scales)


def _keeps_first(graph: GraphProto, floats: Sequence[str]) -> bool:
    fed = {i.name for i in graph.input}
    return any(node.name in floats and fed.intersection(node.input) for node in graph.node)


def _check_nodes(graph: GraphProto, made: Corrections) -> None:
    there = {node.name for node in graph.node}
    for name in (*made.gain, *made.bias, *made.rounding, *made.float_nodes):
        if name not in there:
            raise misfit(f"there is no node {name!r}")


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


def _scaled(
    graph: GraphProto, amax: Mapping[str, float], made: Corrections, *, through_lrn: bool
) -> tuple[Plan, dict[str, float]]:
    """The pairs that remain without the tensors that were always 0, and the scale of each.

    Ranges are looked up where the whole plan has them, for only those were asked for.
    """
    whole = plan(graph, through_lrn=through_lrn)
    dead = frozenset(t for t in whole.range_of.values() if amax[t] / TOP < TINY)
    floats = frozenset(made.float_nodes)
    left = plan(graph, dead, through_lrn=through_lrn, floats=floats, sums=not made.float_sums)
    ranges = {t: amax[whole.range_of[source]] for t, source in left.range_of.items()}
    return left, {t: float(np.float32(top / TOP)) for t, top in ranges.items()}


def _rewrite(graph: GraphProto, places: Plan, scales: Mapping[str, float], made: Corrections) -> None:
    at = index(graph)
    nodes: list[NodeProto] = []
    added: dict[str, TensorProto] = {}
    for value in graph.input:
        nodes += _pair(value.name, scales, added)
    for node in graph.node:
        if is_op(node, *PRODUCTS) and (node.output[0], 0) in places.reads:
            nodes.append(_weight(node, at, scales[node.input[0]], made, added))
        for position, tensor in enumerate(node.input):
            if (node.output[0], position) in places.reads:
                node.input[position] = f"{tensor}_dq"
        nodes.append(node)
        for tensor in node.output:
            nodes += _pair(tensor, scales, added)
    read = {t for node in nodes for t in node.input}
    replace(graph.node, nodes)
    drop(graph.initializer, lambda i: i.name not in read)
    graph.initializer.extend(i for i in added.values() if i.name in read)
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


def _weight(
    node: NodeProto, at: Index, input_scale: float, made: Corrections, added: dict[str, TensorProto]
) -> NodeProto:
    """Make a node read its weight from int8, through the DequantizeLinear that is returned."""
    tensor = node.input[1]
    layer = Layer.of(node, at, input_scale)
    steps = layer.nearest()
    if node.name in made.rounding:
        steps = unpacked(steps, made.rounding[node.name], node.name)
    scale = layer.scale
    if node.name in made.gain or node.name in made.bias:
        gain, shift = (_channels(by, node.name, len(scale), d) for by, d in ((made.gain, 1.0), (made.bias, 0.0)))
        if not (gain > 0).all():
            raise misfit(f"a channel of {node.name!r} would be multiplied by {gain.min()}")
        scale = (scale * gain).astype(np.float32)
        _rebias(node, at, layer.bias * gain * attribute(node, "beta", 1.0) + shift, added)
    name = tensor
    while f"{name}_q" in added:  # another node's, with another bias
        name += "_again"
    added[f"{name}_q"] = initializer(f"{name}_q", layer.shaped(steps))
    added[f"{name}_scale"] = initializer(f"{name}_scale", scale)
    node.input[1] = f"{name}_dq"
    read = [f"{name}_q", f"{name}_scale"]
    return helper.make_node("DequantizeLinear", read, [f"{name}_dq"], f"{name}_dequantize", axis=layer.axis)


def _channels(values: Mapping[str, Sequence[float]], node: str, count: int, default: float) -> Floats:
    found = values.get(node, [default] * count)
    if len(found) != count:
        raise misfit(f"{node!r} has {count} channels, and there are {len(found)} numbers for it")
    if not np.isfinite(found).all():
        raise misfit(f"there is a number for {node!r} that is NaN or infinite")
    return np.asarray(found, np.float64)


def takes_bias(node: NodeProto, at: Index) -> bool:
    """Whether a layer's bias is a constant that can be corrected, or none that can be added."""
    held = len(node.input) > 2 and node.input[2]
    return not is_op(node, "MatMul") and (not held or held in at.initializers)


def _rebias(node: NodeProto, at: Index, bias: Floats, added: dict[str, TensorProto]) -> None:
    if not takes_bias(node, at):
        raise misfit(f"{node.name!r} is a {node.op_type} without a bias that could be corrected")
    for beta in [a for a in node.attribute if a.name == "beta"]:
        node.attribute.remove(beta)  # it is in the bias
    name = f"{node.output[0]}_corrected_bias"
    added[name] = initializer(name, bias.astype(np.float32))
    node.input[2:] = [name]
