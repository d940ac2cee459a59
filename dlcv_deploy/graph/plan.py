"""Where Q/DQ pairs go, so that TensorRT and OpenVINO fuse them into their convolutions.

Found by compiling ResNet-18, 20 and 50 (OpenVINO 2026.4's runtime model, the tensor types in TensorRT-RTX 1.7's
engine): with pairs on the inputs of convolutions and on the shortcut of each residual sum, every convolution runs in
int8 and takes in bias, sum, ReLU and the next Q. An option A shortcut (Slice, Pad) and the stem's MaxPool run in int8
only where the pairs before and after them share one scale; then the second pair loses nothing.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Set

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from ..errors import SpecError
from ..types import LeftAlone
from .index import Index, attribute, index, is_op, taps

PRODUCTS = ("Conv", "Gemm", "MatMul")
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
_THROUGH = "it reads and gives int8, and computes its sums of squares and its power in float32"
_OTHER = "only convolutions, matrix products and residual sums are computed in int8"
_PLAIN_SUM = "neither input is an int8 convolution that feeds this sum alone, so there is nothing to fuse it into"
_GROUP_OF = 4
"""TensorRT's NvInfer.h, IConvolutionLayer::setNbGroups: channels of a group in INT8, in and out."""
_SUM_ASKED = "residual sums were asked to stay in floating point"
_ASKED = "it was chosen to stay in floating point"
_CONSTANT_SUM = "it adds a constant, which takes little time beside the convolutions"


@dc.dataclass(slots=True)
class Plan:
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


def plan(
    graph: GraphProto,
    dead: Set[str] = frozenset(),
    *,
    through_lrn: bool = False,
    floats: Set[str] = frozenset(),
    sums: bool = True,
) -> Plan:
    """Where pairs go in a graph, and what is left alone.

    Args:
        graph: Of an fp32 network.
        dead: Tensors that are always 0.
        through_lrn: Whether an LRN reads a pair too, where int8 nodes alone read what it gives, themselves or by one
            MaxPool: for a kernel that takes int8, normalizes in float32 and gives int8.
        floats: Names of nodes that are to stay in floating point.
        sums: Whether residual sums read a pair.

    Raises:
        SpecError: A graph that no pass understands, or one that is quantized already.
    """
    found, at = Plan(), index(graph, without=taps(graph))
    zero = set(dead)
    depth: dict[str, int] = {}
    convs: dict[str, bool] = {}  # output of a Conv that can be quantized: whether it is
    for node in graph.node:
        depth[node.output[0]] = 1 + max((depth.get(t, 0) for t in node.input), default=0)
        position, reason = 0, ""
        if is_op(node, "QuantizeLinear", "DequantizeLinear"):
            raise SpecError("the graph is quantized already", fix="start from the fp32 export")
        if is_op(node, *PRODUCTS):
            reason = _why_no_product(node, at)
        elif is_op(node, "Add"):
            mains = [p for p in (0, 1) if node.input[p] in convs and at.only_reader(node.input[p]) is node]
            main = max(mains, key=[depth.get(t, 0) for t in node.input].__getitem__, default=0)
            position = 1 - main
            fuses = bool(mains) and convs[node.input[main]]
            constant = any(t in at.initializers for t in node.input)
            reason = _CONSTANT_SUM if constant else _PLAIN_SUM if not fuses else "" if sums else _SUM_ASKED
        elif is_op(node, *_SILENT):
            zero.update(node.output if _moves(node, at) and node.input[0] in zero else ())
            continue
        else:
            reason = _REASONS.get(node.op_type, _OTHER)
        is_conv = is_op(node, "Conv") and not reason
        if not reason and node.name in floats:
            reason = _ASKED
        if not reason and node.input[position] in zero:
            reason = f"its input {node.input[position]} was 0 on every calibration image"
        if is_conv:
            convs[node.output[0]] = not reason
        if reason:
            found.left_alone.append(LeftAlone(node.name, node.op_type, reason))
        else:
            found.read(node, position)
            found.quantized.append(node.name)
    _carry_through(found, at, [t for node in graph.node for t in node.output if t in found.range_of])
    if through_lrn:
        for node in graph.node:
            if is_op(node, "LRN") and node.input[0] not in zero:
                _go_through(node, found, at)
    return found


def _why_no_product(node: NodeProto, at: Index) -> str:
    weight = at.initializers.get(node.input[1])
    if weight is None or node.input[0] in at.initializers:
        return "its weight is computed at run time"
    if weight.data_type != TensorProto.FLOAT:
        return f"its weight is {TensorProto.DataType.Name(weight.data_type).lower()}, not float32"
    if attribute(node, "transA", 0) or (node.op_type == "MatMul" and len(weight.dims) != 2):
        return "it is not a product of activations with one weight matrix"
    groups = attribute(node, "group", 1)
    if groups > 1 and (weight.dims[0] // groups % _GROUP_OF or weight.dims[1] % _GROUP_OF):
        return f"TensorRT takes groups of {_GROUP_OF} channels, 8, 12 ... alone in int8, and it has others"
    return ""


def _carry_through(plan: Plan, at: Index, tensors: Iterable[str]) -> None:
    """Share one scale across operators that only move values, so that they work on int8: back from each tensor.

    Where a tensor with a pair was moved from another with a pair, it takes the other's scale and the moving starts
    from the other's pair. Where one MaxPool made it from a tensor that nothing else reads, that tensor gets a pair with
    its scale; not across more (TensorRT-RTX dequantizes before the MaxPool if Flatten stands before the second pair).
    """
    for tensor in tensors:
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


def _go_through(lrn: NodeProto, plan: Plan, at: Index) -> None:
    """Put a pair on what an LRN reads, where what it gives, or a MaxPool gives of that, is read in int8 alone."""
    end = lrn.output[0]
    pool = at.only_reader(end)
    if pool is not None and is_op(pool, "MaxPool") and _moves(pool, at):
        end = pool.output[0]
    if end not in plan.range_of or not plan.only_int8(at, end):
        return
    new = [t for t in lrn.input if t not in plan.range_of]  # of one with a pair, others may have taken the range
    plan.read(lrn, 0)
    _carry_through(plan, at, [*new, end])
    alone = LeftAlone(lrn.name, lrn.op_type, _THROUGH)
    plan.left_alone[:] = [alone if left.node == lrn.name else left for left in plan.left_alone]


def _moves(node: NodeProto, at: Index) -> bool:
    if not is_op(node, *_MOVERS) or len(node.output) != 1:
        return False
    filler = node.input[2] if is_op(node, "Pad") and len(node.input) > 2 else ""
    return not filler or (filler in at.initializers and not np.any(at.array(filler)))
