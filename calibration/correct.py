"""Corrections layer by layer: each layer in INT8 is held against the same layer in fp32, on the same images.

The layers are taken in the order of the network, and each sees what the corrected layers before it give in INT8; so a
layer also corrects what those could not.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from ..graph.index import attribute, index, is_op
from ..graph.layer import Layer, packed
from ..graph.plan import PRODUCTS
from ..graph.qdq import Prepared, prepare, takes_bias
from ..progress import Progress, silent
from ..types import Corrections, ExportedModel
from .recipe import Recipe
from .rounding import moments, round_by_output
from .step import Floats, Load, Steps

_MEMORY_BYTES = 1 << 28
"""What the tensors of the images may take, in both versions; the number of images follows from it."""
_GAIN = (0.5, 2.0)
"""Gains beyond this come from channels in which almost nothing happens."""


def correct(
    exported: ExportedModel,
    amax: Mapping[str, float],
    made: Corrections,
    inputs: Floats,
    load: Load,
    recipe: Recipe,
    progress: Progress = silent,
) -> Corrections:
    """``made`` with gain, bias and rounding of every layer in INT8, as far as ``recipe`` asks for them.

    Bias: what makes the mean of each output channel that of the fp32 network (Nagel et al., arXiv:1906.04721, section
    4.2, here measured on images). Norm: the gain and the bias that bring each channel closest in squares, as a batch
    normalization that is estimated again would (Hubara et al., arXiv:2006.10518, "Batch Normalization Tuning").
    Rounding: see ``rounding``.

    Args:
        exported: The fp32 network.
        amax: The ranges.
        made: Corrections that are there already, the equalization that ``amax`` was measured with among them.
        inputs: Network inputs, (images, channels, height, width); see ``images_for``.
        load: Makes a session of a serialized graph.
        recipe: What to correct.
        progress: Told of each layer.
    """
    if not recipe.corrects:
        return made
    prepared = prepare(exported, amax, made)
    walk, graph = _Walk(prepared, load, recipe, inputs), prepared.model.graph
    with progress("correct", len(graph.node)) as advance:
        for at, node in enumerate(graph.node):
            walk.step(at, node)
            advance(1)
    return dc.replace(made, gain=walk.gain, bias=walk.bias, rounding=walk.rounding)


def images_for(exported: ExportedModel, load: Load) -> int:
    """How many images fit the memory that corrections may take: two versions of all tensors that live together."""
    from onnx import load_model_from_string

    return max(1, _MEMORY_BYTES // (2 * Steps(load_model_from_string(exported.onnx), load).bytes_per_image()))


class _Walk:
    """Both versions of a network, as far as they have been computed, and the corrections so far."""

    def __init__(self, prepared: Prepared, load: Load, recipe: Recipe, inputs: Floats) -> None:
        self._places, self._scales, self._recipe = prepared.places, prepared.scales, recipe
        self._steps, self._at = Steps(prepared.model, load), index(prepared.model.graph)
        (source,) = (i.name for i in prepared.model.graph.input)
        self._images = len(inputs)
        self._fp, self._int8 = {source: inputs}, {source: inputs}
        self.gain: dict[str, tuple[float, ...]] = {}
        self.bias: dict[str, tuple[float, ...]] = {}
        self.rounding: dict[str, str] = {}

    def step(self, at: int, node: NodeProto) -> None:
        """Compute a node in both versions, correct it, and let go what is not read again."""
        if not self._steps.gives(node):
            return
        names, result = self._steps.reads(node), node.output[0]
        read = {t: self._read(node, t) for t in names}
        with self._steps.opened(node) as own:
            self._fp |= own.run({t: self._fp[t] for t in names}, self._images)
            if is_op(node, *PRODUCTS) and (result, 0) in self._places.reads and node.input[0] in read:
                self._int8[result] = self._layer(node, read)
            elif all(read[t] is self._fp[t] for t in names):
                self._int8 |= {t: self._fp[t] for t in self._steps.gives(node)}
            else:
                self._int8 |= own.run(read, self._images)
        for tensor in names:
            if self._steps.last[tensor] == at:
                del self._fp[tensor], self._int8[tensor]

    def _read(self, node: NodeProto, tensor: str) -> Floats:
        """What a node in INT8 reads: rounded where it reads a pair."""
        inputs = ((node.output[0], position) for position, name in enumerate(node.input) if name == tensor)
        if self._places.reads.isdisjoint(inputs):
            return self._int8[tensor]
        return rounded(self._int8[tensor], self._scales[tensor])

    def _layer(self, node: NodeProto, read: Mapping[str, Floats]) -> Floats:
        """A layer's output in INT8, corrected."""
        tensor = node.input[0]
        layer = Layer.of(node, self._at, self._scales[tensor])
        steps = nearest = layer.nearest()
        if self._recipe.rounding and not attribute(node, "auto_pad", b"").strip(b"NOTSET"):
            steps = round_by_output(layer, node, moments(node, read[tensor], layer))
            if (steps != nearest).any():
                self.rounding[node.name] = packed(steps, nearest)
        weight = layer.shaped((steps * layer.scale[:, None]).astype(np.float32))
        with self._steps.opened(node, {1: weight}) as quantized:
            got = quantized.run(read, self._images)[node.output[0]]
        if not (self._recipe.bias or self._recipe.norm) or not takes_bias(node, self._at):
            return got
        axes = (0, *range(2, got.ndim))
        gain, shift = _fit(self._fp[node.output[0]], got, axes, scaled=self._recipe.norm)
        if self._recipe.norm:
            self.gain[node.name] = tuple(gain.tolist())
        self.bias[node.name] = tuple(shift.tolist())
        shape = (1, -1, *[1] * (got.ndim - 2))
        got *= gain.reshape(shape)
        got += shift.reshape(shape)
        return got


def rounded(values: Floats, scale: float) -> Floats:
    """Values as a Q/DQ pair gives them."""
    steps: Floats = np.divide(values, np.float32(scale))
    np.rint(steps, out=steps)
    np.clip(steps, -128, 127, out=steps)
    steps *= np.float32(scale)
    return steps


def _fit(
    wanted: Floats, got: Floats, axes: tuple[int, ...], *, scaled: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Gain and shift by channel that bring ``got`` closest to ``wanted`` in squares; a gain of 1 without ``scaled``."""
    mean, own = (x.mean(axes, dtype=np.float64) for x in (wanted, got))
    gain = np.ones_like(mean)
    if scaled:
        shape = (1, -1, *[1] * (got.ndim - 2))
        centred = got - own.astype(np.float32).reshape(shape)
        power = np.square(centred).mean(axes, dtype=np.float64)
        centred *= wanted - mean.astype(np.float32).reshape(shape)
        both = centred.mean(axes, dtype=np.float64)
        gain = np.clip(np.divide(both, power, out=gain, where=power > 0), *_GAIN)
    return gain.astype(np.float32), (mean - gain.astype(np.float32) * own).astype(np.float32)
