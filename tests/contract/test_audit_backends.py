"""What backends say of the types in which they compute, on graphs in which some products were not quantized."""

import numpy as np
import pytest
from helpers import models
from onnx import load_model_from_string, numpy_helper

from dlcv_deploy import backends
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.types import CompileOptions, Dim

NAMES = ("conv1", "conv2", "fc")
INT8 = """g (float[N,3,8,8] x) => (float[N,5] y) {
  [xq] x8 = QuantizeLinear(x, xs, z)        [xdq] xf = DequantizeLinear(x8, xs, z)
  [w1dq] w1f = DequantizeLinear<axis=0>(w1, w1s)
  [conv1] c = Conv<pads=[1,1,1,1]>(xf, w1f, b1)
  [relu1] r = Relu(c)
  [rq] r8 = QuantizeLinear(r, rs, z)        [rdq] rf = DequantizeLinear(r8, rs, z)
  [w2dq] w2f = DequantizeLinear<axis=0>(w2, w2s)
  [conv2] d = Conv<strides=[2,2]>(rf, w2f, b1)
  [relu2] s = Relu(d)
  [flat] f = Flatten(s)
  [fq] f8 = QuantizeLinear(f, rs, z)        [fdq] ff = DequantizeLinear(f8, rs, z)
  [w3dq] w3f = DequantizeLinear<axis=1>(w3, w3s)
  [fc] y = Gemm(ff, w3f, b3)
}"""


def quantized(text=INT8, **more):
    made = {"b1": models.weights(8), "b3": models.weights(5), "z": np.int8(0)}
    made |= {"xs": np.float32(4 / 127), "rs": np.float32(6 / 127)}
    for name, shape, axis in (("w1", (8, 3, 3, 3), 0), ("w2", (8, 8, 3, 3), 0), ("w3", (72, 5), 1)):
        weight = models.weights(*shape)
        scale = np.abs(weight).max(tuple(a for a in range(weight.ndim) if a != axis), keepdims=True) / 127
        made[name] = np.rint(weight / scale).astype("int8")
        made[f"{name}s"] = scale.reshape(-1).astype("float32")
    return models.model(text, **{name: np.asarray(array) for name, array in {**made, **more}.items()})


def left_out():
    """conv1 and fc in float32."""
    text = INT8.replace("Conv<pads=[1,1,1,1]>(xf, w1f", "Conv<pads=[1,1,1,1]>(x, v1").replace(
        "Gemm(ff, w3f", "Gemm(f, v3"
    )
    return quantized(text, v1=models.weights(8, 3, 3, 3), v3=models.weights(72, 5))


def weights_alone():
    """fc with an int8 weight and float32 data: OpenVINO calls that int8, and computes it in float32."""
    return quantized(INT8.replace("Gemm(ff, w3f", "Gemm(f, w3f"))


def runs_in(name, onnx):
    backend = backends.get(name)
    return dict(backend.runs_in(backend.compile(onnx, CompileOptions()), onnx))


def floats():
    return models.net()


@pytest.mark.parametrize("name", ["openvino", "tensorrt_rtx"])
@pytest.mark.parametrize(
    ("build", "wide"),
    [(quantized, ()), (left_out, ("conv1", "fc")), (weights_alone, ("fc",)), (floats, NAMES)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_quantized_is_not_called_int8(need, name, build, wide):
    need(name)
    assert runs_in(name, build()) == {node: "float32" if node in wide else "int8" for node in NAMES}


def test_tensorrt_leaves_float16_in_between(need):
    need("tensorrt_rtx")
    half = to_half(load_model_from_string(left_out()))[0].SerializeToString()
    assert runs_in("tensorrt_rtx", half) == {"conv1": "float16", "conv2": "int8", "fc": "float16"}


def test_an_output_that_is_the_products_own_is_found(need):
    """OpenVINO calls the last node by the output."""
    need("openvino")
    assert runs_in("openvino", models.net_int8()) == {"conv1": "int8", "conv2": "int8", "fc": "float32"}


def test_a_fixed_batch_is_run(need):
    need("openvino")
    onnx = models.model("g (float[4,6] x) => (float[4,4] y) { [fc] y = Gemm(x, w) }", w=models.weights(6, 4))
    backend = backends.get("openvino")
    engine = backend.compile(onnx, CompileOptions(batch=Dim(4, 4, 4)))
    assert backend.runs_in(engine, onnx) == {"fc": "float32"}


def asymmetric():
    """Activations as ONNX Runtime wants them: uint8, of which ReLU leaves all; the last product answers in INT8 too."""
    text = INT8.replace("[relu1] r = Relu(c)", "").replace("QuantizeLinear(r, rs, z)", "QuantizeLinear(c, rs, z)")
    text = text.replace("[relu2] s = Relu(d)", "").replace("Flatten(s)", "Flatten(d)")
    pair = "[dq] d8 = QuantizeLinear(d, rs, z) [ddq] df = DequantizeLinear(d8, rs, z)"
    text = text.replace("[flat] f = Flatten(d)", f"{pair} [flat] f = Flatten(df)")
    proto = load_model_from_string(quantized(text))
    for tensor in proto.graph.initializer:
        if tensor.name == "z":
            tensor.CopyFrom(numpy_helper.from_array(np.uint8(128), "z"))
    return proto.SerializeToString()


def test_onnxruntime_tells_what_it_computes_on_integers(need):
    """Symmetric INT8 behind a ReLU it dequantizes (1.31): the ReLU is no part of the range, and stays between."""
    need("onnxruntime")
    assert runs_in("onnxruntime", floats()) == dict.fromkeys(NAMES, "float32")
    assert runs_in("onnxruntime", quantized()) == dict.fromkeys(NAMES, "float32")
    assert runs_in("onnxruntime", asymmetric()) == {"conv1": "int8", "conv2": "int8", "fc": "float32"}
