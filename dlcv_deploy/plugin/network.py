"""A small AlexNet-like network with both plugin nodes, which shows what goes into them and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as Types
from onnx import helper, numpy_helper

from . import reference
from .library import OPS

DTYPES = ("float32", "float16", "int8")

_SIDE, _CHANNELS = 32, (3, 16, 32)
_LRN: dict[str, Any] = {"size": 5, "alpha": 5e-4, "beta": 0.75, "bias": 2.0}
_POOL = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (0, 0, 1, 1)}
_IN, _OUT = 0.05, 0.03
"""The steps of INT8: what comes in here ends below 127 * 0.05."""
_STAGES = (("conv1", OPS[1], {**_LRN, **_POOL}), ("conv2", OPS[0], _LRN))
_TOLERANCES = {"float32": 1e-5, "float16": 2.0**-10}  # float16: one rounding of 2^-11, and the float32 below it


def network(dtype: str) -> bytes:
    """ONNX: x (N, 3, 32, 32), and twice a convolution, ReLU and plugin node.

    Its outputs are float32: what goes into the nodes, ``conv1`` and ``conv2``, and what comes out, ``lrn1`` and
    ``lrn2``.

    Args:
        dtype: What the nodes compute in: one of ``DTYPES``; with int8 all else is float32.
    """
    draw = np.random.default_rng(4)
    half = dtype == "float16"
    nodes = [helper.make_node("Cast", ["x"], ["h0"], to=Types.FLOAT16 if half else Types.FLOAT)]
    weights = []
    for i, (name, op, attributes) in enumerate(_STAGES, 1):
        shape = (_CHANNELS[i], _CHANNELS[i - 1], 3, 3)
        kernel = draw.normal(0, 0.2, shape).astype(np.float16 if half else np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [f"h{i - 1}", f"w{i}"], [f"c{i}"], name=name, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            *_plugin(op, attributes, f"r{i}", f"h{i}", int8=dtype == "int8"),
            helper.make_node("Cast", [f"r{i}"], [f"conv{i}"], to=Types.FLOAT),
            helper.make_node("Cast", [f"h{i}"], [f"lrn{i}"], to=Types.FLOAT),
        ]
    weights += [numpy_helper.from_array(np.float32(scale), name) for name, scale in (("in", _IN), ("out", _OUT))]
    weights.append(numpy_helper.from_array(np.int8(0), "zero"))
    graph = helper.make_graph(
        nodes,
        "lrn",
        [helper.make_tensor_value_info("x", Types.FLOAT, ["N", _CHANNELS[0], _SIDE, _SIDE])],
        [helper.make_tensor_value_info(f"{name}{i}", Types.FLOAT, None) for i in (1, 2) for name in ("conv", "lrn")],
        weights,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("dlcv", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def _plugin(op: str, attributes: Mapping[str, Any], x: str, y: str, *, int8: bool) -> list[onnx.NodeProto]:
    if not int8:
        return [helper.make_node(op, [x], [y], domain="dlcv", **attributes)]
    scales: dict[str, Any] = {"input_scale": _IN, "output_scale": _OUT}
    return [
        helper.make_node("QuantizeLinear", [x, "in", "zero"], [f"{x}q"]),
        helper.make_node(op, [f"{x}q"], [f"{y}q"], domain="dlcv", **attributes, **scales),
        helper.make_node("DequantizeLinear", [f"{y}q", "out", "zero"], [y]),
    ]


def feeds() -> dict[str, reference.Array]:
    """One input for the network, drawn."""
    draw = np.random.default_rng(5)
    return {"x": draw.normal(0, 1, (1, _CHANNELS[0], _SIDE, _SIDE)).astype(np.float32)}


def differs(answers: Mapping[str, reference.Array], dtype: str) -> str:
    """Where answers of the network are not the reference's, in words; empty where all are.

    Allowed is a rounding of the type, or with int8 one step.
    """
    for i, (_, op, _attributes) in enumerate(_STAGES, 1):
        x, found = answers[f"conv{i}"].astype(np.float64), answers[f"lrn{i}"].astype(np.float64)
        if dtype == "int8":
            x = reference.quantize(x, _IN).astype(np.float64) * _IN
        expected = reference.lrn(x, **_LRN)
        if op == OPS[1]:
            expected = reference.max_pool(expected, _POOL["kernel_shape"], _POOL["strides"], _POOL["pads"])
        if found.shape != expected.shape:
            return f"{op} answers in the shape {found.shape}, not {expected.shape}"
        if dtype == "int8":
            expected = reference.quantize(expected, _OUT).astype(np.float64) * _OUT
            allowed = np.full_like(expected, _OUT * 1.001)
        else:
            allowed = _TOLERANCES[dtype] * np.abs(expected) + 1e-7
        off = np.abs(found - expected)
        if not (off <= allowed).all():
            return f"{op} in {dtype} is off by {np.nanmax(off):.3g}"
    return ""
