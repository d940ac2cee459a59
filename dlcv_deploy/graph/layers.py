"""The layers of a network as an engineer counts them, each with the one tensor that it hands on."""

from __future__ import annotations

import dataclasses as dc

from onnx import ModelProto, NodeProto, TensorProto

from .index import FLOATS, Index, Shape, attribute, index, is_op, taps, types
from .modules import module_of

INPUT = "Input"
"""``Layer.op_type`` of what is no layer but the network's input."""
_ABSORBED = ("Clip", "Dropout", "Flatten", "Identity", "Pad", "Relu", "Reshape", "Slice", "Squeeze", "Transpose",
             "Unsqueeze")  # fmt: skip


@dc.dataclass(frozen=True, slots=True)
class Layer:
    """A product, sum, pool or another operator, with the activation and the reshaping that it alone feeds.

    ``node`` and ``module`` are the operator's; ``op_type`` names all of the layer ("Conv+Relu"); ``tensor`` is what
    comes out at its end. ``reads`` are the layers that it reads, by their places; those of an input are none.
    """

    node: str
    module: str
    op_type: str
    tensor: str
    reads: tuple[int, ...]


def layers(model: ModelProto) -> tuple[Layer, ...]:
    """The inputs of a network, then its layers in the order of computation.

    A ReLU or a Flatten belongs to the layer before it where nothing else reads that: so a layer ends where an engine
    writes a tensor. What is computed from constants alone, or is no floating-point number, is no layer; nor is an
    output that repeats an inner tensor (``index.taps``).
    """
    graph, known = model.graph, types(model)
    repeated = taps(graph)
    at = index(graph, without=repeated)
    found = [Layer(i.name, i.name, INPUT, i.name, ()) for i in graph.input if i.name not in at.initializers]
    made = {layer.tensor: place for place, layer in enumerate(found)}
    for node in graph.node:
        tensor = node.output[0]
        reads = tuple(dict.fromkeys(made[t] for t in node.input if t in made))
        if not reads or tensor in repeated or known.get(tensor, (0, None))[0] not in FLOATS:
            continue
        before = found[reads[0]]
        alone = before.op_type != INPUT and at.only_reader(before.tensor) is node
        if alone and is_op(node, *_ABSORBED):
            found[reads[0]] = dc.replace(before, op_type=f"{before.op_type}+{node.op_type}", tensor=tensor)
            made[tensor] = reads[0]
        else:
            made[tensor] = len(found)
            found.append(Layer(node.name, module_of(node), node.op_type, tensor, reads))
    return tuple(found)


def counterparts(model: ModelProto, lowered: ModelProto, tensors: tuple[str, ...]) -> dict[str, str]:
    """What tensors of a network are in its FP16 or INT8 graph: as what reads them in that precision takes them.

    That is the tensor of the same name, behind the Cast to float16 or the Q/DQ pair on it where there is one: the
    layer's rounding is its own, wherever it is read. A tensor that is not there, is of another shape, or has no free
    batch axis before fixed ones is left out.
    """
    exact, known, at = types(model), types(lowered), index(lowered.graph)
    found = {}
    for tensor in tensors:
        name = _rounded(tensor, at)
        kind, shape = known.get(name, (0, None))
        if kind in FLOATS and _is_batch(shape) and _same(shape, exact.get(tensor, (0, None))[1]):
            found[tensor] = name
    return found


def _rounded(tensor: str, at: Index) -> str:
    while True:
        rounds = (n for n in at.consumers.get(tensor, ()) if _rounds(n) and n.input[0] == tensor)
        node = next(rounds, None)
        if node is None:
            return tensor
        tensor = node.output[0]


def _rounds(node: NodeProto) -> bool:
    half = is_op(node, "Cast") and attribute(node, "to", 0) == TensorProto.FLOAT16
    return half or is_op(node, "QuantizeLinear", "DequantizeLinear")


def _is_batch(shape: Shape | None) -> bool:
    if not shape or isinstance(shape[0], int):
        return False
    return all(isinstance(size, int) for size in shape[1:])


def _same(shape: Shape | None, other: Shape | None) -> bool:
    return shape is not None and other is not None and shape[1:] == other[1:] and _is_batch(other)
