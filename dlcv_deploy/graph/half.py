"""FP16 typed into the graph: what computes in half precision, and the Casts around what does not.

In an INT8 graph that is all between a DequantizeLinear and the next QuantizeLinear. TensorRT takes both at their word:
they give, and read, the type of their scale (ONNX from version 19 on), and a Cast between them and a convolution may
keep it from INT8. So their scales become float16, as NVIDIA's ModelOpt writes them; TensorRT for RTX 1.7 then builds
the same INT8 kernels as of the float32 graph, with float16 in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, defs, helper

from ..errors import SpecError
from ..types import LeftAlone
from .index import (
    Array,
    Index,
    check_finite,
    copied,
    drop,
    index,
    initializer,
    is_op,
    opset,
    replace,
    schema,
    taps,
    types,
)

_TOP, _LEAST = 65504, 2.0**-14
"""The largest float16, and the smallest with all its digits."""
_HALF, _SINGLE = int(TensorProto.FLOAT16), int(TensorProto.FLOAT)
_SUFFIX = {_HALF: "fp16", _SINGLE: "fp32"}

_KEPT = {
    "LRN": "its sums of squares leave the range of float16 where an activation is above 255",
    "Softmax": "float16 would round its small probabilities to 0",
}
_SINGLE_ONLY = "ONNX does not define it for float16"
_SOURCE = "it makes float32 values and reads none"
_TURNS = "it stands between float32 and int8 alone, and float16 would only round"
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_QUANTIZED_IN_HALF = 19
"""The operator set from which on the standard has Q/DQ of float16; it changes nothing else since 18."""


def to_half(model: ModelProto) -> tuple[ModelProto, tuple[LeftAlone, ...]]:
    """The network in FP16, and the nodes that stay in float32.

    Float initializers and tensors become float16; the graph's inputs and outputs stay float32, with one Cast each (an
    output that repeats an inner tensor is that tensor's Cast).
    LRN, Softmax and operators that ONNX does not define for float16 stay in float32 between Casts. No tensor is cast
    twice, and no Cast that is added reads another.

    Of an INT8 graph, int8 stays what it is. A QuantizeLinear reads float32 where that is what comes, from the input or
    from an LRN, by a pool or not, and float16 else; a DequantizeLinear gives float16, or float32 where LRN alone reads
    it. Scales are rounded to float16, the same for both; one that float16 would cut digits off keeps float32 and gets
    Casts. A weight's scale so changes by 2^-12 of itself at most, which is what FP16 does to weights.

    Raises:
        SpecError: A weight above 65504 in magnitude, NaN or infinite; a graph that no pass understands, or whose types
            cannot be inferred; an INT8 graph with an opset below 18.
    """
    check_finite(model.graph)
    model = _with_half_pairs(model)
    known = types(model)
    for node in model.graph.node:
        unknown = [t for t in node.output if t and t not in known]
        if unknown:
            raise SpecError(
                f"the type of {unknown[0]!r}, which {node.op_type} {node.name!r} makes, cannot be inferred",
                fix="use standard ONNX operators, or build in fp32",
            )
    at = index(model.graph)
    typed = _Typed(at, frozenset(t for t, (element, _) in known.items() if element == _SINGLE), _before_int8(model, at))
    model = copied(model)
    version, repeated = opset(model), taps(model.graph)
    left_alone = []
    for node in model.graph.node:
        if node.output[0] in repeated and typed.repeat(node):
            continue
        if is_op(node, "QuantizeLinear", "DequantizeLinear"):
            typed.pair(node)
            continue
        reason = typed.add(node, None if is_op(node, *_KEPT) else schema(node, version))
        if reason:
            left_alone.append(LeftAlone(node.name, node.op_type, reason))
    drop(model.graph.initializer, lambda i: i.data_type == _SINGLE)
    model.graph.initializer.extend(typed.initializers.values())
    replace(model.graph.node, typed.nodes)
    del model.graph.value_info[:]
    return model, tuple(left_alone)


def _with_half_pairs(model: ModelProto) -> ModelProto:
    """The model, with an operator set that has Q/DQ of float16 where it has any."""
    if opset(model) >= _QUANTIZED_IN_HALF or not any(is_op(n, "QuantizeLinear") for n in model.graph.node):
        return model
    if opset(model) < _QUANTIZED_IN_HALF - 1:
        raise SpecError(
            f"an int8 graph with opset {opset(model)} cannot be turned into fp16", fix="export with opset 18 or later"
        )
    model = copied(model)
    next(o for o in model.opset_import if o.domain in ("", "ai.onnx")).version = _QUANTIZED_IN_HALF
    model.ir_version = max(model.ir_version, helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True))
    return model


def _before_int8(model: ModelProto, at: Index) -> frozenset[str]:
    """What nodes that are no products give to a QuantizeLinear alone, at once or by other such nodes."""
    found: set[str] = set()
    for node in reversed(model.graph.node):
        readers = [n for t in node.output for n in at.consumers.get(t, ())]
        ends = all(is_op(n, "QuantizeLinear") or n.output[0] in found for n in readers)
        if readers and ends and not is_op(node, *_PRODUCTS) and at.outputs.isdisjoint(node.output):
            found.add(node.output[0])
    return frozenset(found)


class _Typed:
    """Nodes with their Casts, and float initializers in the types they are read in, in the order they were added.

    ``before_int8`` are tensors that stay float32 where they are made of nothing else.
    """

    def __init__(self, at: Index, floats: frozenset[str], before_int8: frozenset[str]) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self._at, self._floats, self._before_int8 = at, floats, before_int8
        self._made: dict[str, int] = {}  # the type a node makes a float tensor in; the graph's inputs are not here
        self._names: dict[tuple[str, int], str] = {}  # what a float tensor is called in a type

    def add(self, node: NodeProto, known: defs.OpSchema | None) -> str:
        """Add a node and the Casts it needs; returns why it stays in float32, or nothing where it does not."""
        is_cast = is_op(node, "Cast")
        reads_floats = bool(self._floats.intersection(node.input))
        if turns := self._turns(node):
            known = None
        for position, tensor in enumerate(node.input):
            if tensor in self._floats:
                element = _defined(known.inputs, position) if known else _SINGLE
                node.input[position] = self._read(tensor, self._made.get(tensor, _SINGLE) if is_cast else element)
        made = []
        after = []
        for position, tensor in enumerate(node.output):
            if tensor not in self._floats:
                continue
            made.append(_defined(known.outputs, position) if known and (reads_floats or is_cast) else _SINGLE)
            self._made[tensor] = made[-1]
            if tensor in self._at.outputs and made[-1] == _HALF:
                node.output[position] = self._names[tensor, _HALF] = f"{tensor}_fp16"
                after.append(self._cast(tensor, _SINGLE, tensor))
            else:
                self._names[tensor, made[-1]] = tensor
            if is_cast:
                next(a for a in node.attribute if a.name == "to").i = made[-1]
        self.nodes += [node, *after]
        if _SINGLE not in made:
            return ""
        if turns:
            return _TURNS
        return _KEPT.get(node.op_type, _SINGLE_ONLY) if reads_floats else _SOURCE

    def _turns(self, node: NodeProto) -> bool:
        """Whether a node makes, of float32 alone, what only becomes int8."""
        read = [t for t in node.input if t in self._floats and t not in self._at.initializers]
        wide = all(self._made.get(t, _SINGLE) == _SINGLE for t in read)
        return bool(read) and wide and node.output[0] in self._before_int8 and not is_op(node, *_KEPT)

    def pair(self, node: NodeProto) -> None:
        """Add a QuantizeLinear or a DequantizeLinear, with its scale in the type that it reads or gives."""
        reads = is_op(node, "QuantizeLinear")
        tensor, scale = node.input[0] if reads else node.output[0], node.input[1]
        whole = np.asarray(self._at.array(scale) if scale in self._at.initializers else 0, np.float64)
        fits = bool(np.all((whole >= _LEAST) & (whole <= _TOP)))
        element = _HALF if fits and self._is_half(tensor, reads=reads) else _SINGLE
        node.input[1] = self._read(scale, element)
        if fits and element == _SINGLE:  # as the other of the two has it
            rounded = whole.astype(np.float16).astype(np.float32)
            self.initializers[node.input[1]] = initializer(node.input[1], rounded)
        if reads:
            node.input[0] = self._read(tensor, element)
        else:
            self._made[tensor], self._names[tensor, element] = element, tensor
        self.nodes.append(node)
        if not reads and tensor in self._at.outputs and element == _HALF:
            node.output[0] = self._names[tensor, _HALF] = f"{tensor}_fp16"
            self.nodes.append(self._cast(tensor, _SINGLE, tensor))

    def _is_half(self, tensor: str, *, reads: bool) -> bool:
        if reads:
            return self._made.get(tensor, _SINGLE) == _HALF
        readers = self._at.consumers.get(tensor, ())
        return not readers or not all(is_op(node, *_KEPT) for node in readers)

    def repeat(self, node: NodeProto) -> bool:
        """Return a tensor that a node repeats in float32; False where it is no float."""
        tensor, result = node.input[0], node.output[0]
        if tensor not in self._floats:
            return False
        if self._made.get(tensor) == _HALF and (tensor, _SINGLE) not in self._names:
            self.nodes.append(self._cast(tensor, _SINGLE, result))
        else:
            node.input[0] = self._read(tensor, _SINGLE)
            self.nodes.append(node)
        return True

    def _read(self, tensor: str, element: int) -> str:
        """What to call a float tensor in a type; its Cast or initializer is added where it is first asked for."""
        if (tensor, element) not in self._names:
            if tensor in self._at.initializers:
                name = tensor if element == _HALF else f"{tensor}_fp32"
                values = self._at.array(tensor)
                if element == _HALF:
                    values = _halved(tensor, values)
                self.initializers[name] = initializer(name, values)
                self._names[tensor, element] = name
            elif self._made.get(tensor, _SINGLE) == element:
                self._names[tensor, element] = tensor
            else:
                self.nodes.append(self._cast(tensor, element, f"{tensor}_{_SUFFIX[element]}"))
        return self._names[tensor, element]

    def _cast(self, tensor: str, element: int, result: str) -> NodeProto:
        source = self._names.get((tensor, self._made.get(tensor, _SINGLE)), tensor)
        self._names[tensor, element] = result
        return helper.make_node("Cast", [source], [result], f"{tensor}_to_{_SUFFIX[element]}", to=element)


def _defined(parameters: Sequence[defs.OpSchema.FormalParameter], position: int) -> int:
    """Float16 where the standard allows it for an operator's input or output, else float32."""
    return _HALF if "tensor(float16)" in parameters[min(position, len(parameters) - 1)].types else _SINGLE


def _halved(name: str, values: Array) -> Array:
    top = float(np.abs(values).max(initial=0.0))
    if top > _TOP:
        raise SpecError(
            f"initializer {name!r} holds {top:g}, which is beyond {_TOP}, the largest float16",
            fix="build in fp32",
        )
    return values.astype(np.float16)
