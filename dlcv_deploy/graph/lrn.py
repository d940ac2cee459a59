"""A lowering for TensorRT: LRN, and the MaxPool behind it, as nodes of this package's plugin.

``DlcvLRN`` and ``DlcvLRNMaxPool`` (domain ``dlcv``) take and give one type, float32, float16 or int8, and compute in
float32 between. So the Casts that FP16 needs around an LRN go, and so do the pairs that INT8 has there: their scales
become attributes. Taking the largest commutes with rounding, so a pool may come before the rounding or after it.
"""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from ..types import LeftAlone
from .index import Index, Shape, attribute, copied, drop, index, is_op, replace, types
from .modules import keep

DOMAIN, VERSION = "dlcv", 1
WIDEST = 15
"""The largest window that the kernels have, in channels and in pixels."""

_SINGLE, _HALF, _INT8 = int(TensorProto.FLOAT), int(TensorProto.FLOAT16), int(TensorProto.INT8)

_PLACES = {"HLCP": "", "HLC": "", "DLQDPQ": "", "DLPQ": "", "DLQ": "", "LQDP": "Q", "LP": "", "L": ""}
"""Chains that the plugin can stand for, best first, in the letters of ``_letter``, and what must come behind them."""

_ELSEWHERE = "it is not all that reads what the LRN gives"
_BETWEEN = "between the LRN and it stands a conversion that the plugin cannot take in"

Types = Mapping[str, tuple[int, Shape | None]]


@dc.dataclass(frozen=True, slots=True)
class Lowering:
    """A graph with the plugin's nodes in place of LRN.

    ``lowered`` names those nodes in the order of the LRNs, each after what it stands for: ``lrn_1``, or
    ``lrn_1+max_pool_1``. ``left_alone`` are each LRN that stays, and each MaxPool behind a lowered LRN that stays.
    """

    model: ModelProto
    lowered: tuple[str, ...]
    left_alone: tuple[LeftAlone, ...]


def lower_lrn(model: ModelProto) -> Lowering:
    """Make every LRN, with the MaxPool behind it where that alone reads what it gives, a node of the plugin.

    It has the type of the tensors around: float16 between Casts from and to float16, int8 between a DequantizeLinear
    and a QuantizeLinear, and float32 else, so also where only one side is int8. The padding of a pool is written out,
    with its ``ceil_mode`` and ``auto_pad``. Tensors that stay keep their names.

    Args:
        model: An fp32 network, as it is or as ``to_half`` or ``quantize`` leaves it; not changed.

    Raises:
        SpecError: A graph that no pass understands.
    """
    at, known = index(model.graph), _known(model)
    made: dict[str, NodeProto] = {}  # by the tensor that each gives
    gone: set[str] = set()  # outputs of the nodes that they stand for
    left_alone: list[LeftAlone] = []
    for node in model.graph.node:
        if not is_op(node, "LRN"):
            continue
        if reason := _why_not(node, known):
            left_alone.append(LeftAlone(node.name, node.op_type, reason))
            continue
        nodes, new = _place(node, at, known)
        made[new.output[0]] = new
        gone.update(n.output[0] for n in nodes if n.output[0] != node.input[0])
        apart = [pool for pool in _pools(node, at, known) if pool.output[0] not in gone]
        left_alone += [LeftAlone(pool.name, pool.op_type, _why_apart(node, pool, at, known)) for pool in apart]
    lowered = tuple(node.name for node in made.values())
    return Lowering(_rewritten(model, made, gone, known), lowered, tuple(left_alone))


def _known(model: ModelProto) -> Types:
    """What ``types`` tells, but for the sizes that follow from a pool whose windows shape inference counts wrongly."""
    known, wrong = types(model), set[str]()
    for node in model.graph.node:
        is_wrong = not wrong.isdisjoint(node.input)
        if is_op(node, "AveragePool", "LpPool", "MaxPool") and (axes := _windows(node, known)) is not None:
            _, shape = known.get(node.output[0], (0, None))
            is_wrong |= shape is not None and shape[2:] != tuple(count for count, _, _ in axes)
        for tensor in node.output if is_wrong else ():
            element, shape = known.get(tensor, (0, None))
            known[tensor] = element, shape and (None,) * len(shape)
            wrong.add(tensor)
    return known


def _why_not(lrn: NodeProto, known: Types) -> str:
    """What the plugin lacks for an LRN; nothing where it serves."""
    element, shape = known.get(lrn.input[0], (0, None))
    if shape is None or len(shape) != 4:
        axes = "an unknown number of" if shape is None else len(shape)
        return f"its input has {axes} axes, not the four of images: N, C, H, W"
    if element not in (_SINGLE, _HALF):
        return f"it is computed in {TensorProto.DataType.Name(element).lower()}, which the plugin does not have"
    size, numbers = attribute(lrn, "size", 0), _numbers(lrn)
    if not 1 <= size <= WIDEST:
        return f"its window is {size} channels wide, and the plugin's are 1 to {WIDEST}"
    if size % 2 == 0:
        return f"its window of {size} channels has no centre"
    if not all(map(math.isfinite, numbers.values())):
        return "its alpha, beta or bias is not a finite number"
    if numbers["bias"] < 0:
        return f"its bias is {numbers['bias']:g}, and the plugin takes none below 0"
    return ""


