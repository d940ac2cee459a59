"""An equalized network computes what it did, each channel divided by its factor; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import models
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, load_model_from_string, numpy_helper
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.equalize import FLOOR, equalization, equalize, restore
from dlcv_deploy.graph.index import types

SIDE = 4


class Drawn:
    """A network under construction; ``maps`` are tensors (N, C, side, side) by name."""

    def __init__(self, seed):
        self.rng, self.nodes, self.weights = np.random.default_rng(seed), [], {}
        self.maps = {"x": (3, SIDE)}

    def add(self, op, inputs, shape=None, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        if shape:
            self.maps[name] = shape
        return name

    def constant(self, values):
        name = f"k{len(self.weights)}"
        self.weights[name] = np.asarray(values)
        return name

    def weight(self, *shape):
        return self.constant(self.rng.normal(0, 0.5, shape).astype(np.float32))

    def conv(self, x, out, groups=1, biased=True):
        c, side = self.maps[x]
        inputs = [x, self.weight(out, c // groups, 3, 3), *([self.weight(out)] if biased else [])]
        return self.add("Conv", inputs, (out, side), pads=[1] * 4, group=groups)

    def model(self, end, classes=3):
        values = [
            helper.make_tensor_value_info("x", 1, ["N", 3, SIDE, SIDE]),
            helper.make_tensor_value_info(end, 1, ["N", classes]),
        ]
        graph = helper.make_graph(self.nodes, "g", values[:1], values[1:])
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in self.weights.items())
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _step(net, kind, x, other):
    """One more node, or none where it would not fit."""
    c, side = net.maps[x]
    match kind:
        case "conv":
            net.conv(x, 4, biased=False)
        case "grouped" if c % 2 == 0:
            net.conv(x, 4, groups=2)
        case "relu" | "identity":
            net.add(kind.capitalize(), [x], (c, side))
        case "lrn":
            net.add("LRN", [x], (c, side), size=3)
        case "add" if net.maps[other] == (c, side):
            net.add("Add", [x, other], (c, side))
        case "shift":
            net.add("Add", [x, net.weight(c, 1, 1)], (c, side))
        case "concat" if net.maps[other][1] == side:
            net.add("Concat", [x, other], (c + net.maps[other][0], side), axis=1)
        case "pad":
            net.add("Pad", [x, net.constant(np.array([0, 1, 0, 0, 0, 1, 0, 0]))], (c + 2, side))
        case "slice" if side > 2:
            ends = [net.constant(np.array(v)) for v in ([0, 1], [9, 9], [-1, 2], [2, 1])]  # every second column
            net.add("Slice", [x, *ends])
        case "pool" if side > 2:
            net.add("MaxPool", [x], (c, side - 1), kernel_shape=[2, 2])
        case "average" if side > 2:
            net.add("AveragePool", [x], (c, side - 1), kernel_shape=[2, 2])


@st.composite
def networks(draw):
    net = Drawn(draw(st.integers(0, 99)))
    net.conv("x", 4)
    kinds = ["conv", "grouped", "relu", "identity", "lrn", "add", "shift", "concat", "pad", "slice", "pool", "average"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=8)):
        names = [name for name in net.maps if name != "x"]
        _step(net, kind, draw(st.sampled_from(names[-3:])), draw(st.sampled_from(names)))
    last = list(net.maps)[-1]
    c, side = net.maps[last]
    if draw(st.booleans()):
        last, side = net.add("GlobalAveragePool", [last]), 1
    flat, n = net.add("Flatten", [last]), c * side * side
    if draw(st.booleans()):
        hidden = net.add("Gemm", [flat, net.weight(5, n), net.weight(5)], transB=1, alpha=0.5, beta=2.0)
    else:
        hidden = net.add("Gemm", [flat, net.weight(n, 5)])
    return net.model(net.add("MatMul", [net.add("Relu", [hidden]), net.weight(5, 3)]))


def run(model, x):
    return ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})


def peaks(model, seed):
    """A largest magnitude for each channel of every tensor, none and one a few thousand times another among them."""
    rng = np.random.default_rng(seed)
    known = types(model)
    names = [t for node in model.graph.node for t in node.output]
    return {t: np.maximum(rng.uniform(-1, 1, known[t][1][1]), 0) ** 8 for t in names if known[t][1]}


@settings(max_examples=60)
@given(networks(), st.integers(0, 99))
def test_an_equalized_network_computes_the_same(model, seed):
    seen = peaks(model, seed)
    x = np.random.default_rng(seed).normal(0, 1, (2, 3, SIDE, SIDE)).astype(np.float32)
    (before,) = run(model, x)
    factors = equalization(model, seen, tuple(seen))
    assert all(FLOOR <= factor <= 1 for values in factors.values() for factor in values)
    assert model.graph.output[0].name not in factors
    assert equalize(model, factors) == {}
    (after,) = run(model, x)
    assert np.abs(after - before).max() <= 1e-5 * max(1, np.abs(before).max())


def chain(between="[relu_1] r = Relu(c)", **more):
    text = f"""g (float[N,3,4,4] x) => (float[N,2,4,4] y) {{
      [conv_1] c = Conv(x, w1, b1)
      {between}
      [conv_2] y = Conv(r, w2)
    }}"""
    weights = {"w1": models.weights(4, 3, 1, 1), "b1": models.weights(4), "w2": models.weights(2, 4, 1, 1)} | more
    return load_model_from_string(models.model(text, **weights))


def test_factors_are_what_each_channel_reaches_of_the_tensors_range():
    seen = {"c": [100, 100, 100, 100], "r": [8.0, 4.0, 0.0, 0.001]}
    assert equalization(chain(), seen, ("x", "r")) == {"c": (1.0, 0.5, 1.0, FLOOR)}
    assert equalization(chain(), seen, ("x", "c")) == {}
    assert equalization(chain(), seen, ()) == {}
    assert equalization(chain(), {"r": np.zeros(4)}, ("r",)) == {}


def test_tied_tensors_share_the_largest_factor():
    model = chain("[relu_1] s = Relu(c) [conv_3] t = Conv(s, w3) [sum] r = Add(t, s)", w3=models.weights(4, 4, 1, 1))
    seen = {"s": [1, 0.5, 0.25, 0.5], "r": [0.5, 1, 0.25, 0.25]}
    factors = (1.0, 1.0, 0.25, 0.5)
    assert equalization(model, seen, ("s", "r")) == {"c": factors, "t": factors}


def test_an_equalized_tensor_is_divided_by_its_factors():
    model, factors = chain(), (1.0, 0.5, 0.25, 0.75)
    for name in ("c", "r"):
        model.graph.output.append(helper.make_tensor_value_info(name, 1, ["N", 4, 4, 4]))
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 4)).astype(np.float32)
    before = run(model, x)
    del model.graph.output[1:]
    equalize(model, {"c": factors})
    model.graph.output.append(helper.make_tensor_value_info("r", 1, ["N", 4, 4, 4]))
    y, r = run(model, x)
    assert np.allclose(y, before[0], atol=1e-6)
    assert np.allclose(r * np.reshape(factors, (1, 4, 1, 1)), before[2], atol=1e-6)


def test_weights_that_two_layers_share_are_each_made_to_fit():
    model = chain("[relu_1] s = Relu(c) [conv_3] r = Conv(s, w3)", w3=models.weights(4, 4, 1, 1))
    model.graph.node[3].input[1] = "w3"  # both read w3
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 4)).astype(np.float32)
    (before,) = run(model, x)
    equalize(model, {"c": (0.5, 0.25, 1.0, 0.125), "r": (0.75, 0.5, 0.25, 1.0)})
    assert np.allclose(run(model, x)[0], before, atol=1e-6)


@pytest.mark.parametrize(
    "between",
    [
        "[lrn] r = LRN<size=3>(c)",
        "[sigmoid] r = Sigmoid(c)",
        "[shift] r = Add(c, k)",
        "[clip] r = Clip(c, zero, six)",
        "[slice] r = Slice(c, starts, ends, channels, back)",
        "[edge] r = Pad<mode=\"edge\">(c, pads)",
        "[filled] r = Pad(c, pads, six)",
        "[shuffled] s = Reshape(c, shape) [back] r = Reshape(s, original)",
    ],
)  # fmt: skip
def test_operators_that_would_see_the_difference_keep_their_channels(between):
    constants = {
        "k": models.weights(4, 1, 1),
        "zero": np.float32(0),
        "six": np.float32(6),
        "starts": np.array([-1]),
        "ends": np.array([-9]),
        "channels": np.array([-3]),
        "back": np.array([-1]),
        "pads": np.array([0] * 8),
        "shape": np.array([0, 2, 2, 4, 4]),
        "original": np.array([0, 4, 4, 4]),
    }
    model = chain(between, **constants)
    assert equalization(model, {"c": [4, 3, 2, 1], "r": [4, 3, 2, 1]}, ("c", "r")) == {}
    with pytest.raises(SpecError, match="'c' reaches an output or an operator that would see the difference"):
        equalize(model, {"c": (1.0, 0.5, 1.0, 1.0)})


def test_a_shape_does_not_see_the_difference():
    model = chain("[relu_1] s = Relu(c) [size] n = Shape(s) [ones] o = ConstantOfShape(n) [sum] r = Identity(s)")
    assert equalization(model, {"r": [4, 3, 2, 1]}, ("r",)) == {"c": (1, 0.75, 0.5, 0.25)}


def test_a_product_of_rows_has_its_channels_last_and_is_left():
    text = """g (float[N,4,6] x) => (float[N,4,4] y) {
      [mat_mul_1] a = MatMul(x, w1) [relu_1] r = Relu(a) [mat_mul_2] y = MatMul(r, w2)
    }"""
    model = load_model_from_string(models.model(text, w1=models.weights(6, 4), w2=models.weights(4, 4)))
    assert equalization(model, {"r": [4, 3, 2, 1]}, ("r",)) == {}


def test_a_sum_over_other_axes_is_left():
    text = """g (float[N,4,4,2] x) => (float[N,2,4,2] y) {
      [conv_1] c = Conv(x, w1) [mean] m = ReduceMean<keepdims=0>(x, axes) [fc] f = MatMul(m, w3)
      [sum] r = Add(c, f) [conv_2] y = Conv(r, w2)
    }"""
    constants = {"axes": np.array([1, 2]), "w1": models.weights(4, 4, 1, 1), "w2": models.weights(2, 4, 1, 1)}
    model = load_model_from_string(models.model(text, w3=models.weights(2, 4), **constants))
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 4
    model.graph.node[2].input[1] = "w4"
    model.graph.initializer.append(numpy_helper.from_array(models.weights(4, 4), "w4"))
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 4
    assert equalization(model, {"r": [4, 3, 2, 1]}, ("r",)) == {}  # f is (N, 4): its columns are r's columns


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({"c": (0.5, 0.5)}, "no layer that gives 'c' with 2 channels"),
        ({"q": (0.5,)}, "no layer that gives 'q' with 1 channels"),
        ({"y": (0.5, 1.0)}, "'y' reaches an output"),
        ({"x": (0.5, 1.0, 1.0)}, "'x' reaches an output"),
        ({"c": (0.5, 0.0, 1.0, 1.0)}, "a channel of 'c' would be divided by 0.0"),
        ({"c": (0.5, -1.0, 1.0, 1.0)}, "a channel of 'c' would be divided by -1.0"),
        ({"c": (0.5, float("nan"), 1.0, 1.0)}, "a channel of 'c' would be divided by nan"),
        ({"c": (1, 1, 1, 0.5), "r": (1, 1, 1, 0.25)}, "a channel of 'r' would be divided by 0.25 and by 0.5"),
    ],
)
def test_factors_of_another_network_are_refused(factors, said):
    with pytest.raises(SpecError, match=f"the equalization does not fit: .*{said}.*\n  fix: calibrate"):
        equalize(chain(), factors)


def test_an_output_that_repeats_an_inner_tensor_changes_nothing_and_is_multiplied_back():
    plain, tapped = chain(), chain("[relu_1] r = Relu(c) [tap] features = Identity(r)")
    tapped.graph.output.append(helper.make_tensor_value_info("features", 1, ["N", 4, 4, 4]))
    seen = {"r": [1, 0.5, 0.25, 0.125]}
    factors = equalization(tapped, seen, ("r",))
    assert factors == equalization(plain, seen, ("r",)) == {"c": (1.0, 0.5, 0.25, 0.125)}
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 4)).astype(np.float32)
    before = run(tapped, x)
    repeated = equalize(tapped, factors)
    assert {name: by.tolist() for name, by in repeated.items()} == {"features": [1, 0.5, 0.25, 0.125]}
    restore(tapped, repeated)
    after = run(tapped, x)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(after, before, strict=True))
