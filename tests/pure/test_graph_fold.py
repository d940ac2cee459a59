"""What an exporter leaves goes; what computes stays; batch norms fold exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.fold import fold

NORM = "y = BatchNormalization <epsilon = 1.0> (c, gamma, beta, mean, var)"
SIX = "<float[2] gamma = {1, 6}, float[2] beta = {0.5, -1}, float[2] mean = {2, 0.25}, float[2] var = {3, 8}"


def build(body: str, weights: str = "", *, signature: str = "(float[n,1,4,4] x) => (float[n,2,4,4] y)", opset=20):
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> net {signature} {weights} {{ {body} }}')
    checker.check_model(model, full_check=True)
    return model


def folded(model: ModelProto) -> ModelProto:
    before = model.SerializeToString()
    result = fold(model)
    assert model.SerializeToString() == before, "the argument was changed"
    assert fold(result).SerializeToString() == result.SerializeToString(), "folding twice is not folding once"
    checker.check_model(result, full_check=True)
    return result


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def values(model: ModelProto) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def same(before: ModelProto, after: ModelProto, *shape: int, within: float = 0.0) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for want, got in zip(*(ReferenceEvaluator(m).run(None, {"x": x}) for m in (before, after)), strict=True):
        assert want.shape == got.shape
        assert np.abs(want - got).max() <= within


def test_a_batch_norm_becomes_its_convolutions_weights_and_bias():
    weights = SIX + ", float[2,1,1,1] w = {4, 5}, float[2] b = {1, 2}>"
    before = build(f"c = Conv (x, w, b) {NORM}", weights)
    after = folded(before)
    assert ops(after) == ["Conv"]
    assert list(after.graph.node[0].input) == ["x", "y_weight", "y_bias"]
    assert list(after.graph.node[0].output) == ["y"]
    assert values(after).keys() == {"y_weight", "y_bias"}
    assert values(after)["y_weight"].reshape(-1).tolist() == [2, 10]  # gamma / sqrt(var + 1) = 0.5, 2
    assert values(after)["y_bias"].tolist() == [0, 2.5]  # (b - mean) * factor + beta
    assert values(after)["y_weight"].dtype == values(after)["y_bias"].dtype == np.float32
    same(before, after, 2, 1, 4, 4, within=1e-5)


def test_a_convolution_without_bias_gets_one():
    after = folded(build(f"c = Conv (x, w) {NORM}", SIX + ", float[2,1,1,1] w = {4, 5}>"))
    assert values(after)["y_bias"].tolist() == [-0.5, -1.5]


def test_weights_that_two_convolutions_share_are_folded_for_each():
    body = f"c = Conv (x, w) {NORM.replace('y =', 'p =')} q = Conv (x, w) y = Add (p, q)"
    before = build(body, SIX + ", float[2,1,1,1] w = {4, 5}>")
    after = folded(before)
    assert ops(after) == ["Conv", "Conv", "Add"]
    assert values(after)["w"].reshape(-1).tolist() == [4, 5]
    assert values(after)["p_weight"].reshape(-1).tolist() == [2, 10]
    same(before, after, 1, 1, 4, 4, within=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        f"c = Conv (x, w) {NORM.replace('y =', 'p =')} y = Add (p, c)",
        f"c = Conv (x, w) r = Relu (c) {NORM.replace('(c,', '(r,')}",
        "c = Conv (x, w) y, m, v = BatchNormalization <training_mode = 1> (c, gamma, beta, mean, var)",
        f"v = Relu (w) c = Conv (x, v) {NORM}",
    ],
    ids=["conv is read twice", "no conv before it", "training", "weight is computed"],
)
def test_a_batch_norm_that_cannot_be_folded_stays(body):
    before = build(body, SIX + ", float[2,1,1,1] w = {4, 5}>")
    after = folded(before)
    assert ops(after) == ops(before)
    same(before, after, 1, 1, 4, 4)


def test_a_convolution_whose_output_is_returned_keeps_its_batch_norm():
    signature = "(float[n,1,4,4] x) => (float[n,2,4,4] y, float[n,2,4,4] c)"
    before = build(f"c = Conv (x, w) {NORM}", SIX + ", float[2,1,1,1] w = {4, 5}>", signature=signature)
    assert ops(folded(before)) == ["Conv", "BatchNormalization"]


def test_what_does_nothing_is_no_step_on_the_way_to_the_first_output():
    """The exporter writes Dropout before the features, which the last layer reads."""
    signature = "(float[n,2] x) => (float[n,2] y, float[n,2] features, float[n,2] same)"
    body = "r = Relu (x) features = Dropout (r) y = Tanh (features) same = Cast <to = 1> (r)"
    before = build(body, signature=signature)
    after = folded(before)
    assert [(n.op_type, *n.input, "->", *n.output) for n in after.graph.node] == [
        ("Relu", "x", "->", "r"),
        ("Identity", "r", "->", "features"),
        ("Tanh", "r", "->", "y"),
        ("Identity", "r", "->", "same"),
    ]
    same(before, after, 3, 2)


@given(*[st.floats(-8, 8, width=32)] * 5, st.floats(0, 8, width=32))
def test_folding_is_exact_to_the_last_place(w, b, gamma, beta, mean, var):
    parts = {"gamma": gamma, "beta": beta, "mean": mean, "var": var, "b": b}
    before = build(
        f"c = Conv (x, w, b) {NORM.replace('1.0', '0.5')}",
        "<float[1,1,1,1] w = {0}, float[1] b = {0}, float[1] gamma = {0}, float[1] beta = {0}, float[1] mean = {0}, "
        "float[1] var = {0}>",
        signature="(float[n,1,4,4] x) => (float[n,1,4,4] y)",
    )
    del before.graph.initializer[:]
    arrays = {name: np.full(1, value, np.float32) for name, value in parts.items()}
    arrays["w"] = np.full((1, 1, 1, 1), w, np.float32)
    before.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    got = values(fold(before))
    deviation = Fraction(float(np.sqrt(np.float64(var) + 0.5)))
    weight = Fraction(w) * Fraction(gamma) / deviation
    bias = (Fraction(b) - Fraction(mean)) * Fraction(gamma) / deviation + Fraction(beta)
    for part, exact in (("y_weight", weight), ("y_bias", bias)):
        value = got[part].reshape(-1)[0]
        assert abs(Fraction(float(value)) - exact) <= Fraction(1, 10**13) + Fraction(float(np.spacing(abs(value)))) / 2


@pytest.mark.parametrize(("name", "bad"), [("var", "-4, 1"), ("gamma", "1e38, 1e38"), ("mean", "nan, 0")])
def test_statistics_that_give_no_numbers_are_refused_by_name(name, bad):
    model = build(f"[first] c = Conv (x, w) {NORM}", SIX + ", float[2,1,1,1] w = {100, 100}>")
    at = next(i for i in model.graph.initializer if i.name == name)
    at.CopyFrom(numpy_helper.from_array(np.array(bad.split(","), np.float32), name))
    with pytest.raises(SpecError, match=r"BatchNormalization '' after Conv 'first' gives weights that are not finite"):
        fold(model)


def test_constants_and_what_only_moves_them_become_initializers():
    before = build(
        """
        s = Shape <start = 0, end = 1> (w)
        zero = Constant <value = float {0.0}> ()
        one = Constant <value_ints = [1]> ()
        like = CastLike (zero, x)
        shape = Expand (s, one)
        bias = Expand (like, shape)
        y = Conv (x, w, bias)
        """,
        "<float[2,1,1,1] w = {4, 5}>",
    )
    after = folded(before)
    assert ops(after) == ["Conv"]
    assert values(after)["bias"].tolist() == [0, 0]
    assert values(after)["bias"].dtype == np.float32
    same(before, after, 3, 1, 4, 4)


@pytest.mark.parametrize(
    ("constant", "output", "want"),
    [
        ("value_float = 1.5", "float", np.array(1.5, np.float32)),
        ("value_floats = [1.5, 2.5]", "float[2]", np.array([1.5, 2.5], np.float32)),
        ("value_int = 7", "int64", np.array(7, np.int64)),
        ("value_ints = [7, 8]", "int64[2]", np.array([7, 8], np.int64)),
        ("value = int32[1] {3}", "int32[1]", np.array([3], np.int32)),
    ],
)
def test_every_kind_of_constant(constant, output, want):
    model = build(f"k = Constant <{constant}> () y = Add (k, k)", signature=f"(float[n] x) => ({output} y)")
    after = folded(model)
    assert ops(after) == ["Add"]
    got = values(after)["k"]
    assert (got.tolist(), got.dtype, got.shape) == (want.tolist(), want.dtype, want.shape)


def test_what_does_nothing_goes():
    before = build(
        """
        a = Identity (x)
        b = Dropout (a)
        c = Cast <to = 1> (b)
        d = Relu (c)
        y = Identity (d)
        """,
        signature="(float[n,2] x) => (float[n,2] y)",
    )
    after = folded(before)
    assert [(n.op_type, list(n.input)) for n in after.graph.node] == [("Relu", ["x"]), ("Identity", ["d"])]
    same(before, after, 3, 2)


def test_an_identity_that_returns_the_input_stays():
    assert ops(folded(build("y = Identity (x)", signature="(float[n] x) => (float[n] y)"))) == ["Identity"]


def test_dropout_in_training_stays():
    body = "r = Constant <value = float {0.5}> () t = Constant <value = bool {1}> () y = Dropout (x, r, t)"
    assert ops(folded(build(body, signature="(float[n] x) => (float[n] y)"))) == ["Dropout"]


@pytest.mark.parametrize(
    ("node", "opset", "shape", "op"),
    [
        ("ReduceMean <keepdims = 1> (x, last)", 20, "n,2,1,1", "GlobalAveragePool"),
        ("ReduceMean (x, both)", 20, "n,2,1,1", "GlobalAveragePool"),
        ("ReduceMean <axes = [2, 3]> (x)", 13, "n,2,1,1", "GlobalAveragePool"),
        ("ReduceMean <keepdims = 0> (x, last)", 20, "n,2", "ReduceMean"),
        ("ReduceMean (x, one)", 20, "n,2,4,1", "ReduceMean"),
        ("ReduceMean (x)", 20, "1,1,1,1", "ReduceMean"),
    ],
)
def test_a_mean_over_the_image_is_a_global_average_pool(node, opset, shape, op):
    weights = "<int64[2] last = {-1, -2}, int64[2] both = {2, 3}, int64[1] one = {3}>"
    before = build(f"y = {node}", weights, signature=f"(float[n,2,4,4] x) => (float[{shape}] y)", opset=opset)
    after = folded(before)
    assert ops(after) == [op]
    if op == "GlobalAveragePool":
        assert (list(after.graph.node[0].input), list(after.graph.node[0].attribute)) == (["x"], [])
    same(before, after, 3, 2, 4, 4, within=1e-6)


def test_a_reshape_that_keeps_a_free_batch_is_flatten():
    before = build(
        """
        n = Shape <start = 0, end = 1> (x)
        k = Constant <value_ints = [8]> ()
        shape = Concat <axis = 0> (n, k)
        y = Reshape <allowzero = 1> (x, shape)
        """,
        signature="(float[n,2,2,2] x) => (float[n,8] y)",
    )
    after = folded(before)
    assert [(n.op_type, list(n.input), len(n.attribute)) for n in after.graph.node] == [("Flatten", ["x"], 0)]
    assert not after.graph.initializer
    same(before, after, 3, 2, 2, 2)


@pytest.mark.parametrize(("to", "shape"), [("-1, 4", "m,4"), ("-1, 2, 4", "n,2,4"), ("0, -1, 1, 1", "n,8,1,1")])
def test_other_reshapes_stay(to, shape):
    count = to.count(",") + 1
    weights = f"<int64[{count}] shape = {{{to}}}>"
    model = build("y = Reshape (x, shape)", weights, signature=f"(float[n,2,2,2] x) => (float[{shape}] y)")
    assert ops(folded(model)) == ["Reshape"]


def test_what_nothing_reads_goes_and_weights_are_no_inputs():
    weights = "<float[2] w = {1, 2}, float[1] k = {0}>"
    model = build("y = Relu (x) z = Relu (w)", weights, signature="(float[n] x) => (float[n] y)")
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    after = fold(model)
    assert ops(after) == ["Relu"]
    assert not after.graph.initializer
    assert [i.name for i in after.graph.input] == ["x"]


def test_functions_are_inlined():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 20, "own": 1]>
        net (float[n] x) => (float[n] y) { y = own.twice (x) }
        <domain: "own", opset_import: ["": 20]>
        twice (a) => (c) { b = Relu (a) c = Relu (b) }
    """)
    assert ops(fold(model)) == ["Relu", "Relu"]


def test_graphs_that_no_pass_understands_are_refused():
    inner = helper.make_graph([], "g", [], [])
    model = build("y = Relu (x)", signature="(float[n] x) => (float[n] y)")
    model.graph.node[0].CopyFrom(helper.make_node("If", ["x"], ["y"], "choice", then_branch=inner, else_branch=inner))
    with pytest.raises(SpecError, match=r"node 'choice' \(If\) holds a graph of its own\n  fix: .*control flow"):
        fold(model)
    model = build("y = Add (x, w)", "<float[1] w = {1}>", signature="(float[n] x) => (float[n] y)")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(SpecError, match=r"initializer 'w' is sparse, or its values lie in another file"):
        fold(model)
