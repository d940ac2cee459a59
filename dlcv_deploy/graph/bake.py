"""Preprocessing in front of a network, as nodes of its graph: plain pixels go in, or whole canvases.

A server's clients then send bytes. What the nodes compute is what ``parity.crops`` computes, in float32 and in the same
order, so that an engine that keeps to the graph gives the same bits. An INT8 graph rounds behind these nodes and not
before them: its own scale of the input, or its levels of it (``graph.pixels``), read what they always read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from ..errors import SpecError
from ..types import Preprocess
from .index import Array, copied, drop, initializer, opset, order, replace, tensor_names, unused

PIXELS, CANVAS, PROBABILITIES = "pixels", "canvas", "probabilities"
CROPS = 10
_REDUCE_BY_INPUT = 18
"""The operator set from which on ReduceMean takes its axes as an input."""


def bake(model: ModelProto, pre: Preprocess, *, uint8: bool = False, ten_crop: bool = False) -> ModelProto:
    """The same network, which takes images in another form.

    ``uint8``: the input is ``pixels``, uint8 (N, S, S, 3), RGB; it is cast, put channels first and normalized, each as
    ``parity.crops.to_input`` does it. ``ten_crop``: the input is a canvas, C x C in place of S x S, in float32
    (``canvas``, normalized, channels first) or with ``uint8`` as pixels; its ten crops are cut in the order of
    ``parity.crops.crops`` and run as one batch, 10 N rows, and the one output is ``probabilities`` (N, K), the mean of
    their softmax. Other outputs than the first are dropped then, with what computes them.

    Args:
        model: A network with one input, float32 (N, 3, S, S), whose first output are logits (N, K); not changed.
        pre: Its preprocessing.
        uint8: See above.
        ten_crop: See above.

    Raises:
        SpecError: The network has not that input, or for ten crops not those logits; nothing was asked for.
    """
    if not (uint8 or ten_crop):
        raise SpecError("nothing is to be put before the network", fix="ask for uint8 pixels, ten crops, or both")
    source = _source(model, pre)
    model = copied(model)
    front = _Front(model, source)
    side, batch = pre.canvas if ten_crop else pre.size, _batch(model)
    name = front.free(PIXELS if uint8 else CANVAS)
    planes = front.normalized(name, pre) if uint8 else name
    if ten_crop:
        planes = front.cut(planes, pre)
        _averaged(model, front)
    front.nodes[-1].output[0] = source  # what the network reads keeps its name
    shape: list[str | int | None] = [batch, side, side, 3] if uint8 else [batch, 3, side, side]
    value = helper.make_tensor_value_info(name, TensorProto.UINT8 if uint8 else TensorProto.FLOAT, shape)
    drop(model.graph.input, lambda i: i.name == source)
    model.graph.input.append(value)
    replace(model.graph.node, [*front.nodes, *model.graph.node])
    del model.graph.value_info[:]
    _prune(model)
    return model


class _Front:
    """The nodes that are put before a graph, each named by what it does."""

    def __init__(self, model: ModelProto, source: str) -> None:
        self.nodes: list[NodeProto] = []
        self._graph, self._source, self._taken = model.graph, source, tensor_names(model.graph)

    def free(self, wanted: str) -> str:
        """A name that no tensor has."""
        name = unused(wanted, self._taken)
        self._taken.add(name)
        return name

    def constant(self, what: str, values: Array) -> str:
        """An initializer."""
        name = self.free(f"{self._source}_{what}")
        self._graph.initializer.append(initializer(name, values))
        return name

    def node(self, op: str, inputs: list[str], what: str, **attributes: Any) -> str:  # noqa: ANN401 - as in ONNX
        """One node; returns what it gives."""
        out = self.free(f"{self._source}_{what}")
        self.nodes.append(helper.make_node(op, inputs, [out], out, **attributes))
        return out

    def normalized(self, pixels: str, pre: Preprocess) -> str:
        """(N, S, S, 3) of bytes as (N, 3, S, S) of float32, by scale and bias as ``to_input`` rounds them."""
        mean, std = np.array(pre.mean, np.float64), np.array(pre.std, np.float64)
        scale, bias = (v.astype(np.float32).reshape(1, 3, 1, 1) for v in (1 / (255 * std), -mean / std))
        numbers = self.node("Cast", [pixels], "cast", to=TensorProto.FLOAT)  # first: TensorRT takes bytes so alone
        planes = self.node("Transpose", [numbers], "planes", perm=[0, 3, 1, 2])
        scaled = self.node("Mul", [planes, self.constant("scale", scale)], "scaled")
        return self.node("Add", [scaled, self.constant("bias", bias)], "normalized")

    def cut(self, planes: str, pre: Preprocess) -> str:
        """The ten crops of (N, 3, C, C), crop by crop: (10 N, 3, S, S)."""
        size, end, middle = pre.size, pre.canvas - pre.size, round((pre.canvas - pre.size) / 2)
        mirrored = self._slice(planes, [-1], [-pre.canvas - 1], [3], [-1], "mirrored")
        corners = ((0, 0), (0, end), (end, 0), (end, end), (middle, middle))
        views = [
            self._slice(side, [y, x], [y + size, x + size], [2, 3], [1, 1], f"crop_{i}")
            for i, (side, (y, x)) in enumerate((side, corner) for side in (planes, mirrored) for corner in corners)
        ]
        return self.node("Concat", views, "crops", axis=0)

    def _slice(
        self, tensor: str, starts: list[int], ends: list[int], axes: list[int], steps: list[int], what: str
    ) -> str:
        parts = zip(("starts", "ends", "axes", "steps"), (starts, ends, axes, steps), strict=True)
        given = [self.constant(f"{what}_{part}", np.array(values, np.int64)) for part, values in parts]
        return self.node("Slice", [tensor, *given], what)


def _source(model: ModelProto, pre: Preprocess) -> str:
    """The name of the one input."""
    held = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in held]
    wanted = f"float32 N x 3 x {pre.size} x {pre.size}"
    if len(inputs) != 1:
        raise SpecError(f"the network has {len(inputs)} inputs, and pixels go into one", fix=f"give it one, {wanted}")
    tensor = inputs[0].type.tensor_type
    rest = [d.dim_value for d in tensor.shape.dim][1:]
    if tensor.elem_type != TensorProto.FLOAT or rest != [3, pre.size, pre.size]:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise SpecError(
            f"input {inputs[0].name!r} is {kind} N x {' x '.join(map(str, rest))}, not {wanted}",
            fix="export the network with the input that its preprocessing gives",
        )
    return str(inputs[0].name)


def _batch(model: ModelProto) -> str:
    """The name of the free batch axis."""
    held = {i.name for i in model.graph.initializer}
    axis = next(i for i in model.graph.input if i.name not in held).type.tensor_type.shape.dim[0]
    if axis.HasField("dim_value"):
        raise SpecError(f"the network has a fixed batch of {axis.dim_value}", fix="export it with a dynamic batch")
    return axis.dim_param or "batch"


def _averaged(model: ModelProto, front: _Front) -> None:
    """Make the mean of each image's ten softmaxes the one output."""
    logits = model.graph.output[0]
    tensor = logits.type.tensor_type
    classes = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 2 else 0
    if tensor.elem_type != TensorProto.FLOAT or not classes:
        raise SpecError(f"output {logits.name!r} is no row of float32 logits", fix="give the logits as first output")
    if opset(model) < _REDUCE_BY_INPUT:
        raise SpecError(f"ten crops take opset {_REDUCE_BY_INPUT}, and the network has {opset(model)}")
    names = [front.free(f"crop_{name}") for name in (PROBABILITIES, "groups")]
    shape = front.constant("groups_shape", np.array([CROPS, -1, classes], np.int64))
    axes = front.constant("mean_axes", np.array([0], np.int64))
    mean = front.free(PROBABILITIES)
    model.graph.node.extend(
        [
            helper.make_node("Softmax", [logits.name], [names[0]], names[0], axis=1),
            helper.make_node("Reshape", [names[0], shape], [names[1]], names[1]),
            helper.make_node("ReduceMean", [names[1], axes], [mean], mean, keepdims=0),
        ]
    )
    value = helper.make_tensor_value_info(mean, TensorProto.FLOAT, [_batch(model), classes])
    replace(model.graph.output, [value])


def _prune(model: ModelProto) -> None:
    """Leave out what no output depends on."""
    replace(model.graph.node, order(model.graph))
    read = {tensor for node in model.graph.node for tensor in node.input}
    drop(model.graph.initializer, lambda i: i.name not in read)
