"""Folding: what an exporter leaves in a graph that inference does not need."""

from __future__ import annotations

import logging
import math

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    inliner,
    numpy_helper,
)
from onnx.reference import ReferenceEvaluator

from ..errors import SpecError
from .index import (
    Array,
    Index,
    Shape,
    attribute,
    copied,
    drop,
    index,
    initializer,
    is_op,
    opset,
    replace,
    tensor_names,
    types,
    unused,
)
from .modules import keep

_log = logging.getLogger(__name__)

_MOVES = (
    *("Cast", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "Reshape", "Shape"),
    *("Slice", "Squeeze", "Transpose", "Unsqueeze"),
)
"""Operators that only place or convert values: on constants their result is exact, whatever computes it."""


def fold(model: ModelProto) -> ModelProto:
    """The same network without what inference does not need.

    Constants, and what only moves constants, become initializers; Identity, Dropout and casts to the same type go (of
    one whose result the graph returns, an Identity that nothing reads is left);
    BatchNormalization after a Conv that nothing else reads becomes part of it; a mean over all of an image becomes
    GlobalAveragePool, and a Reshape that keeps the batch, Flatten. What nothing reads is dropped. A
    BatchNormalization that cannot be folded stays. Changes are logged at level INFO.

    The arithmetic is float64, rounded once to the type of the weights, so every platform gets the same bytes.

    Raises:
        SpecError: A graph that no pass understands (``index``), or batch statistics that give no finite weights.
    """
    model = inliner.inline_local_functions(model) if model.functions else copied(model)
    graph = model.graph
    named = {i.name for i in graph.initializer}
    drop(graph.input, lambda i: i.name in named)
    _fold_constants(model)
    _fold_batch_norms(graph)
    _spell(model)
    _drop_unread(graph)
    return model


def _fold_constants(model: ModelProto) -> None:
    graph, known = model.graph, types(model)
    values = {i.name: i for i in graph.initializer}
    outputs = index(graph).outputs
    alias: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in graph.node:
        node.input[:] = [alias.get(t, t) for t in node.input]
        constant = _constant(node, values, known, opset(model))
        if constant is not None:
            values[node.output[0]] = graph.initializer.add()
            values[node.output[0]].CopyFrom(initializer(node.output[0], constant))
            _log.info("%s %s is constant", node.op_type, node.name)
        elif _does_nothing(node, known):
            alias[node.output[0]] = node.input[0]
            _log.info("%s %s does nothing", node.op_type, node.name)
            if node.output[0] in outputs:
                kept.append(_identity(node))
        else:
            kept.append(node)
    replace(graph.node, kept)


def _constant(
    node: NodeProto, values: dict[str, TensorProto], known: dict[str, tuple[int, Shape | None]], version: int
) -> Array | None:
    """What a node computes, where that does not depend on the graph's input."""
    if is_op(node, "Constant"):
        (given,) = node.attribute
        value = helper.get_attribute_value(given)
        if given.type == AttributeProto.TENSOR:
            return numpy_helper.to_array(value)
        kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        return np.asarray(value, kinds[given.name]) if given.name in kinds else None
    if is_op(node, "CastLike") and node.input[0] in values and node.input[1] in known:
        element, _ = known[node.input[1]]
        return numpy_helper.to_array(values[node.input[0]]).astype(helper.tensor_dtype_to_np_dtype(element))
    if is_op(node, "Shape") and node.input[0] not in values:
        _, shape = known.get(node.input[0], (0, None))
        axes = None if shape is None else shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))]
        return None if axes is None or not all(isinstance(a, int) for a in axes) else np.asarray(axes, np.int64)
    if not is_op(node, *_MOVES) or not all(t in values for t in node.input if t):
        return None
    return _evaluated(node, {t: numpy_helper.to_array(values[t]) for t in node.input if t}, version)


def _evaluated(node: NodeProto, feeds: dict[str, Array], version: int) -> Array:
    def value(name: str, array: Array) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    out = helper.make_empty_tensor_value_info(node.output[0])
    graph = helper.make_graph([node], "constant", [value(t, a) for t, a in feeds.items()], [out])
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    (result,) = ReferenceEvaluator(alone).run(None, feeds)
    return np.asarray(result)


def _does_nothing(node: NodeProto, known: dict[str, tuple[int, Shape | None]]) -> bool:
    if is_op(node, "Dropout"):
        return len([t for t in node.output if t]) == 1 and len([t for t in node.input if t]) < 3
    if is_op(node, "Cast"):
        element, _ = known.get(node.input[0], (TensorProto.UNDEFINED, None))
        return element == attribute(node, "to", 0)
    return is_op(node, "Identity")


