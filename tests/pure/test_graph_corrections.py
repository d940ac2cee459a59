"""Corrections in the INT8 graph: exactly what they say, on the nodes they name, and no others."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from helpers import models
from onnx import helper, load_model_from_string, numpy_helper
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.layer import packed, unpacked
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.types import Corrections, ExportedModel

W = np.array([[1.0, -0.5], [0.25, 0.1]], np.float32)
STEPS = [[127, -64], [127, 51]]  # -63.5 goes to even; 0.1 / 0.25 * 127 = 50.8
X = np.array([[3, -5], [2, 7]], np.float32)
AMAX = {"x": 127.0}  # a scale of 1: X is exact


def network(body="[fc] y = Gemm<transB=1>(x, w, b)", **weights):
    weights = {"w": W, "b": np.array([1, -1], np.float32)} | weights
    onnx = models.model(f"g (float[N,2] x) => (float[N,2] y) {{ {body} }}", **weights)
    return ExportedModel("net", onnx, (), (), "0" * 64)


def made(corrections, model=None, **kwargs):
    return load_model_from_string(quantize(model or network(), AMAX, corrections, **kwargs).model.onnx)


def answer(graph, x=X):
    return ReferenceEvaluator(graph).run(None, {"x": x})[0]


def by_hand(steps=STEPS, gain=(1, 1), shift=(0, 0), bias=(1, -1)):
    w = np.array(steps) * (np.array([1.0, 0.25]) / 127)[:, None]
    return (X @ w.T + bias) * gain + shift


def values(graph):
    return {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}


def test_gain_and_bias_are_applied_by_channel():
    graph = made(Corrections(gain={"fc": (1.5, 0.5)}, bias={"fc": (0.25, -2.0)}))
    assert np.allclose(answer(graph), by_hand(gain=(1.5, 0.5), shift=(0.25, -2.0)), atol=1e-6)
    found = values(graph)
    assert found["w_q"].tolist() == STEPS  # gain is in the scales: the steps stay
    assert found["w_scale"].tolist() == [np.float32(np.float32(1 / 127) * 1.5), np.float32(np.float32(0.25 / 127) / 2)]
    assert found["y_corrected_bias"].tolist() == [1.75, -2.5]
    assert "b" not in found


def test_each_alone():
    assert np.allclose(answer(made(Corrections(gain={"fc": (1.5, 0.5)}))), by_hand(gain=(1.5, 0.5)), atol=1e-6)
    assert np.allclose(answer(made(Corrections(bias={"fc": (0.5, 3)}))), by_hand(shift=(0.5, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "b", "bias"),
    [
        ("[fc] y = Gemm<transB=1>(x, w)", None, (0, 0)),
        ("[fc] y = Gemm<transB=1>(x, w, b)", np.float32(2), (2, 2)),
        ("[fc] y = Gemm<transB=1>(x, w, b)", np.array([2], np.float32), (2, 2)),
        ("[fc] y = Gemm<transB=1>(x, w, b)", np.array([[2, 3]], np.float32), (2, 3)),
        ("[fc] y = Gemm<transB=1, beta=0.5>(x, w, b)", np.array([2, 3], np.float32), (1, 1.5)),
        ("[fc] y = Gemm<transB=1, beta=0.0>(x, w, b)", np.array([2, 3], np.float32), (0, 0)),
        ("[fc] y = Gemm(x, v, b)", np.array([2, 3], np.float32), (2, 3)),
    ],
)
def test_whatever_the_bias_was(body, b, bias):
    model = network(body, **({} if b is None else {"b": b}), v=np.ascontiguousarray(W.T))
    graph = made(Corrections(gain={"fc": (1.5, 0.5)}, bias={"fc": (0.25, -2.0)}), model)
    assert np.allclose(answer(graph), by_hand(gain=(1.5, 0.5), shift=(0.25, -2.0), bias=bias), atol=1e-6)


def test_a_convolution_without_a_bias_gets_one():
    onnx = models.model("g (float[N,2,1,1] x) => (float[N,2,1,1] y) { [c] y = Conv(x, w) }", w=W.reshape(2, 2, 1, 1))
    graph = made(Corrections(bias={"c": (0.25, -2.0)}), ExportedModel("net", onnx, (), (), "0" * 64))
    got = answer(graph, X.reshape(2, 2, 1, 1)).reshape(2, 2)
    assert np.allclose(got, by_hand(shift=(0.25, -2.0), bias=(0, 0)), atol=1e-6)


def test_rounding_moves_the_named_steps():
    delta = np.array([[-1, 1], [-3, 0]], np.int8)
    wanted = np.array(STEPS, np.int8) + delta
    graph = made(Corrections(rounding={"fc": packed(wanted, np.array(STEPS, np.int8))}))
    assert values(graph)["w_q"].tolist() == wanted.tolist()
    assert np.allclose(answer(graph), by_hand(wanted), atol=1e-6)


def test_rounding_of_a_matrix_with_its_channels_in_columns():
    model = network("[fc] y = MatMul(x, v)", v=np.ascontiguousarray(W.T))
    text = packed(np.array([[126, -64], [127, 52]], np.int8), np.array(STEPS, np.int8))  # a row for each channel
    assert values(made(Corrections(rounding={"fc": text}), model))["v_q"].tolist() == [[126, 127], [-64, 52]]


def test_any_steps_come_back_however_far_from_the_nearest():
    every = np.arange(-127, 128, dtype=np.int8)
    steps, nearest = (a.ravel() for a in np.meshgrid(every, every))
    assert (unpacked(nearest, packed(steps, nearest), "fc") == steps).all()


def test_minus_128_is_no_step():
    assert unpacked(np.array([-127], np.int8), base64.b64encode(zlib.compress(b"\xff")).decode(), "fc") == [-127]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no base64!", "the rounding of 'fc' is damaged"),
        ("völlig", "the rounding of 'fc' is damaged"),
        ("AAAA", "the rounding of 'fc' is damaged"),
        (packed(np.zeros(4, np.int8), np.zeros(4, np.int8))[:-4], "the rounding of 'fc' is damaged"),
        (packed(np.zeros(3, np.int8), np.zeros(3, np.int8)), "the rounding of 'fc' is not of its 4 weights"),
    ],
)
def test_a_damaged_rounding_is_refused(text, said):
    with pytest.raises(SpecError, match=said):
        made(Corrections(rounding={"fc": text}))


@pytest.mark.parametrize(
    ("corrections", "said"),
    [
        (Corrections(gain={"other": (1, 1)}), "there is no node 'other'"),
        (Corrections(bias={"other": (1, 1)}), "there is no node 'other'"),
        (Corrections(rounding={"other": ""}), "there is no node 'other'"),
        (Corrections(float_nodes=("other",)), "there is no node 'other'"),
        (Corrections(bias={"fc": (1, 1, 1)}), "'fc' has 2 channels, and there are 3 numbers for it"),
        (Corrections(bias={"fc": (1, float("nan"))}), "there is a number for 'fc' that is NaN or infinite"),
        (Corrections(gain={"fc": (1, float("inf"))}), "there is a number for 'fc' that is NaN or infinite"),
        (Corrections(gain={"fc": (1, 0.0)}), "a channel of 'fc' would be multiplied by 0.0"),
        (Corrections(gain={"fc": (-0.5, 1)}), "a channel of 'fc' would be multiplied by -0.5"),
    ],
)
def test_corrections_of_another_network_are_refused(corrections, said):
    with pytest.raises(SpecError, match=f"the corrections do not fit the network: {said}\n  fix: calibrate"):
        made(corrections)


@pytest.mark.parametrize(
    "body", ["[fc] y = MatMul(x, w)", "[shift] s = Relu(x) [fc] y = Gemm(x, w, s)"], ids=["matmul", "computed"]
)
def test_a_bias_that_cannot_be_corrected_is_refused(body):
    model = network(body)
    ranges = dict.fromkeys(quantizable(load_model_from_string(model.onnx)), 1.0)
    with pytest.raises(SpecError, match=r"'fc' is a (MatMul|Gemm) without a bias that could be corrected"):
        quantize(model, ranges, Corrections(bias={"fc": (1, 1)}))


def test_two_nodes_that_share_a_weight_are_corrected_each_by_itself():
    body = "[one] h = Gemm<transB=1>(x, w, b) [two] y = Gemm<transB=1>(h, w, b)"
    model = network(body)
    corrections = Corrections(
        gain={"two": (2, 2)}, rounding={"one": packed(np.zeros((2, 2), np.int8), np.array(STEPS, np.int8))}
    )
    graph = load_model_from_string(quantize(model, {"x": 127.0, "h": 12.7}, corrections).model.onnx)
    found = values(graph)
    assert found["w_q"].tolist() == [[0, 0], [0, 0]]
    assert found["w_again_q"].tolist() == STEPS
    assert np.allclose(found["w_again_scale"], 2 * found["w_scale"])
    h = np.rint(np.array([1, -1]) / 0.1) * 0.1
    w = np.array(STEPS) * (np.array([1.0, 0.25]) / 127)[:, None]
    assert np.allclose(answer(graph), np.tile((h @ w.T + [1, -1]) * 2, (2, 1)), atol=1e-5)


RESIDUAL = """[conv_1] c = Conv(x, w1) [relu_1] r = Relu(c) [conv_2] d = Conv(r, w2)
    [sum] s = Add(d, r) [conv_3] y = Conv(s, w2)"""


def residual(body=RESIDUAL):
    weights = {"w1": models.weights(4, 3, 1, 1), "w2": models.weights(4, 4, 1, 1)}
    onnx = models.model(f"g (float[N,3,4,4] x) => (float[N,4,4,4] y) {{ {body} }}", **weights)
    return ExportedModel("net", onnx, (), (), "0" * 64)


def test_sums_and_nodes_that_stay_in_float():
    ranges = {"x": 1.0, "r": 1.0, "s": 1.0}
    plain = quantize(residual(), ranges)
    assert plain.quantized == ("conv_1", "conv_2", "sum", "conv_3")
    floats = quantize(residual(), ranges, Corrections(float_sums=True))
    assert floats.quantized == ("conv_1", "conv_2", "conv_3")
    assert floats.left_alone[0].reason == "residual sums were asked to stay in floating point"
    chosen = quantize(residual(), ranges, Corrections(float_nodes=("conv_1", "conv_3")))
    assert chosen.quantized == ("conv_2", "sum")
    assert {(left.node, left.reason) for left in chosen.left_alone} == {
        ("conv_1", "it was chosen to stay in floating point"),
        ("conv_3", "it was chosen to stay in floating point"),
    }
    graph = load_model_from_string(chosen.model.onnx).graph
    assert [n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"] == ["r"]


def test_corrections_of_a_node_in_float_are_not_made():
    model = residual()
    ranges = {"x": 1.0, "r": 1.0, "s": 1.0}
    floats = Corrections(float_nodes=("conv_2",))
    given = Corrections(float_nodes=("conv_2",), bias={"conv_2": (1, 2, 3, 4)}, gain={"conv_2": (2, 2, 2, 2)})
    assert quantize(model, ranges, floats) == quantize(model, ranges, given)


def test_nothing_left_in_int8_is_refused():
    with pytest.raises(SpecError, match="nothing in net can be computed in int8: it was chosen to stay"):
        made(Corrections(float_nodes=("fc",)))


def test_dead_tensors_leave_their_readers_alone_and_their_corrections():
    result = quantize(residual(), {"x": 1.0, "r": 0.0, "s": 1.0}, Corrections(bias={"conv_2": (1, 2, 3, 4)}))
    assert result.quantized == ("conv_1", "conv_3")
    with pytest.raises(SpecError, match=r"nothing in net can be computed in int8: its input x was 0"):
        quantize(residual(), {"x": 0.0, "r": 0.0, "s": 0.0})


def test_one_table_serves_a_network_with_and_without_a_further_output():
    plain, tapped = residual(), residual(RESIDUAL + " [tap] features = Identity(r)")
    proto = load_model_from_string(tapped.onnx)
    proto.graph.output.append(helper.make_tensor_value_info("features", 1, ["N", 4, 4, 4]))
    tapped = ExportedModel("net", proto.SerializeToString(), (), (), "0" * 64)
    factors = (1.0, 0.5, 0.25, 0.75)
    corrections = Corrections(equalization={"c": factors, "d": factors}, bias={"conv_2": (1, 2, 3, 4)})
    ranges = {"x": 3.0, "r": 3.0, "s": 6.0}
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 4)).astype(np.float32)
    one, two = (quantize(model, ranges, corrections) for model in (plain, tapped))
    assert one.quantized == two.quantized
    assert one.left_alone == two.left_alone
    y, features = ReferenceEvaluator(load_model_from_string(two.model.onnx)).run(None, {"x": x})
    assert (y == answer(load_model_from_string(one.model.onnx), x)).all()
    (wanted,) = ReferenceEvaluator(load_model_from_string(tapped.onnx)).run(["features"], {"x": x})
    assert np.abs(features - wanted).max() < 0.1
    assert np.corrcoef(features.ravel(), wanted.ravel())[0, 1] > 0.999
