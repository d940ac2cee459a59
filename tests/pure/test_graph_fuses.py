"""The compilers take the int8 graph as it is meant: every convolution in int8, on both kinds of residual network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dlcv_deploy import backends
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.index import types
from dlcv_deploy.graph.names import name
from dlcv_deploy.graph.qdq import NO_CORRECTIONS, quantizable, quantize
from dlcv_deploy.types import Corrections, ExportedModel, QuantizedModel

SIZE = 16


def required(package: str) -> None:
    """Skip where a package is absent, unless DLCV_REQUIRE names it."""
    if package not in os.environ.get("DLCV_REQUIRE", "").split(","):
        pytest.importorskip(package)


def residual(shortcut: str) -> ModelProto:
    """A stem with pooling, a block with an identity shortcut, one that strides, a mean and a dense layer."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def constant(label: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values, label))
        return label

    def conv(x: str, y: str, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> str:
        w = rng.standard_normal((cout, cin, kernel, kernel)) * np.sqrt(2 / (cin * kernel * kernel))
        read = [x, constant(f"{y}_w", w.astype(np.float32)), constant(f"{y}_b", np.zeros(cout, np.float32))]
        shape = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", read, [y], **shape))
        return y

    def add(op: str, inputs: list[str], y: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [y], **attributes))
        return y

    def option_a(x: str) -> str:
        ints = {"starts": [0, 0], "ends": [SIZE, SIZE], "axes": [2, 3], "steps": [2, 2]}
        cut = add("Slice", [x, *(constant(label, np.array(v, np.int64)) for label, v in ints.items())], "cut")
        return add("Pad", [cut, constant("pads", np.array([0, 8, 0, 0, 0, 8, 0, 0], np.int64))], "padded")

    x = add("Relu", [conv("x", "stem", 3, 16)], "stem_relu")
    x = add("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = conv(add("Relu", [conv(x, "c1", 16, 16)], "r1"), "c2", 16, 16)
    x = add("Relu", [add("Add", [y, x], "s1")], "r2")
    y = conv(add("Relu", [conv(x, "c3", 16, 32, stride=2)], "r3"), "c4", 32, 32)
    beside = conv(x, "c5", 16, 32, kernel=1, stride=2) if shortcut == "projection" else option_a(x)
    x = add("Relu", [add("Add", [y, beside], "s2")], "r4")
    x = add("Flatten", [add("GlobalAveragePool", [x], "mean")], "flat")
    dense = constant("dense", rng.standard_normal((10, 32)).astype(np.float32))
    add("Gemm", [x, dense, constant("dense_b", np.zeros(10, np.float32))], "y", transB=1)
    value = helper.make_tensor_value_info
    ends = [value("x", 1, ["n", 3, SIZE * 2, SIZE * 2])], [value("y", 1, ["n", 10])]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    return name(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def pixels() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((4, 3, SIZE * 2, SIZE * 2)).astype(np.float32)


def calibrated(model: ModelProto, corrections: Corrections = NO_CORRECTIONS) -> QuantizedModel:
    names = quantizable(model)
    seen = ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names if n != "input")
    wanted = [n for n in names if n != "input"]
    found = dict(zip(wanted, ReferenceEvaluator(seen).run(wanted, {"input": pixels()}), strict=True))
    found["input"] = pixels()
    amax = {n: float(np.abs(found[n]).max()) for n in names}
    result = quantize(ExportedModel("net", model.SerializeToString(), (), (), ""), amax, corrections)
    checker.check_model(result.model.onnx, full_check=True)
    return result


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((want**2).sum() / ((want - got) ** 2).sum()))


def returning(model: ModelProto, tensors: list[str]) -> ModelProto:
    """The same network with inner tensors as outputs too."""
    new, known = ModelProto(), types(model)
    new.CopyFrom(model)
    new.graph.output.extend(helper.make_tensor_value_info(t, *known[t]) for t in tensors)
    return name(new, outputs=["logits", *(f"{t}_returned" for t in tensors)])


STAGES = ["relu_3_out", "relu_5_out"]
"""Maps of both stages: the first feeds int8 convolutions and a shortcut, the last a mean."""
CASES = {kind: (kind, []) for kind in ("projection", "option a")}
CASES |= {f"{kind}, maps and features": (kind, [*STAGES, "flatten_1_out"]) for kind in ("projection", "option a")}


@pytest.fixture(params=CASES)
def network(request: pytest.FixtureRequest) -> ModelProto:
    kind, tensors = CASES[request.param]
    return returning(residual(kind), tensors)


