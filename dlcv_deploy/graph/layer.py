"""The weight of a layer on its way to INT8: its rows, their scales, and the steps that they are rounded to."""

from __future__ import annotations

import base64
import dataclasses as dc
import zlib
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from ..errors import SpecError
from .index import Index, attribute, is_op

Number = TypeVar("Number", bound=np.generic)
Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int8]
TOP = 127
TINY = 2.0**-64
"""The smallest scale written: the product of two is a normal float32."""
_BIAS_STEPS = 2.0**30


@dc.dataclass(frozen=True, slots=True)
class Layer:
    """A weight on its way to INT8: rows (out, values), the float32 scale and the bias of each, its axis and shape."""

    rows: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    bias: Floats
    axis: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, node: NodeProto, at: Index, input_scale: float) -> Layer:
        """The weight of a Conv, Gemm or MatMul whose input has the scale ``input_scale``."""
        weight = at.array(node.input[1])
        axis = 0 if is_op(node, "Conv") or attribute(node, "transB", 0) else 1
        rows = np.moveaxis(weight.astype(np.float32, copy=False), axis, 0).reshape(weight.shape[axis], -1)
        held = len(node.input) > 2 and node.input[2] in at.initializers
        bias = at.array(node.input[2]).astype(np.float64) if held else np.zeros(1)
        amax = np.abs(rows).max(axis=1).astype(np.float64)
        most = np.abs(bias).reshape(-1, bias.shape[-1] if bias.ndim else 1).max(axis=0)
        least = np.maximum(most / input_scale / _BIAS_STEPS, TINY)
        return cls(rows, np.maximum(amax / TOP, least).astype(np.float32), bias, axis, weight.shape)

    def nearest(self) -> Steps:
        """The rows in the nearest int8 steps."""
        steps = np.empty(self.rows.shape, np.int8)
        for at, row in enumerate(self.rows):  # a row in float64 fits a cache; a whole weight may not fit memory
            steps[at] = np.clip(np.rint(row / np.float64(self.scale[at])), -TOP, TOP)
        return steps

    def shaped(self, rows: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Rows in the shape of the weight."""
        moved = [self.shape[self.axis], *(n for a, n in enumerate(self.shape) if a != self.axis)]
        return np.moveaxis(rows.reshape(moved), 0, self.axis)


def unpacked(nearest: Steps, text: str, node: str) -> Steps:
    """Steps with their differences from the nearest ones added, as ``Corrections.rounding`` has them."""
    try:
        delta = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.int8)
    except (ValueError, zlib.error) as e:
        raise misfit(f"the rounding of {node!r} is damaged ({e})") from e
    if delta.size != nearest.size:
        raise misfit(f"the rounding of {node!r} is not of its {nearest.size} weights")
    steps: Steps = np.maximum(nearest + delta.reshape(nearest.shape), -TOP)
    return steps


def packed(steps: Steps, nearest: Steps) -> str:
    """Steps as ``Corrections.rounding`` has them; a difference beyond int8 wraps around, and back in ``unpacked``."""
    return base64.b64encode(zlib.compress((steps - nearest).tobytes(), 9)).decode()


def misfit(what: str) -> SpecError:
    """The error for corrections of another network."""
    return SpecError(f"the corrections do not fit the network: {what}", fix="calibrate this network again")