def _identity(node: NodeProto) -> NodeProto:
    """What is left of a node that does nothing, where the graph returns what it makes."""
    identity = helper.make_node("Identity", node.input[:1], node.output[:1], node.name)
    keep(node, identity)
    return identity


def _fold_batch_norms(graph: GraphProto) -> None:
    at = index(graph)
    names = tensor_names(graph)
    folded: list[str] = []
    for norm in graph.node:
        conv = at.producer.get(norm.input[0]) if is_op(norm, "BatchNormalization") else None
        if conv is None or not _can_fold(at, conv, norm):
            continue
        weight, bias = _folded(at, conv, norm)
        pair = [unused(f"{norm.output[0]}_{part}", names) for part in ("weight", "bias")]
        names.update(pair)
        graph.initializer.extend([initializer(pair[0], weight), initializer(pair[1], bias)])
        conv.input[1:] = pair
        conv.output[0] = norm.output[0]
        folded.append(norm.output[0])
        _log.info("BatchNormalization %s is part of Conv %s", norm.name, conv.name)
    gone = set(folded)
    drop(graph.node, lambda n: is_op(n, "BatchNormalization") and n.output[0] in gone)


def _can_fold(at: Index, conv: NodeProto, norm: NodeProto) -> bool:
    return (
        is_op(conv, "Conv")
        and at.only_reader(conv.output[0]) is not None
        and len(norm.output) == 1  # in training mode it has three
        and all(t in at.initializers for t in (*conv.input[1:], *norm.input[1:]) if t)
        and at.initializers[conv.input[1]].data_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
    )


def _folded(at: Index, conv: NodeProto, norm: NodeProto) -> tuple[Array, Array]:
    """Weights and bias of a Conv that does a BatchNormalization's work too (Ioffe and Szegedy, arXiv:1502.03167)."""
    kept = at.array(conv.input[1])
    gamma, beta, mean, var = (at.array(t).astype(np.float64) for t in norm.input[1:])
    bias = at.array(conv.input[2]).astype(np.float64) if len(conv.input) > 2 and conv.input[2] else 0.0
    epsilon = attribute(norm, "epsilon", 1e-5)
    with np.errstate(all="ignore"):  # judged below
        factor = gamma / np.sqrt(var + epsilon)
        weight = (kept.astype(np.float64) * factor.reshape(-1, *[1] * (kept.ndim - 1))).astype(kept.dtype)
        offset = ((bias - mean) * factor + beta).astype(kept.dtype)
    if not (np.isfinite(weight).all() and np.isfinite(offset).all()):
        raise SpecError(
            f"BatchNormalization {norm.name!r} after Conv {conv.name!r} gives weights that are not finite numbers",
            fix=f"look for NaN, infinity or a negative variance in {', '.join([conv.input[1], *norm.input[1:]])}",
        )
    return weight, offset


def _spell(model: ModelProto) -> None:
    """One spelling for the end of a classifier, which exporters write in several ways."""
    graph, known, at = model.graph, types(model), index(model.graph)
    for node in graph.node:
        _, shape = known.get(node.input[0], (0, None)) if node.input else (0, None)
        if shape is None:
            continue
        if is_op(node, "ReduceMean") and _averages_images(node, shape, at):
            del node.attribute[:], node.input[1:]
            node.op_type = "GlobalAveragePool"
        elif is_op(node, "Reshape") and _keeps_batch(shape, known.get(node.output[0], (0, None))[1]):
            del node.attribute[:], node.input[1:]
            node.op_type = "Flatten"


def _averages_images(node: NodeProto, shape: Shape, at: Index) -> bool:
    axes = attribute(node, "axes", list[int]())
    if not axes and len(node.input) > 1 and node.input[1] in at.initializers:
        axes = at.array(node.input[1]).tolist()
    if len(shape) < 3 or not attribute(node, "keepdims", 1):
        return False
    return sorted(a % len(shape) for a in axes) == list(range(2, len(shape)))


def _keeps_batch(before: Shape, after: Shape | None) -> bool:
    if after is None or len(after) != 2 or len(before) < 2:
        return False
    lengths = [axis for axis in before[1:] if isinstance(axis, int)]
    return len(lengths) == len(before) - 1 and math.prod(lengths) == after[1]


def _drop_unread(graph: GraphProto) -> None:
    needed = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    replace(graph.node, kept[::-1])
    drop(graph.initializer, lambda i: i.name not in needed)
    made = {t for node in graph.node for t in node.output}
    drop(graph.value_info, lambda v: v.name not in made)
