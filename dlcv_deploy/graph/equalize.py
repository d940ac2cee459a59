"""Cross-layer equalization: each channel of a tensor divided by its own factor, and the weights around it made to fit.

What a network computes stays the same wherever only operators stand between two layers that commute with positive
factors by channel: ReLU, pooling, sums, Concat, Pad with zeros, Slice, Flatten. With one scale a tensor, a channel that
stays far below the largest one wastes most of the levels; equalized, all channels use the same range, as if each had a
scale of its own.

Source: the idea is that of Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization
and Bias Correction" (arXiv:1906.04721), section 4.1. There the ranges of weights are balanced, for weights with one
scale a tensor; here weights have one an output channel, and what is made equal are the ranges seen of the activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from ..errors import SpecError
from .index import Index, attribute, drop, index, initializer, is_op, taps, types
from .plan import PRODUCTS

Floats = npt.NDArray[np.float64]
_SAME = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout")
FLOOR = 2.0**-6
"""The smallest factor: a channel below a 64th of its tensor's range costs next to nothing, and may be rare."""


def equalization(
    model: ModelProto, channel_amax: Mapping[str, npt.ArrayLike], tensors: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """What to divide each output channel of each layer by, so that channels use their tensors' ranges alike.

    Channels that are tied, as those on both sides of a residual sum, share a factor: the largest that one of their
    tensors asks for, which is the channel's largest magnitude over the tensor's.

    Args:
        model: An fp32 network.
        channel_amax: Largest magnitude by channel, of tensors with a batch axis first and channels next.
        tensors: Those that will be quantized, among these.

    Returns:
        For the output of each Conv, Gemm and MatMul, a factor in [``FLOOR``, 1] a channel; tensors whose factors are
        all 1 are left out.
    """
    ties = _Ties(model)
    wanted: dict[int, float] = {}
    for tensor in tensors:
        if tensor not in ties.channels or tensor not in channel_amax:
            continue
        seen = np.asarray(channel_amax[tensor], np.float64)
        top = float(seen.max(initial=0.0))
        for group, amax in zip(ties.groups(tensor), seen, strict=True):
            if top > 0 and amax > 0:
                wanted[group] = max(wanted.get(group, FLOOR), float(amax) / top)
    found: dict[str, tuple[float, ...]] = {}
    for node in model.graph.node:
        if is_op(node, *PRODUCTS) and node.output[0] in ties.channels:
            groups = ties.groups(node.output[0])
            factors = tuple(1.0 if g in ties.fixed else float(np.float32(wanted.get(g, 1.0))) for g in groups)
            if any(factor != 1.0 for factor in factors):
                found[node.output[0]] = factors
    return found


def equalize(model: ModelProto, factors: Mapping[str, Sequence[float]]) -> dict[str, Floats]:
    """Divide the outputs of layers by factors and make the weights of their readers fit; changes ``model``.

    Args:
        model: An fp32 network.
        factors: By the output of a Conv, Gemm or MatMul; as ``equalization`` gives them.

    Returns:
        What ``restore`` has to multiply the outputs by that repeat an inner tensor (``index.taps``).

    Raises:
        SpecError: They do not fit the network: other channels, no such layer, or a sum, an output or an operator that
            would see the difference.
    """
    if not factors:
        return {}
    graph, of = model.graph, _Divisors(model, factors).of
    at = index(graph)
    for node in graph.node:
        if is_op(node, *PRODUCTS) and node.input[1] in at.initializers:
            ins, outs = of(node.input[0]), of(node.output[0])
            if (ins != 1).any() or (outs != 1).any():
                _scale(graph, node, at, ins, outs)
    read = {t for node in graph.node for t in node.input}
    drop(graph.initializer, lambda i: i.name not in read)
    repeated = {tensor: of(tensor) for tensor in sorted(taps(graph))}
    return {tensor: by for tensor, by in repeated.items() if (by != 1).any()}


def divisors(model: ModelProto, factors: Mapping[str, Sequence[float]]) -> dict[str, Floats]:
    """What each tensor of a network is divided by where ``factors`` equalize it: (C,) numbers, by tensor.

    Tensors that are left as they are do not occur. Arguments and errors are those of ``equalize``, which changes the
    network so.
    """
    if not factors:
        return {}
    made = _Divisors(model, factors)
    found = {tensor: made.of(tensor) for tensor in made.ties.channels}
    return {tensor: by for tensor, by in found.items() if (by != 1).any()}


def restore(model: ModelProto, factors: Mapping[str, npt.ArrayLike]) -> None:
    """Multiply outputs that repeat an equalized tensor, (N, C, ...), by what it was divided by; changes ``model``."""
    known = types(model) if factors else {}
    for node in model.graph.node:
        if node.output[0] in factors:
            shape = known[node.output[0]][1] or ()
            by = np.asarray(factors[node.output[0]], np.float32).reshape(-1, *[1] * (len(shape) - 2))
            name = f"{node.output[0]}_equalized"
            model.graph.initializer.append(initializer(name, by))
            node.op_type, node.input[:] = "Mul", [node.input[0], name]


def _scale(graph: GraphProto, node: NodeProto, at: Index, ins: Floats, outs: Floats) -> None:
    """Give a layer weights of its own, times ``ins`` by input channel, over ``outs`` by output channel."""
    weight = at.array(node.input[1]).astype(np.float64)
    if is_op(node, "Conv"):
        groups = attribute(node, "group", 1)
        ins = np.broadcast_to(ins, groups * weight.shape[1]).reshape(groups, -1)
        rows = np.repeat(ins, len(weight) // groups, axis=0) / outs[:, None]  # (out, in / groups)
        weight = weight * rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
    elif attribute(node, "transB", 0):
        weight = weight * ins[None, :] / outs[:, None]
    else:
        weight = weight * ins[:, None] / outs[None, :]
    new = [f"{node.output[0]}_equalized_weight", f"{node.output[0]}_equalized_bias"]
    graph.initializer.append(initializer(new[0], weight.astype(np.float32)))
    node.input[1] = new[0]
    if len(node.input) > 2 and node.input[2]:
        bias = at.array(node.input[2]).astype(np.float64) / outs
        graph.initializer.append(initializer(new[1], bias.astype(np.float32)))
        node.input[2] = new[1]


class _Divisors:
    """What channels are divided by: one factor for all that are tied, 1 for those that must stay."""

    def __init__(self, model: ModelProto, factors: Mapping[str, Sequence[float]]) -> None:
        self.ties = ties = _Ties(model)
        self._by_group: dict[int, float] = {}
        for tensor, values in factors.items():
            if tensor not in ties.channels or ties.channels[tensor] != len(values):
                raise _foreign(f"the network has no layer that gives {tensor!r} with {len(values)} channels")
            for group, value in zip(ties.groups(tensor), values, strict=True):
                if not (np.isfinite(value) and value > 0):
                    raise _foreign(f"a channel of {tensor!r} would be divided by {value}")
                if (other := self._by_group.setdefault(group, value)) != value:
                    raise _foreign(f"a channel of {tensor!r} would be divided by {value} and by {other}")
                if group in ties.fixed and value != 1.0:
                    raise _foreign(f"{tensor!r} reaches an output or an operator that would see the difference")

    def of(self, tensor: str) -> Floats:
        """By channel; a single 1 for a tensor without channels."""
        if tensor not in self.ties.channels:
            return np.ones(1)
        return np.array([self._by_group.get(group, 1.0) for group in self.ties.groups(tensor)])


class _Ties:
    """Which channels of which tensors must have the same factor, and which must have 1."""

    def __init__(self, model: ModelProto) -> None:
        graph, known = model.graph, types(model)
        self._at = index(graph, without=taps(graph))
        self._rank: dict[str, int] = {}
        self.channels: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._parent: list[int] = []
        fed = [i.name for i in graph.input if i.name not in self._at.initializers]
        for tensor in [*fed, *(t for node in graph.node for t in node.output if t)]:
            element, shape = known.get(tensor, (0, None))
            if element == TensorProto.FLOAT and shape is not None and len(shape) > 1 and isinstance(shape[1], int):
                self.channels[tensor], self._rank[tensor] = shape[1], len(shape)
                self._first[tensor] = len(self._parent)
                self._parent.extend(range(len(self._parent), len(self._parent) + shape[1]))
        fixed = [*fed, *self._at.outputs]
        for node in graph.node:
            if not self._tied(node):
                fixed += [*node.input, *node.output]
        self.fixed = frozenset(g for t in fixed if t in self.channels for g in self.groups(t))

    def groups(self, tensor: str) -> list[int]:
        """The group of each channel."""
        first = self._first[tensor]
        return [self._root(c) for c in range(first, first + self.channels[tensor])]

    def _root(self, c: int) -> int:
        while self._parent[c] != c:
            self._parent[c] = self._parent[self._parent[c]]
            c = self._parent[c]
        return c

    def _join(self, tensor: str, channels: Sequence[int], other: str, others: Sequence[int]) -> None:
        for c, o in zip(channels, others, strict=True):
            self._parent[self._root(self._first[tensor] + c)] = self._root(self._first[other] + o)

    def _tied(self, node: NodeProto) -> bool:
        """Tie the channels on both sides of a node; False where it does not commute with factors."""
        source, result = node.input[0] if node.input else "", node.output[0]
        if is_op(node, *PRODUCTS):
            return self._is_layer(node)
        if is_op(node, "Shape"):
            return True
        floats = [t for t in node.input if t in self.channels]
        if result not in self.channels or not floats:
            return not floats and result not in self.channels
        n = self.channels[result]
        if is_op(node, *_SAME) and self.channels[source] == n and len([t for t in node.output if t]) == 1:
            self._join(result, range(n), source, range(n))
        elif is_op(node, "Add") and len(floats) == 2 and all(self._alike(t, result) for t in floats):
            for t in floats:
                self._join(result, range(n), t, range(n))
        elif is_op(node, "Flatten") and attribute(node, "axis", 1) == 1 and n % self.channels[source] == 0:
            each = n // self.channels[source]
            self._join(result, range(n), source, [c // each for c in range(n)])
        elif is_op(node, "Concat") and attribute(node, "axis", 0) == 1 and len(floats) == len(node.input):
            start = 0
            for t in floats:
                self._join(result, range(start, start + self.channels[t]), t, range(self.channels[t]))
                start += self.channels[t]
        elif is_op(node, "Pad") and attribute(node, "mode", b"constant") == b"constant":
            return self._tied_pad(node, n)
        elif is_op(node, "Slice") and self.channels[source] == n:
            axes = self._at.array(node.input[3]).tolist() if self._constant(node, 3) else [1]
            if any(axis % self._rank[result] == 1 for axis in axes):
                return False
            self._join(result, range(n), source, range(n))
        else:
            return False
        return True

    def _is_layer(self, node: NodeProto) -> bool:
        """Whether a layer's weights can take factors: constant float32, data times weight."""
        weight = self._at.initializers.get(node.input[1])
        if is_op(node, "MatMul") and any(self._rank.get(t, 2) != 2 for t in (node.input[0], node.output[0])):
            return False  # its channels come last
        if weight is None or weight.data_type != TensorProto.FLOAT or attribute(node, "transA", 0):
            return False
        bias = node.input[2] if len(node.input) > 2 else ""
        vector = not bias or (bias in self._at.initializers and len(self._at.initializers[bias].dims) == 1)
        return (is_op(node, "Conv") or len(weight.dims) == 2) and vector

    def _tied_pad(self, node: NodeProto, n: int) -> bool:
        if not self._constant(node, 1) or len(node.input) > 3:
            return False
        filler = node.input[2] if len(node.input) > 2 else ""
        if filler and (not self._constant(node, 2) or self._at.array(filler).any()):
            return False
        pads = self._at.array(node.input[1]).tolist()
        before, kept = pads[1], self.channels[node.input[0]]
        if before < 0 or before + kept > n:
            return False
        self._join(node.output[0], range(before, before + kept), node.input[0], range(kept))
        return True

    def _alike(self, tensor: str, other: str) -> bool:
        return self.channels[tensor] == self.channels[other] and self._rank[tensor] == self._rank[other]

    def _constant(self, node: NodeProto, position: int) -> bool:
        return len(node.input) > position and node.input[position] in self._at.initializers


def _foreign(what: str) -> SpecError:
    return SpecError(f"the equalization does not fit: {what}", fix="calibrate this network again")