def test_openvino_computes_every_convolution_in_int8(network):
    required("openvino")

    result = calibrated(network)
    core = backends.get("openvino")._core()
    compiled = core.compile_model(core.read_model(result.model.onnx), "CPU")
    precision: dict[str, list[str]] = {}
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        kind, computed = (getattr(info[k], "value", info[k]) for k in ("layerType", "runtimePrecision"))
        precision.setdefault(str(kind), []).append(str(computed))
    convolutions = sum(n.op_type == "Conv" for n in network.graph.node)
    assert len(precision["Convolution"]) == convolutions
    for kind in ("Convolution", "FullyConnected", "Pooling", "Pad", "StridedSlice"):
        assert set(precision.get(kind, [])) <= {"u8", "i8"}, kind
    returned = len(network.graph.output) - 1  # each costs its ReLU in float32, whose place u8 takes on the way on
    assert precision.get("Eltwise", []) == ["f32"] * returned, "a residual sum is not part of its convolution"
    got = compiled(pixels())
    for i, want in enumerate(ReferenceEvaluator(network).run(None, {"input": pixels()})):
        assert sqnr_db(want, got[i]) > 25


def test_onnxruntime_agrees_with_the_meaning_of_the_graph(network):
    required("onnxruntime")
    import onnxruntime

    result = calibrated(network)
    session = onnxruntime.InferenceSession(result.model.onnx, providers=["CPUExecutionProvider"])
    original, quantized = ReferenceEvaluator(network), ReferenceEvaluator(ModelProto.FromString(result.model.onnx))
    answers = [evaluator.run(None, {"input": pixels()}) for evaluator in (session, original, quantized)]
    for got, want, meant in zip(*answers, strict=True):
        assert np.abs(meant - got).max() <= 0.02 * np.abs(meant).max()  # a value between two steps may round either way
        assert sqnr_db(want, got) > 25


_BUILD = """
import sys, tensorrt_rtx as trt
log = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
if not parser.parse(open(sys.argv[1], "rb").read()):
    sys.exit("\\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
profile = builder.create_optimization_profile()
shape = tuple(network.get_input(0).shape)[1:]
profile.set_shape("input", (1, *shape), (4, *shape), (8, *shape))
config.add_optimization_profile(profile)
engine = builder.build_serialized_network(network, config)
if engine is None:
    sys.exit("no engine")
open(sys.argv[2], "wb").write(bytes(engine))
"""


def built(onnx: bytes, folder: Path) -> str:
    """The readable text in a TensorRT-RTX engine: layers and tensors with their types."""
    (folder / "net.onnx").write_bytes(onnx)
    command = [sys.executable, "-c", _BUILD, str(folder / "net.onnx"), str(folder / "net.engine")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return "\n".join(m.decode() for m in re.findall(rb"[\n -~]{6,}", (folder / "net.engine").read_bytes()))


def convolved(text: str) -> dict[str, set[str]]:
    """The types of what each convolution multiplies, and of all tensors under ""."""
    kind = dict(re.findall(r'tensor=\{[^\n]*? name="([^"]+)"[^\n]*? type=(\w+) \}', text))
    layers = re.findall(r'corrltn=\{ name="([^"]+)" output=\{"[^"]+" \} input=\{"([^"]+)" "([^"]+)"', text)
    return {"": set(kind.values())} | {layer: {kind[x], kind[w]} for layer, x, w in layers}


def test_tensorrt_rtx_computes_every_convolution_in_int8(network, tmp_path):
    required("tensorrt_rtx")
    found = convolved(built(calibrated(network).model.onnx, tmp_path))
    assert "half" not in found.pop("")
    assert found == {n.name: {"int8"} for n in network.graph.node if n.op_type == "Conv"}


@pytest.mark.parametrize("floats", [(), ("conv_2", "conv_3")])
def test_tensorrt_rtx_computes_in_float16_what_is_not_in_int8(floats, tmp_path):
    required("tensorrt_rtx")
    network = residual("projection")
    half, _ = to_half(ModelProto.FromString(calibrated(network, Corrections(float_nodes=floats)).model.onnx))
    found = convolved(built(half.SerializeToString(), tmp_path))
    assert "half" in found.pop("")
    convolutions = [n.name for n in network.graph.node if n.op_type == "Conv"]
    assert found == {name: {"half" if name in floats else "int8"} for name in convolutions}


def test_onnxruntime_answers_alike_with_float16_in_between(network):
    required("onnxruntime")
    import onnxruntime

    int8 = ModelProto.FromString(calibrated(network).model.onnx)
    graphs = [model.SerializeToString() for model in (int8, to_half(int8)[0])]
    answers = [onnxruntime.InferenceSession(g, providers=["CPUExecutionProvider"]).run(None, {"input": pixels()})
               for g in graphs]  # fmt: skip
    for want, got, true in zip(*answers, ReferenceEvaluator(network).run(None, {"input": pixels()}), strict=True):
        assert sqnr_db(want, got) > 30
        assert sqnr_db(true, got) > sqnr_db(true, want) - 1, "it costs less than a tenth of what INT8 does"
