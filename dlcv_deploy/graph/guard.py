"""A lowering for OpenVINO, which up to 2026.4 computes an 8-bit Concat in whole numbers on CPUs.

Its low-precision passes move the quantization behind a Concat to the branches before it, lose the scale on the way, and
round each value to the nearest integer: a map of values from 0 to 6 keeps seven of them. Seen with two or more
convolutions, with and without ReLU, with pairs behind the Concat or before it, on AVX512. A Clip to the range that the
quantization has anyway changes no value, and keeps the passes away: the Concat is then computed in float32. With pairs
before the Concat too, one Clip is not enough, and one on each branch as well is (a GoogLeNet by ONNX Runtime, of 1,000
images: 325 flips without, 122 with one, 14 with all, as on ONNX Runtime).

That is for symmetric int8 as this project writes it. Other tools' uint8 stays as it is: ONNX Runtime's, with a pair on
each branch before the Concat too, is computed right as it stands, and wrong with a Clip (14 flips of 2,000 images
became 231).
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper

from .index import Index, index, initializer, is_op, replace

_LOW, _TOP = -127.75, 127.0
"""In steps: below the lowest level, so that rounding gives it; OpenVINO takes out a Clip to the full range of 128."""
_BEYOND = 130.0
"""Steps that no level reaches."""


def guard_concat(model: ModelProto) -> ModelProto:
    """The same network with a Clip before each QuantizeLinear that takes what a Concat gives, itself or by a ReLU.

    Where that Concat takes what a DequantizeLinear gives, there is a Clip between the two as well.
    """
    new = ModelProto()
    new.CopyFrom(model)
    graph, at = new.graph, index(new.graph)
    symmetric = [node for node in graph.node if is_op(node, "QuantizeLinear") and _symmetric(at, node)]
    concats = {node.output[0]: concat for node in symmetric if (concat := _concat(at, node.input[0])) is not None}
    joined = {concat.output[0] for concat in concats.values()}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.output[0] in concats:
            nodes.append(_clip(graph, at, node, 0, node.input[1], (_LOW, _TOP)))
        elif node.output[0] in joined:
            for place, tensor in enumerate(node.input):
                given = at.producer.get(tensor)
                if given is not None and is_op(given, "DequantizeLinear"):
                    nodes.append(_clip(graph, at, node, place, given.input[1], (-_BEYOND, _BEYOND)))
        nodes.append(node)
    replace(graph.node, nodes)
    return new


def _clip(
    graph: GraphProto, at: Index, node: NodeProto, place: int, scale: str, steps: tuple[float, float]
) -> NodeProto:
    """Make a node read one of its inputs through the Clip that is returned."""
    own = f"{node.output[0]}_clip{place or ''}"
    for name, bound in zip((f"{own}_min", f"{own}_max"), steps, strict=True):
        graph.initializer.append(initializer(name, np.asarray(bound * at.array(scale).astype(np.float64), np.float32)))
    clip = helper.make_node("Clip", [node.input[place], f"{own}_min", f"{own}_max"], [own], own)
    node.input[place] = own
    return clip


def _symmetric(at: Index, node: NodeProto) -> bool:
    """Whether a QuantizeLinear gives int8 around 0; without a zero point it gives uint8."""
    if len(node.input) < 3 or node.input[2] not in at.initializers:
        return False
    zero = at.array(node.input[2])
    return zero.dtype == np.int8 and not zero.any()


def _concat(at: Index, tensor: str) -> NodeProto | None:
    """The Concat that gives a tensor, itself or by a ReLU."""
    node = at.producer.get(tensor)
    while node is not None and is_op(node, "Relu"):
        node = at.producer.get(node.input[0])
    return node if node is not None and is_op(node, "Concat") else None
