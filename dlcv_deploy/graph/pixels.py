"""The image in its own 256 levels: what enters the first convolution in INT8 is then exact.

A network takes (p / 255 - mean) / std of bytes p. Quantized with one symmetric scale, that loses up to half a level of
p, for the levels of the two do not meet. Turned back into p - 128, it is a whole number in int8's range at a scale of
1, and the first convolution takes the factors into its weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from .index import Index, attribute, index, initializer, is_op, taps

Floats = npt.NDArray[np.float64]
_LEVELS, _MIDDLE = 255.0, 128.0
AMAX = 127.0
"""Range of the tensor that holds the levels: its scale is 1."""
TURNS = "it turns the image into its own 256 levels, which int8 holds exactly"
"""Why the nodes that do so are not in int8 themselves."""


def to_pixels(model: ModelProto, mean: Sequence[float], std: Sequence[float]) -> str:
    """Have the one convolution that reads the input read it as levels, p - 128; changes ``model``.

    A convolution pads with zeros, which are not the level that its padding of the normalized image is: so the input is
    padded before it is turned, where the convolution pads.

    Args:
        model: An fp32 network.
        mean: By channel, of values in [0, 1].
        std: The same.

    Returns:
        The name of the tensor that holds the levels; empty where the graph was left as it is, because anything but one
        convolution with constant weights reads the input, or it has another number of channels.
    """
    graph = model.graph
    at = index(graph, without=taps(graph))
    conv = _first(graph, at)
    source = conv.input[0] if conv is not None else ""
    if conv is None or at.array(conv.input[1]).shape[1] != len(mean):
        return ""
    factor, offset = np.multiply(_LEVELS, std), np.multiply(_LEVELS, mean) - _MIDDLE
    levels = f"{source}_levels"
    nodes = _turned(graph, source, levels, attribute(conv, "pads", [0, 0, 0, 0]), factor, offset)
    weight = at.array(conv.input[1]).astype(np.float64) / factor.reshape(1, -1, 1, 1)
    bias = at.array(conv.input[2]).astype(np.float64) if len(conv.input) > 2 else np.zeros(len(weight))
    bias = bias - (weight * offset.reshape(1, -1, 1, 1)).sum((1, 2, 3))
    names = [f"{conv.output[0]}_levels_weight", f"{conv.output[0]}_levels_bias"]
    for name, values in zip(names, (weight, bias), strict=True):
        graph.initializer.append(initializer(name, values.astype(np.float32)))
    conv.input[:] = [levels, *names]
    for old in [a for a in conv.attribute if a.name == "pads"]:
        conv.attribute.remove(old)
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    return levels


def own(levels: str, graph: GraphProto) -> frozenset[str]:
    """Names of the nodes that ``to_pixels`` put before the first convolution."""
    return frozenset(n.name for n in graph.node if n.name.startswith(f"{levels}_")) if levels else frozenset()


def _first(graph: GraphProto, at: Index) -> NodeProto | None:
    """The convolution that alone reads the one input."""
    fed = [i.name for i in graph.input if i.name not in at.initializers]
    conv = at.only_reader(fed[0]) if len(fed) == 1 else None
    if conv is None or not is_op(conv, "Conv") or not all(t in at.initializers for t in conv.input[1:]):
        return None
    whole = attribute(conv, "group", 1) == 1 and not attribute(conv, "auto_pad", b"").strip(b"NOTSET")
    weight = at.initializers[conv.input[1]]
    return conv if whole and weight.data_type == TensorProto.FLOAT and len(weight.dims) == 4 else None


def _turned(
    graph: GraphProto, source: str, levels: str, pads: Sequence[int], factor: Floats, offset: Floats
) -> list[NodeProto]:
    nodes = []
    if any(pads):
        amounts = f"{levels}_pads"
        graph.initializer.append(initializer(amounts, np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)))
        nodes.append(helper.make_node("Pad", [source, amounts], [f"{levels}_padded"], f"{levels}_pad"))
        source = f"{levels}_padded"
    for name, values in (("factor", factor), ("offset", offset)):
        graph.initializer.append(initializer(f"{levels}_{name}", values.astype(np.float32).reshape(1, -1, 1, 1)))
    nodes.append(helper.make_node("Mul", [source, f"{levels}_factor"], [f"{levels}_scaled"], f"{levels}_mul"))
    nodes.append(helper.make_node("Add", [f"{levels}_scaled", f"{levels}_offset"], [levels], f"{levels}_add"))
    return nodes
