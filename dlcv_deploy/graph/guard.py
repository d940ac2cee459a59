"""A lowering for OpenVINO, which up to 2026.4 computes an 8-bit Concat in whole numbers on CPUs.

Its low-precision passes move the quantization behind a Concat to the branches before it, lose the scale on the way, and
round each value to the nearest integer: a map of values from 0 to 6 keeps seven of them. Seen with two or more
convolutions, with and without ReLU, with pairs behind the Concat or before it, on AVX512. A Clip to the range that the
quantization has anyway changes no value, and keeps the passes away: the Concat is then computed in float32.

That is for symmetric int8 as this project writes it. Other tools' uint8 stays as it is: ONNX Runtime's, with a pair on
each branch before the Concat too, is computed right as it stands, and wrong with a Clip (14 flips of 2,000 images
became 231).
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper

from .index import Index, index, initializer, is_op, replace

_LOW, _TOP = -127.75, 127.0
"""In steps: below the lowest level, so that rounding gives it; OpenVINO takes out a Clip to the full range of 128."""


def guard_concat(model: ModelProto) -> ModelProto:
    """The same network with a Clip before each QuantizeLinear that takes what a Concat gives, itself or by a ReLU."""
    new = ModelProto()
    new.CopyFrom(model)
    at = index(new.graph)
    nodes: list[NodeProto] = []
    for node in new.graph.node:
        if is_op(node, "QuantizeLinear") and _symmetric(at, node) and _from_concat(at, node.input[0]):
            scale = at.array(node.input[1]).astype(np.float64)
            own = f"{node.output[0]}_clip"
            for name, steps in ((f"{own}_min", _LOW), (f"{own}_max", _TOP)):
                new.graph.initializer.append(initializer(name, np.asarray(steps * scale, np.float32)))
            nodes.append(helper.make_node("Clip", [node.input[0], f"{own}_min", f"{own}_max"], [own], own))
            node.input[0] = own
        nodes.append(node)
    replace(new.graph.node, nodes)
    return new


def _symmetric(at: Index, node: NodeProto) -> bool:
    """Whether a QuantizeLinear gives int8 around 0; without a zero point it gives uint8."""
    if len(node.input) < 3 or node.input[2] not in at.initializers:
        return False
    zero = at.array(node.input[2])
    return zero.dtype == np.int8 and not zero.any()


def _from_concat(at: Index, tensor: str) -> bool:
    node = at.producer.get(tensor)
    while node is not None and is_op(node, "Relu"):
        node = at.producer.get(node.input[0])
    return node is not None and is_op(node, "Concat")
