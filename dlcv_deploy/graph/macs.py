"""How many multiply-adds each product of a network takes."""

from __future__ import annotations

import math

from onnx import ModelProto, NodeProto

from ..errors import SpecError
from .index import Shape, attribute, is_op, types

PRODUCTS = ("Conv", "Gemm", "MatMul")


def multiply_adds(model: ModelProto) -> dict[str, int]:
    """Multiply-adds for one image of every Conv, Gemm and MatMul by node name, in the order of the graph.

    They are those of the papers' tables and of ``models.cost``: values given times values summed up for each. Q/DQ
    pairs and Casts change nothing. The first axis of what a node gives counts images.

    Raises:
        SpecError: The size of a product cannot be inferred.
    """
    known = {tensor: shape for tensor, (_, shape) in types(model).items()}
    return {node.name or node.output[0]: _count(node, known) for node in model.graph.node if is_op(node, *PRODUCTS)}


def _count(node: NodeProto, known: dict[str, Shape | None]) -> int:
    data, weight, given = (known.get(t) for t in (node.input[0], node.input[1], node.output[0]))
    summed: Shape | None
    if is_op(node, "Conv"):
        summed = weight and weight[1:]
    elif is_op(node, "Gemm"):
        summed = data and data[:1] if attribute(node, "transA", 0) else data and data[1:]
    else:
        summed = data and data[-1:]
    sizes = [n for n in (*(given or (None,))[1:], *(summed or (None,))) if isinstance(n, int)]
    if given is None or summed is None or len(sizes) != len(given) - 1 + len(summed):
        raise SpecError(
            f"the multiply-adds of {node.op_type} {node.name!r} are not known: its sizes cannot be inferred",
            fix="export the network with fixed sizes besides its batch",
        )
    return math.prod(sizes)
