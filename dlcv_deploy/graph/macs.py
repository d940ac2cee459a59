"""The products of a network: how many multiply-adds each takes, and which of them a graph states in INT8."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorProto, helper

from ..errors import SpecError
from .index import Index, Shape, attribute, index, is_op, types
from .modules import module_of

PRODUCTS = ("Conv", "Gemm", "MatMul")
Types = Mapping[str, tuple[int, Shape | None]]


@dc.dataclass(frozen=True, slots=True)
class Product:
    """A Conv, Gemm or MatMul: its name, the PyTorch module it stems from, and its multiply-adds for one image.

    ``dtype`` is NumPy's name of the type it gives. ``int8_data`` and ``int8_weight`` are the int8 tensors that it
    reads by a DequantizeLinear, with a Cast behind it or not; empty where it reads others.
    """

    name: str
    module: str
    op_type: str
    multiply_adds: int
    dtype: str
    int8_data: str
    int8_weight: str


def multiply_adds(model: ModelProto) -> dict[str, int]:
    """Multiply-adds for one image of every Conv, Gemm and MatMul by node name, in the order of the graph.

    They are those of the papers' tables and of ``models.cost``: values given times values summed up for each. Q/DQ
    pairs and Casts change nothing. The first axis of what a node gives counts images.

    Raises:
        SpecError: The size of a product cannot be inferred; a graph that no pass understands.
    """
    return {product.name: product.multiply_adds for product in products(model)}


def products(model: ModelProto) -> tuple[Product, ...]:
    """Every Conv, Gemm and MatMul in the order of the graph; a node without a name goes by that of its output.

    Raises:
        SpecError: As ``multiply_adds``.
    """
    known, at = types(model), index(model.graph)
    return tuple(_product(node, known, at) for node in model.graph.node if is_op(node, *PRODUCTS))


def _product(node: NodeProto, known: Types, at: Index) -> Product:
    name = node.name or node.output[0]
    element, _ = known.get(node.output[0], (TensorProto.UNDEFINED, None))
    dtype = helper.tensor_dtype_to_np_dtype(element).name if element else "unknown"
    data, weight = (_int8(tensor, known, at) for tensor in node.input[:2])
    return Product(name, module_of(node) or name, node.op_type, _count(node, known), dtype, data, weight)


def _int8(tensor: str, known: Types, at: Index) -> str:
    node = at.producer.get(tensor)
    if node is not None and is_op(node, "Cast"):
        node = at.producer.get(node.input[0])
    if node is None or not is_op(node, "DequantizeLinear"):
        return ""
    return node.input[0] if known.get(node.input[0], (0, None))[0] == TensorProto.INT8 else ""


def _count(node: NodeProto, known: Types) -> int:
    data, weight, given = (known.get(t, (0, None))[1] for t in (node.input[0], node.input[1], node.output[0]))
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