def _numbers(lrn: NodeProto) -> dict[str, float]:
    defaults = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    return {name: attribute(lrn, name, default) for name, default in defaults.items()}


def _place(lrn: NodeProto, at: Index, known: Types) -> tuple[list[NodeProto], NodeProto]:
    """The chain of nodes around an LRN that the plugin stands for, and the node that it becomes."""
    before = at.producer.get(lrn.input[0])
    chain = [before] if before is not None and _letter(before, at, known) in set("HD") else []
    middle = len(chain)
    chain += _path(lrn, at, known)
    letters = "".join(_letter(node, at, known) for node in chain)
    for pattern, behind in _PLACES.items():
        start = middle if pattern.startswith("L") else 0
        stop = start + len(pattern)
        if not letters.startswith(pattern + behind, start):
            continue
        nodes = chain[start:stop]
        window = _window(nodes[pattern.index("P")], known) if "P" in pattern else {}
        scales = {_scale(node, at, known) for node in chain[middle : stop + len(behind)]} - {0.0}
        if isinstance(window, str) or len(scales) > 1:
            continue
        steps = (_scale(nodes[0], at, known), *scales) if pattern.startswith("D") else ()
        return nodes, _node(lrn, nodes, window, dict(zip(("input_scale", "output_scale"), steps, strict=False)))
    raise AssertionError("an LRN alone is the last of the chains")


def _node(
    lrn: NodeProto, nodes: Sequence[NodeProto], window: Mapping[str, Sequence[int]], steps: Mapping[str, float]
) -> NodeProto:
    """The plugin's node, with ONNX's attributes: alpha is divided by the size."""
    op = "DlcvLRNMaxPool" if window else "DlcvLRN"
    name = "+".join(node.name or node.output[0] for node in nodes if is_op(node, "LRN", "MaxPool"))
    attributes: dict[str, Any] = {"size": attribute(lrn, "size", 0), **_numbers(lrn), **window, **steps}
    node = helper.make_node(op, nodes[0].input[:1], nodes[-1].output[:1], name, domain=DOMAIN, **attributes)
    keep(lrn, node)
    return node


def _path(lrn: NodeProto, at: Index, known: Types) -> list[NodeProto]:
    """An LRN and what follows, each node alone in reading what the one before gives, as far as the plugin knows it."""
    nodes = [lrn]
    while (reader := at.only_reader(nodes[-1].output[0])) is not None and _letter(reader, at, known) in set("CPQD"):
        nodes.append(reader)
    return nodes


def _letter(node: NodeProto, at: Index, known: Types) -> str:
    """L for an LRN, P for a MaxPool, Q and D to and from int8, C and H for a Cast to and from float16; else nothing."""
    if is_op(node, "Cast"):
        change = [known.get(t, (0, None))[0] for t in (node.input[0], node.output[0])]
        return {(_SINGLE, _HALF): "C", (_HALF, _SINGLE): "H"}.get((change[0], change[1]), "")
    if is_op(node, "QuantizeLinear", "DequantizeLinear"):
        return node.op_type[0] if _scale(node, at, known) else ""
    return "L" if is_op(node, "LRN") else "P" if is_op(node, "MaxPool") else ""


def _scale(node: NodeProto, at: Index, known: Types) -> float:
    """Of a QuantizeLinear to or a DequantizeLinear from int8 with one scale and a zero point of 0; else 0."""
    ends = {"QuantizeLinear": (node.input[0], node.output[0]), "DequantizeLinear": (node.output[0], node.input[0])}
    if not is_op(node, *ends):
        return 0.0
    wide, narrow = (known.get(t, (0, None))[0] for t in ends[node.op_type])
    if wide not in (_SINGLE, _HALF) or narrow != _INT8:
        return 0.0
    scale, zero = node.input[1], node.input[2] if len(node.input) > 2 else ""
    if scale not in at.initializers or (zero and (zero not in at.initializers or np.any(at.array(zero)))):
        return 0.0
    values = at.array(scale)
    value = float(values.reshape(-1)[0]) if values.size == 1 else 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _window(pool: NodeProto, known: Types) -> dict[str, list[int]] | str:
    """A MaxPool's window with all padding written out, or what the plugin lacks for it."""
    kernel, gaps = attribute(pool, "kernel_shape", [0, 0]), attribute(pool, "dilations", [1, 1])
    if any(pool.output[1:]):
        return "it also gives the places of the values"
    if any(gap != 1 for gap in gaps):
        return f"its windows have gaps: its dilations are {gaps[0]} and {gaps[1]}"
    if not all(1 <= k <= WIDEST for k in kernel):
        return f"its window is {kernel[0]} x {kernel[1]} pixels, and the plugin's are 1 to {WIDEST}"
    axes = _windows(pool, known)
    if axes is None:
        return "the height or width of its input is not known"
    counts, pads = [count for count, _, _ in axes], [p for side in (1, 2) for p in (axis[side] for axis in axes)]
    if any(not 0 <= pad < k for pad, k in zip(pads, [*kernel, *kernel], strict=True)):
        return f"its padding {pads} is negative, or not smaller than its window of {kernel[0]} x {kernel[1]}"
    if min(counts) < 1:
        return f"its window of {kernel[0]} x {kernel[1]} pixels is larger than its padded input"
    return {"kernel_shape": list(kernel), "strides": list(attribute(pool, "strides", [1, 1])), "pads": pads}


