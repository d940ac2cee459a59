"""Multiply-adds of a graph are those that PyTorch's modules take, in fp32 and behind Q/DQ pairs."""

import numpy as np
import pytest
from helpers import models
from onnx import load_model_from_string, numpy_helper, parser

from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.macs import multiply_adds, products
from dlcv_deploy.graph.qdq import quantizable, quantize

NETWORKS = ("resnet20", "alexnet-cifar10")


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_those_of_the_catalogue(need, name):
    need("torch")
    from dlcv_deploy.export import export
    from dlcv_deploy.models import catalogue
    from dlcv_deploy.models.cost import cost

    known = catalogue.network(name)
    exported = export(name, catalogue.build(known).eval(), known.input_shape, weights_sha256="")
    model = load_model_from_string(exported.onnx)
    found = multiply_adds(model)
    assert sum(found.values()) == cost(known).multiply_adds
    assert list(found) == [n.name for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    int8 = quantize(exported, dict.fromkeys(quantizable(model), 1.0)).model
    assert multiply_adds(load_model_from_string(int8.onnx)) == found
    assert multiply_adds(to_half(model)[0]) == found


def test_groups_strides_and_dilations():
    text = """g (float[N,4,9,11] x) => (float[N,6,4,5] y) {
      [grouped] y = Conv<group=2, strides=[2,2], dilations=[1,2], kernel_shape=[3,2]>(x, w)
    }"""
    found = multiply_adds(load_model_from_string(models.model(text, w=models.weights(6, 2, 3, 2))))
    assert found == {"grouped": 6 * 4 * 5 * (2 * 3 * 2)}


def test_products_of_matrices():
    text = """g (float[N,5,7] x, float[7,N] z) => (float[N,5,3] y, float[N,2] t) {
      [mm] y = MatMul(x, w)
      [fc] t = Gemm<transA=1, transB=1>(z, v)
    }"""
    found = multiply_adds(load_model_from_string(models.model(text, w=models.weights(7, 3), v=models.weights(2, 7))))
    assert found == {"mm": 5 * 3 * 7, "fc": 2 * 7}


def test_a_fixed_batch_counts_one_image_and_a_node_without_name_goes_by_its_output():
    text = "g (float[8,6] x) => (float[8,4] y) { y = Gemm(x, w) }"
    assert multiply_adds(load_model_from_string(models.model(text, w=models.weights(6, 4)))) == {"y": 24}


def test_an_int8_graph_of_others():
    assert multiply_adds(load_model_from_string(models.net_int8())) == {
        "conv1": 8 * 64 * 27,
        "conv2": 8 * 9 * 72,
        "fc": 40,
    }


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N,3,H,W] x) => (float[N,2,H,W] y) { [c] y = Conv(x, w) }",
        "g (float[N,3,8,8] x) => (float y) { [odd] t = away.Odd(x) [c] y = Conv(t, w) }",
    ],
    ids=["free axes", "unknown operator"],
)
def test_what_cannot_be_known_is_said(text):
    proto = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 19, "away" : 1]>\n{text}')
    proto.graph.initializer.append(numpy_helper.from_array(models.weights(2, 3, 1, 1), "w"))
    with pytest.raises(SpecError, match="the multiply-adds of Conv 'c' are not known"):
        multiply_adds(proto)


@pytest.mark.parametrize(
    ("dtype", "between", "found"),
    [
        ("int8", "", ("x8", "w8")),
        ("int8", "[c] wc = Cast<to=10>(w) [e] we = Cast<to=1>(wc)", ("x8", "")),
        ("int8", "[c] we = Cast<to=1>(w)", ("x8", "w8")),
        ("uint8", "", ("", "")),
    ],
)
def test_what_a_graph_states_in_int8(dtype, between, found):
    read = "we" if between else "w"
    text = f"""g ({dtype}[N,6] x8) => (float[N,4] y) {{
      [xdq] x = DequantizeLinear(x8, s) [wdq] w = DequantizeLinear(w8, s) {between} [fc] y = MatMul(x, {read})
    }}"""
    onnx = models.model(text, s=np.float32(1).reshape(()), w8=np.ones((6, 4), dtype))
    (product,) = products(load_model_from_string(onnx))
    assert (product.int8_data, product.int8_weight) == found
    assert (product.name, product.module, product.op_type, product.dtype) == ("fc", "fc", "MatMul", "float32")