def _windows(pool: NodeProto, known: Types) -> list[tuple[int, int, int]] | None:
    """Windows of a pool along height and width, and the padding before and behind that they need; None if not known.

    With ``ceil_mode`` the last window may stand over the edge, but starts before the padding behind (ONNX, MaxPool:
    windows that would start there are ignored; PyTorch and ONNX Runtime do so, ONNX's shape inference does not). So
    it stands over by less than its width, and with that for padding, rounding down gives as many windows.
    """
    _, shape = known.get(pool.input[0], (0, None))
    lengths = [n for n in (shape or ())[2:] if isinstance(n, int)]
    kernel, pads = attribute(pool, "kernel_shape", list[int]()), attribute(pool, "pads", [0, 0, 0, 0])
    if not len(lengths) == len(kernel) == 2:
        return None
    strides, gaps = attribute(pool, "strides", [1, 1]), attribute(pool, "dilations", [1, 1])
    auto, is_ceil = attribute(pool, "auto_pad", b"NOTSET").decode(), attribute(pool, "ceil_mode", 0)
    axes = []
    for n, k, stride, gap, begin, end in zip(lengths, kernel, strides, gaps, pads, pads[2:], strict=False):
        width = (k - 1) * gap + 1
        if auto.startswith("SAME"):
            total = (-(-n // stride) - 1) * stride + width - n
            begin, end = total // 2, total - total // 2
            if auto == "SAME_LOWER":
                begin, end = end, begin
        elif is_ceil:
            count = -(-(n + begin + end - width) // stride) + 1
            count -= (count - 1) * stride >= n + begin
            end = max((count - 1) * stride + width - n - begin, 0)
        axes.append(((n + begin + end - width) // stride + 1, begin, end))
    return axes


def _pools(lrn: NodeProto, at: Index, known: Types) -> Iterator[NodeProto]:
    """Every MaxPool that reads what an LRN gives, through conversions too."""
    tensors = [lrn.output[0]]
    for tensor in tensors:
        for reader in at.consumers.get(tensor, ()):
            if is_op(reader, "MaxPool"):
                yield reader
            elif _letter(reader, at, known) in set("CQD"):
                tensors.append(reader.output[0])


def _why_apart(lrn: NodeProto, pool: NodeProto, at: Index, known: Types) -> str:
    """Why a MaxPool behind an LRN is not part of its node."""
    if pool not in _path(lrn, at, known):
        return _ELSEWHERE
    window = _window(pool, known)
    return window if isinstance(window, str) else _BETWEEN


def _rewritten(model: ModelProto, made: Mapping[str, NodeProto], gone: set[str], known: Types) -> ModelProto:
    new = copied(model)
    if not made:
        return new
    graph = new.graph
    nodes = [made.get(n.output[0], n) for n in graph.node if n.output[0] in made or n.output[0] not in gone]
    kept = {t for node in nodes for t in node.input} | {o.name for o in graph.output}
    unread = {t for node in graph.node if node.output[0] in gone for t in node.input} - kept
    nodes = [n for n in nodes if n.output[0] not in unread]  # the Cast or DequantizeLinear before an LRN
    kept = {t for node in nodes for t in (*node.input, *node.output)} | {o.name for o in graph.output}
    replace(graph.node, nodes)
    drop(graph.initializer, lambda i: i.name not in kept)
    drop(graph.value_info, lambda v: v.name not in kept)
    said = {v.name for v in (*graph.value_info, *graph.output)}
    shapes = {t: known[t] for t in made if t not in said}
    graph.value_info.extend(helper.make_tensor_value_info(t, element, shape) for t, (element, shape) in shapes.items())
    if DOMAIN not in {o.domain for o in new.opset_import}:
        new.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    return new
