"""Where Q/DQ pairs go, the exact scales and int8 weights, and what is left alone."""

from __future__ import annotations

import dataclasses as dc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, checker, helper, numpy_helper, parser, shape_inference
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.index import types
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.types import ExportedModel, LeftAlone, QuantizedModel

IO = "(float[n,2,4,4] input) => (float[n,2,4,4] logits)"
EYES = "<float[2,2,1,1] w1 = {127, 0, 0, 254}, float[2,2,1,1] w2 = {1, 0, 0, 1}, float[2,2,1,1] w3 = {1, 0, 0, 1}>"
PLAIN_SUM = "neither input is an int8 convolution that feeds this sum alone, so there is nothing to fuse it into"


def exported(body: str, weights: str = EYES, *, signature: str = IO, **arrays: np.ndarray) -> ExportedModel:
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> net {signature} {weights} {{ {body} }}')
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    checker.check_model(model, full_check=True)
    return ExportedModel("net", model.SerializeToString(), (), (), "0" * 64)


def proto(model: ExportedModel) -> ModelProto:
    return ModelProto.FromString(model.onnx)


def quantized(model: ExportedModel, amax: dict[str, float] | None = None, default: float = 127.0) -> QuantizedModel:
    ranges = dict.fromkeys(quantizable(proto(model)), default) | (amax or {})
    result = quantize(model, ranges)
    assert quantize(model, dict(reversed(ranges.items()))) == result, "not deterministic"
    assert result.model == dc.replace(model, onnx=result.model.onnx, precision="int8")
    after = proto(result.model)
    checker.check_model(after, full_check=True)
    shape_inference.infer_shapes(after, check_type=True, strict_mode=True)
    return result


def lines(result: QuantizedModel) -> list[str]:
    """The graph, each pair as one line, weights' DequantizeLinear left out."""
    text = []
    for n in proto(result.model).graph.node:
        if n.op_type == "QuantizeLinear":
            text.append(f"pair {n.input[0]}")
        elif n.op_type != "DequantizeLinear":
            text.append(f"{n.name}: {' '.join(n.input)}")
    return text


def values(result: QuantizedModel) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in proto(result.model).graph.initializer}


def run(model: ExportedModel, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(proto(model)).run(None, {"input": x})[0]


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# Scales and weights


def test_activations_have_one_scale_a_tensor_and_weights_one_an_output_channel():
    w = np.array([[[[1.0]], [[-0.5]]], [[[0.25]], [[0.1]]]], np.float32)
    model = exported("[conv_1] logits = Conv (input, w, b)", "", w=w, b=np.array([1, -1], np.float32))
    result = quantized(model, {"input": 2.5})
    got = values(result)
    assert got.keys() == {"b", "w_q", "w_scale", "input_scale", "input_zero_point"}
    assert got["input_scale"] == np.float32(2.5 / 127)
    assert got["input_scale"].shape == got["input_zero_point"].shape == ()
    assert (got["input_zero_point"], got["input_zero_point"].dtype) == (0, np.int8)
    assert got["w_scale"].tolist() == [np.float32(1 / 127), np.float32(0.25 / 127)]
    assert got["w_q"].dtype == np.int8
    assert got["w_q"].reshape(2, 2).tolist() == [[127, -64], [127, 51]]  # -63.5 goes to even; 0.1 / 0.25 * 127 = 50.8
    assert got["b"].tolist() == [1, -1]
    assert [(n.op_type, n.name, *n.input, "->", *n.output) for n in proto(result.model).graph.node] == [
        ("QuantizeLinear", "input_quantize", "input", "input_scale", "input_zero_point", "->", "input_q"),
        ("DequantizeLinear", "input_dequantize", "input_q", "input_scale", "input_zero_point", "->", "input_dq"),
        ("DequantizeLinear", "w_dequantize", "w_q", "w_scale", "->", "w_dq"),
        ("Conv", "conv_1", "input_dq", "w_dq", "b", "->", "logits"),
    ]
    assert (result.quantized, result.left_alone) == (("conv_1",), ())


@pytest.mark.parametrize(
    ("body", "shape", "axis"),
    [
        ("[fc] logits = Gemm <transB = 1> (input, w)", (2, 3), 0),
        ("[fc] logits = Gemm (input, w)", (3, 2), 1),
        ("[fc] logits = MatMul (input, w)", (3, 2), 1),
    ],
)
def test_the_output_channel_of_a_matrix_follows_from_the_operator(body, shape, axis):
    w = np.array([[1, 2, 4], [0.5, -8, 0]], np.float32)
    w = w if axis == 0 else w.T
    model = exported(body, "", signature="(float[n,3] input) => (float[n,2] logits)", w=np.ascontiguousarray(w))
    result = quantized(model)
    got = values(result)
    assert got["w_scale"].tolist() == [np.float32(4 / 127), np.float32(8 / 127)]
    assert got["w_q"].shape == shape
    rows = got["w_q"] if axis == 0 else got["w_q"].T
    assert rows.tolist() == [[32, 64, 127], [8, -127, 0]]
    (dq,) = [n for n in proto(result.model).graph.node if n.name == "w_dequantize"]
    assert dq.attribute[0].i == axis
    x = np.array([[1, 2, 3], [-4, 5, 6]], np.float32)  # multiples of the scale 1
    want = x.astype(np.float64) @ (rows * got["w_scale"].astype(np.float64)[:, None]).T
    assert np.abs(run(result.model, x) - want).max() <= 1e-5


def grouped(*shape):
    o, c = shape[0], 2 * shape[1]
    w = np.ones(shape, np.float32) * 2.0 ** np.arange(o, dtype=np.float32).reshape(-1, 1, 1, 1)
    signature = f"(float[n,{c},4,4] input) => (float[n,{o},4,4] logits)"
    return exported("[conv_1] logits = Conv <group = 2> (input, w)", "", signature=signature, w=w)


def test_a_grouped_convolution_has_a_scale_for_each_of_its_outputs():
    got = values(quantized(grouped(8, 4, 1, 1)))
    assert got["w_scale"].tolist() == [np.float32(2.0**i / 127) for i in range(8)]
    assert got["w_q"].reshape(-1).tolist() == [127] * 32


@pytest.mark.parametrize("shape", [(8, 2, 1, 1), (4, 4, 1, 1), (12, 4, 1, 1), (8, 6, 1, 1)])
def test_groups_of_other_than_a_multiple_of_four_channels_stay_in_float(shape):
    with pytest.raises(SpecError, match="TensorRT takes groups of 4 channels"):
        quantized(grouped(*shape))


@given(
    hnp.arrays(np.float32, (3, 4, 1, 1), elements=st.floats(-(2.0**20), 2.0**20, width=32)),
    st.floats(2.0**-20, 2.0**20),
)
def test_a_weight_is_at_most_half_a_step_away(w, amax):
    model = exported(
        "[c] logits = Conv (input, w)", "", signature="(float[n,4,1,1] input) => (float[n,3,1,1] logits)", w=w
    )
    got = values(quantize(model, {"input": amax}))
    scale = got["w_scale"].astype(np.float64).reshape(3, 1, 1, 1)
    assert got["input_scale"] == np.float32(amax / 127)
    assert (np.abs(got["w_q"] * scale - w) <= scale * (0.5 + 127 * 2.0**-24)).all()
    top = np.abs(w).reshape(3, -1).max(axis=1).astype(np.float64) / 127
    assert got["w_scale"].tolist() == np.maximum(top, 2.0**-64).astype(np.float32).tolist()


def test_the_quantized_network_computes_what_rounding_by_hand_gives():
    rng = np.random.default_rng(3)
    w, b = rng.standard_normal((3, 2, 3, 3)).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    model = exported(
        "[conv_1] c = Conv <pads = [1,1,1,1]> (input, w, b) [relu_1] r = Relu (c) [conv_2] logits = Conv (r, v)",
        "",
        signature="(float[n,2,4,4] input) => (float[n,1,4,4] logits)",
        w=w,
        b=b,
        v=np.array([1, -2, 3], np.float32).reshape(1, 3, 1, 1),
    )
    x = pixels(2, 2, 4, 4)
    result = quantized(model, {"input": 3.0, "r": 9.0})

    def rounded(a: np.ndarray, amax: float) -> np.ndarray:
        scale = np.float32(amax / 127)
        return np.clip(np.rint(a / scale), -128, 127) * np.float64(scale)

    scale = np.abs(w).max(axis=(1, 2, 3)).astype(np.float64).reshape(3, 1, 1, 1) / 127
    w8 = np.rint(w / scale) * scale
    padded = np.pad(rounded(x, 3.0), ((0, 0), (0, 0), (1, 1), (1, 1)))
    c = sum(
        np.einsum("nchw,kc->nkhw", padded[:, :, dy : dy + 4, dx : dx + 4], w8[:, :, dy, dx])
        for dy in range(3)
        for dx in range(3)
    )
    r = rounded(np.maximum(c + b.reshape(3, 1, 1), 0).astype(np.float32), 9.0)
    v8 = np.rint(np.array([1, -2, 3]) / (3 / 127)) * (3 / 127)
    want = np.einsum("nkhw,k->nhw", r, v8)[:, None]
    assert np.abs(run(result.model, x) - want).max() <= 1e-5


def test_a_dead_channel_keeps_its_bias_within_int32():
    """ONNX Runtime counts a bias in steps of both scales; with a scale of 1e-9 or less, a bias of 1 would wrap."""
    w = np.array([0, 1e-12, 1e-42, 1.0, 0], np.float32).reshape(5, 1, 1, 1)
    b = np.array([1, 1, -2, 1, 0], np.float32)
    model = exported(
        "[conv_1] logits = Conv (input, w, b)",
        "",
        signature="(float[n,1,1,1] input) => (float[n,5,1,1] logits)",
        w=w,
        b=b,
    )
    got = values(quantized(model, {"input": 12.7}))
    step = 12.7 / 127
    want = [1 / step / 2**30, 1 / step / 2**30, 2 / step / 2**30, 1 / 127, 2.0**-64]
    assert got["w_scale"].tolist() == pytest.approx(want, rel=1e-6)
    assert got["w_q"].reshape(-1).tolist() == [0, 0, 0, 127, 0]
    assert (np.abs(b) / (step * got["w_scale"].astype(np.float64)) < 2**31 - 1).all()


def test_a_weight_that_two_convolutions_share_is_stored_for_each_bias():
    model = exported(
        "[a] p = Conv (input, w1) [b] q = Conv (input, w1, big) [c] logits = Mul (p, q)",
        EYES.replace(">", ", float[2] big = {1e12, 0}>"),
    )
    got = values(quantized(model))
    assert got["w1_scale"].tolist() == [1, 2]
    assert got["w1_again_scale"].tolist() == [pytest.approx(1e12 / 2**30), 2]
    assert "w1" not in got


def test_a_weight_that_is_read_in_float32_too_stays():
    model = exported("[a] p = Conv (input, w1) [t] t = ReduceSum <keepdims = 0> (w1) [c] logits = Mul (p, t)")
    assert {"w1", "w1_q", "w1_scale"} <= values(quantized(model)).keys()


# Placement


def test_all_readers_share_one_pair():
    model = exported(
        "[a] p = Conv (input, w1) [b] q = Conv (input, w2) [c] r = Relu (input) [d] s = Mul (p, q) "
        "[e] logits = Mul (s, r)"
    )
    assert quantizable(proto(model)) == ("input",)
    assert lines(quantized(model)) == [
        "pair input",
        "a: input_dq w1_dq",
        "b: input_dq w2_dq",
        "c: input",
        "d: p q",
        "e: s r",
    ]


BLOCK = """[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1) [conv_2] c2 = Conv (r1, w2)
           [conv_3] c3 = Conv (c2, w3) [add_1] s = Add (SUM) [relu_2] logits = Relu (s)"""


@pytest.mark.parametrize(("order", "inputs"), [("c3, r1", "c3 r1_dq"), ("r1, c3", "r1_dq c3")])
def test_an_identity_shortcut_shares_the_pair_of_the_convolution_beside_it(order, inputs):
    result = quantized(exported(BLOCK.replace("SUM", order)))
    assert lines(result) == [
        "pair input",
        "conv_1: input_dq w1_dq",
        "relu_1: c1",
        "pair r1",
        "conv_2: r1_dq w2_dq",
        "pair c2",
        "conv_3: c2_dq w3_dq",
        f"add_1: {inputs}",
        "relu_2: s",
    ]
    assert result.quantized == ("conv_1", "conv_2", "conv_3", "add_1")


@pytest.mark.parametrize("order", ["c3, p", "p, c3"])
def test_of_two_convolutions_the_shorter_path_is_the_shortcut(order):
    body = BLOCK.replace("[add_1]", "[conv_4] p = Conv (r1, w4) [add_1]").replace("SUM", order)
    result = quantized(exported(body, EYES.replace(">", ", float[2,2,1,1] w4 = {1, 1, 1, 1}>")))
    assert quantizable(proto(exported(body, EYES.replace(">", ", float[2,2,1,1] w4 = {1, 1, 1, 1}>")))) == (
        *("input", "r1", "c2", "p"),
    )
    assert "add_1: " + order.replace("p", "p_dq").replace(",", "") in lines(result)
    assert "pair c3" not in lines(result)


def test_of_two_equally_long_paths_the_second_is_the_shortcut():
    result = quantized(exported("[a] p = Conv (input, w1) [b] q = Conv (input, w2) [c] logits = Add (p, q)"))
    assert lines(result)[-2:] == ["pair q", "c: p q_dq"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[c] h = Conv (input, w1) [r] p = Relu (h) [s] logits = Add (p, input)", PLAIN_SUM),
        ("[c] p = Conv (input, w1) [s] q = Add (p, input) [t] logits = Mul (p, q)", PLAIN_SUM),
        ("[c] p = Conv (input, w1) [s] logits = Add (p, p)", PLAIN_SUM),
        (
            "[c] p = Conv (input, w1) [s] logits = Add (p, w2)",
            "it adds a constant, which takes little time beside the convolutions",
        ),
    ],
    ids=["no convolution", "the convolution is read elsewhere", "twice the same", "constant"],
)
def test_sums_that_do_not_fuse_are_left_alone(body, reason):
    weights = EYES.replace("float[2,2,1,1] w2 = {1, 0, 0, 1}", "float[2,1,1] w2 = {1, 1}")
    result = quantized(exported(body, weights))
    assert LeftAlone("s", "Add", reason) in result.left_alone
    assert result.quantized == ("c",)


OPTION_A = """[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1)
    [conv_2] c2 = Conv <strides = [2, 2]> (r1, wide)
    [slice_1] h = Slice (r1, zero, four, two, step) [slice_2] i = Slice (h, zero, four, three, step)
    [pad_1] p = Pad (i, pads) [add_1] logits = Add (c2, p)"""
OPTION_A_WEIGHTS = """<float[2,2,1,1] w1 = {127, 0, 0, 254}, float[4,2,1,1] wide = {1, 0, 0, 1, 1, 1, 1, -1},
    int64[1] zero = {0}, int64[1] four = {4}, int64[1] two = {2}, int64[1] three = {3}, int64[1] step = {2},
    int64[8] pads = {0, 1, 0, 0, 0, 1, 0, 0}>"""


def option_a(pad: str = "Pad (i, pads)", weights: str = "") -> ExportedModel:
    return exported(
        OPTION_A.replace("Pad (i, pads)", pad),
        OPTION_A_WEIGHTS.replace(">", f"{weights}>"),
        signature="(float[n,2,4,4] input) => (float[n,4,2,2] logits)",
    )


def test_an_option_a_shortcut_runs_in_the_scale_of_the_tensor_it_takes_its_pixels_from():
    model = option_a()
    assert quantizable(proto(model)) == ("input", "r1")
    result = quantized(model, {"r1": 6.0})
    assert lines(result)[2:] == [
        "relu_1: c1",
        "pair r1",
        "conv_2: r1_dq wide_dq",
        "slice_1: r1_dq zero four two step",
        "slice_2: h zero four three step",
        "pad_1: i pads",
        "pair p",
        "add_1: c2 p_dq",
    ]
    assert values(result)["p_scale"] == values(result)["r1_scale"] == np.float32(6 / 127)
    assert result.left_alone == ()
    assert result.quantized == ("conv_1", "conv_2", "add_1")


def test_padding_with_something_else_than_zero_gets_a_scale_of_its_own():
    assert quantizable(proto(option_a("Pad (i, pads, one)", ", float one = {1}"))) == ("input", "r1", "p")
    assert quantizable(proto(option_a("Pad (i, pads, one)", ", float one = {0}"))) == ("input", "r1")


def test_what_float32_nodes_read_too_is_not_made_from_int8():
    body = OPTION_A.replace("logits = Add (c2, p)", "s = Add (c2, p) [mul_1] logits = Mul (s, p)")
    model = exported(body, OPTION_A_WEIGHTS, signature="(float[n,2,4,4] input) => (float[n,4,2,2] logits)")
    assert quantizable(proto(model)) == ("input", "r1", "p")
    assert "slice_1: r1 zero four two step" in lines(quantized(model))
    assert "mul_1: s p" in lines(quantized(model))


def test_the_pooling_of_a_stem_runs_in_the_scale_of_its_output():
    body = """[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1)
              [max_pool_1] m = MaxPool <kernel_shape = [2, 2]> (r1)
              [conv_2] c2 = Conv (m, w2) [add_1] logits = Add (c2, m)"""
    model = exported(body, signature="(float[n,2,4,4] input) => (float[n,2,3,3] logits)")
    assert quantizable(proto(model)) == ("input", "m")
    result = quantized(model, {"input": 3.0, "m": 200.0})
    assert lines(result)[2:] == [
        "relu_1: c1",
        "pair r1",
        "max_pool_1: r1_dq",
        "pair m",
        "conv_2: m_dq w2_dq",
        "add_1: c2 m_dq",
    ]
    assert values(result)["r1_scale"] == values(result)["m_scale"] == np.float32(200 / 127)
    # The pair before the pooling changes nothing: rounding and taking the largest commute.
    after = proto(result.model)
    next(n for n in after.graph.node if n.name == "max_pool_1").input[0] = "r1"
    x = pixels(3, 2, 4, 4)
    assert np.array_equal(ReferenceEvaluator(after).run(None, {"input": x})[0], run(result.model, x))


@pytest.mark.parametrize(
    "tail",
    ["[c] y = Conv (m, w2) [d] z = Mul (y, m)", "[c] y = Conv (m, w2) [d] z = Mul (y, r1)"],
    ids=["its output is read in float32", "its input is read elsewhere"],
)
def test_other_poolings_stay_in_float32(tail):
    body = "[a] c1 = Conv (input, w1) [b] r1 = Relu (c1) [p] m = MaxPool <kernel_shape = [1, 1]> (r1) " + tail
    result = quantized(exported(body.replace(" z =", " logits =")))
    assert "p: r1" in lines(result)
    assert "pair r1" not in lines(result)


def test_flatten_between_pooling_and_product_leaves_the_pooling_alone():
    model = exported(
        "[a] c = Conv (input, w1) [p] m = MaxPool <kernel_shape = [4, 4]> (c) [f] f = Flatten (m) "
        "[g] logits = Gemm (f, k)",
        EYES.replace(">", ", float[2,2] k = {1, 0, 0, 1}>"),
        signature="(float[n,2,4,4] input) => (float[n,2] logits)",
    )
    assert quantizable(proto(model)) == ("input", "f")
    assert lines(quantized(model)) == ["pair input", "a: input_dq w1_dq", "p: c", "f: m", "pair f", "g: f_dq k_dq"]


# Outputs besides the first


def returning(model: ExportedModel, *tensors: str) -> ExportedModel:
    """The same network with inner tensors repeated as outputs."""
    new = proto(model)
    known = types(new)
    for tensor in tensors:
        new.graph.node.add(op_type="Identity", input=[tensor], output=[f"{tensor}_out"], name=f"tap_{tensor}")
        new.graph.output.append(helper.make_tensor_value_info(f"{tensor}_out", *known[tensor]))
    checker.check_model(new, full_check=True)
    return dc.replace(model, onnx=new.SerializeToString())


STEM = """[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1) [max_pool_1] m = MaxPool <kernel_shape = [1, 1]> (r1)
    [conv_2] c2 = Conv (m, w2) [add_1] s = Add (c2, m) [relu_2] r2 = Relu (s) [conv_3] logits = Conv (r2, w3)"""


@pytest.mark.parametrize("tensor", ["c1", "r1", "m", "c2", "s", "r2"])
def test_returning_a_tensor_changes_no_pair_no_scale_and_no_range_that_is_needed(tensor):
    plain = exported(STEM)
    more = returning(plain, tensor)
    assert quantizable(proto(more)) == quantizable(proto(plain)) == ("input", "m", "r2")
    ranges = {"input": 3.0, "m": 5.0, "r2": 9.0}
    before, after = quantized(plain, ranges), quantized(more, ranges)
    assert (after.quantized, after.left_alone) == (before.quantized, before.left_alone)
    assert lines(after) == [*lines(before), f"tap_{tensor}: {tensor}"]
    assert {k: v.tolist() for k, v in values(after).items()} == {k: v.tolist() for k, v in values(before).items()}
    x = pixels(3, 2, 4, 4)
    both = ReferenceEvaluator(proto(after.model)).run(None, {"input": x})
    assert np.array_equal(both[0], run(before.model, x))


def test_an_output_is_the_float_value_and_not_what_int8_nodes_read_of_it():
    model = returning(exported("[c] r = Relu (input) [d] logits = Conv (r, w2)"), "r")
    x = pixels(2, 2, 4, 4)
    logits, r = ReferenceEvaluator(proto(quantized(model, {"r": 127.0}).model)).run(None, {"input": x})
    assert np.array_equal(r, np.maximum(x, 0))
    assert np.array_equal(logits, np.rint(r))  # a scale of 1, and the identity as weights


# Through LRN


ALONE = "its sums of squares and its power need the range of floating point"
THROUGH = "it reads and gives int8, and computes its sums of squares and its power in float32"
NORM = """[conv_1] c1 = Conv (input, w1) [relu_1] r = Relu (c1) [lrn_1] l = LRN <size = 3> (r)
    [max_pool_1] m = MaxPool <kernel_shape = [2, 2]> (l) [conv_2] logits = Conv (m, w2)"""
NORM_IO = "(float[n,2,4,4] input) => (float[n,c,h,w] logits)"


def through(model: ExportedModel, amax: dict[str, float] | None = None) -> QuantizedModel:
    ranges = dict.fromkeys(quantizable(proto(model)), 127.0) | (amax or {})
    result = quantize(model, ranges, through_lrn=True)
    assert quantize(model, ranges, through_lrn=False) == quantize(model, ranges)
    checker.check_model(proto(result.model), full_check=True)
    shape_inference.infer_shapes(proto(result.model), check_type=True, strict_mode=True)
    return result


def test_an_lrn_between_int8_nodes_reads_and_gives_int8():
    model = exported(NORM, signature=NORM_IO)
    assert quantizable(proto(model)) == ("input", "r", "m")
    result = through(model, {"r": 5.0, "m": 3.0})
    assert lines(result)[2:] == [
        "relu_1: c1",
        "pair r",
        "lrn_1: r_dq",
        "pair l",
        "max_pool_1: l_dq",
        "pair m",
        "conv_2: m_dq w2_dq",
    ]
    got = values(result)
    assert got["r_scale"] == np.float32(5 / 127)
    assert got["l_scale"] == got["m_scale"] == np.float32(3 / 127)
    assert (result.quantized, result.left_alone) == (("conv_1", "conv_2"), (LeftAlone("lrn_1", "LRN", THROUGH),))


def test_unasked_an_lrn_reads_float32_and_one_table_serves_both():
    model = exported(NORM, signature=NORM_IO)
    result = quantized(model, {"r": 5.0})
    assert lines(result)[2:5] == ["relu_1: c1", "lrn_1: r", "pair l"]
    assert "r_scale" not in values(result)
    assert result.left_alone == (LeftAlone("lrn_1", "LRN", ALONE),)


@pytest.mark.parametrize(
    ("tail", "pairs"),
    [
        ("[conv_2] logits = Conv (l, w2)", ["r", "l"]),
        ("[p] m = MaxPool <kernel_shape = [2, 2]> (l) [a] logits = Conv (m, w2)", ["r", "l", "m"]),
        (  # as an Inception module behind it: a branch of its own pools what the others read
            "[p] m = MaxPool <kernel_shape = [2, 2]> (l) [a] a = Conv (m, w2) "
            "[q] n = MaxPool <kernel_shape = [1, 1]> (m) [b] b = Conv (n, w2) [c] logits = Mul (a, b)",
            ["r", "l", "m", "n"],
        ),
        ("[b] l2 = LRN <size = 5> (l) [conv_2] logits = Conv (l2, w2)", ["l", "l2"]),  # float32 between the two
    ],
    ids=["at once", "through a pool", "through a pool that several read", "through another"],
)
def test_what_an_lrn_gives_may_be_read_in_several_ways(tail, pairs):
    model = exported("[r] r = Relu (input) [lrn_1] l = LRN <size = 3> (r) " + tail, signature=NORM_IO)
    found = [line.split()[1] for line in lines(through(model)) if line.startswith("pair")]
    assert found == pairs


@pytest.mark.parametrize(
    "tail",
    [
        "[conv_2] a = Conv (l, w2) [b] logits = Mul (a, l)",
        "[p] m = MaxPool <kernel_shape = [1, 1]> (l) [conv_2] a = Conv (m, w2) [b] logits = Mul (a, m)",
        "[p] m = MaxPool <kernel_shape = [1, 1]> (l) [conv_2] a = Conv (m, w2) [b] logits = Mul (a, l)",
        "[t] t = Tanh (l) [conv_2] logits = Conv (t, w2)",
        "[t] t = Transpose <perm = [0, 1, 3, 2]> (l) [conv_2] logits = Conv (t, w2)",
    ],
    ids=["itself", "behind a pool", "beside a pool", "not int8", "moved otherwise"],
)
def test_an_lrn_whose_answer_is_read_in_float32_reads_float32(tail):
    model = exported("[r] r = Relu (input) [lrn_1] l = LRN <size = 3> (r) " + tail, signature=NORM_IO)
    result = through(model)
    assert "lrn_1: r" in lines(result)
    assert LeftAlone("lrn_1", "LRN", ALONE) in result.left_alone
    assert result == quantized(model)


def test_a_pool_before_an_lrn_works_in_int8_too():
    model = exported(
        "[r] r = Relu (input) [p] m = MaxPool <kernel_shape = [2, 2]> (r) [lrn_1] l = LRN <size = 3> (m) "
        "[conv_1] logits = Conv (l, w2)",
        signature=NORM_IO,
    )
    assert quantizable(proto(model)) == ("m", "l")
    result = through(model, {"m": 5.0})
    assert lines(result) == ["r: input", "pair r", "p: r_dq", "pair m", "lrn_1: m_dq", "pair l", "conv_1: l_dq w2_dq"]
    assert values(result)["r_scale"] == values(result)["m_scale"] == np.float32(5 / 127)


def test_an_lrn_shares_the_pair_of_the_convolution_beside_it():
    model = exported(
        "[r] r = Relu (input) [p] m = MaxPool <kernel_shape = [1, 1]> (r) [a] a = Conv (m, w1) "
        "[lrn_1] l = LRN <size = 3> (m) [b] b = Conv (l, w2) [c] logits = Mul (a, b)"
    )
    assert lines(through(model)) == [
        *("r: input", "p: r", "pair m", "a: m_dq w1_dq", "lrn_1: m_dq", "pair l", "b: l_dq w2_dq", "c: a b")
    ]


@pytest.mark.parametrize(("dead", "reads"), [("r", "r"), ("m", "r"), ("input", "r_dq")])
def test_an_lrn_of_what_is_always_zero_reads_float32(dead, reads):
    result = through(exported(NORM, signature=NORM_IO), {dead: 0.0})
    assert f"lrn_1: {reads}" in lines(result)
    assert ("pair r" in lines(result)) == (reads == "r_dq")


@pytest.mark.parametrize("tensor", ["r", "l", "m"])
def test_returning_a_tensor_around_an_lrn_changes_no_pair(tensor):
    plain = exported(NORM, signature=NORM_IO)
    more = returning(plain, tensor)
    assert quantizable(proto(more)) == quantizable(proto(plain))
    before, after = through(plain), through(more)
    assert lines(after) == [*lines(before), f"tap_{tensor}: {tensor}"]
    assert after.left_alone == before.left_alone


def test_a_range_for_the_tensor_before_an_lrn_is_asked_for_in_any_case():
    model = exported(NORM, signature=NORM_IO)
    for through_lrn in (False, True):
        with pytest.raises(SpecError, match="there is no range for 1 of 3 tensors, the first being 'r'"):
            quantize(model, {"input": 1.0, "m": 1.0}, through_lrn=through_lrn)


# What is left alone


def test_every_node_that_computes_and_is_not_quantized_is_listed_with_its_reason():
    body = """[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1)
        [lrn_1] l = LRN <size = 3> (r1) [max_pool_1] m = MaxPool <kernel_shape = [1, 1]> (l)
        [mul_1] k = Mul (k0, k0) [conv_2] c2 = Conv (m, k)
        [batch_normalization_1] n = BatchNormalization (c2, g, g, g, g)
        [global_average_pool_1] p = GlobalAveragePool (n)
        [flatten_1] f = Flatten (p) [mat_mul_1] q = MatMul (f, f2) [gemm_1] s = Gemm <transA = 1> (q, f2)
        [tanh_1] t = Tanh (s) [softmax_1] logits = Softmax (t)"""
    weights = """<float[2,2,1,1] w1 = {127, 0, 0, 254}, float[2,2,1,1] k0 = {1, 0, 0, 1}, float[2] g = {1, 1},
        float[2,2] f2 = {1, 2, 3, 4}>"""
    result = quantized(exported(body, weights, signature="(float[2,2,4,4] input) => (float[2,2] logits)"))
    assert result.quantized == ("conv_1", "mat_mul_1")
    other = "only convolutions, matrix products and residual sums are computed in int8"
    assert [(left.node, left.reason) for left in result.left_alone] == [
        ("lrn_1", "its sums of squares and its power need the range of floating point"),
        ("mul_1", other),
        ("conv_2", "its weight is computed at run time"),
        ("batch_normalization_1", "it does not follow a convolution that it could be folded into"),
        ("global_average_pool_1", "int8 would round its averages, and it takes little time beside the convolutions"),
        ("gemm_1", "it is not a product of activations with one weight matrix"),
        ("tanh_1", other),
        ("softmax_1", "its exponentials need the range of floating point"),
    ]


def test_a_product_of_activations_and_weights_of_another_type_are_left_alone():
    signature = "(float[n,2,2] input, double[n,2,1,1] wide) => (float[n,2,2] logits, double[n,1,1,1] other)"
    body = "[m] logits = MatMul (input, input) [c] other = Conv (wide, d)"
    model = exported(f"{body}", "", signature=signature, d=np.ones((1, 2, 1, 1)))
    with pytest.raises(SpecError, match="nothing in net can be computed in int8: its weight is computed at run time"):
        quantize(model, {})
    model = exported(
        body.replace("(input, input)", "(input, e)"),
        "",
        signature=signature,
        d=np.ones((1, 2, 1, 1)),
        e=np.eye(2, dtype=np.float32),
    )
    assert quantized(model).left_alone == (LeftAlone("c", "Conv", "its weight is double, not float32"),)


def test_nodes_that_read_what_is_always_zero_are_left_alone():
    result = quantized(exported(BLOCK.replace("SUM", "c3, r1")), {"r1": 0.0})
    dead = "its input r1 was 0 on every calibration image"
    assert result.left_alone == (LeftAlone("conv_2", "Conv", dead), LeftAlone("add_1", "Add", dead))
    assert result.quantized == ("conv_1", "conv_3")
    assert "pair r1" not in lines(result)


def test_a_sum_whose_convolution_is_left_alone_is_left_alone_too():
    result = quantized(exported(BLOCK.replace("SUM", "c3, r1")), {"c2": 0.0})
    assert result.left_alone == (
        LeftAlone("conv_3", "Conv", "its input c2 was 0 on every calibration image"),
        LeftAlone("add_1", "Add", PLAIN_SUM),
    )


def test_a_shortcut_moved_from_what_is_always_zero_is_zero():
    result = quantized(option_a(), {"r1": 0.0})
    assert [(left.node, left.reason) for left in result.left_alone] == [
        ("conv_2", "its input r1 was 0 on every calibration image"),
        ("add_1", PLAIN_SUM),
    ]


def test_a_shortcut_that_is_zero_because_its_source_is_leaves_the_sum_alone():
    body = """[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1) [conv_2] c2 = Conv (r1, w2)
        [conv_3] c3 = Conv (input, w3)
        [max_pool_1] m = MaxPool <kernel_shape = [1, 1]> (r1) [add_1] s = Add (c3, m) [mul_1] logits = Mul (s, c2)"""
    model = exported(body)
    assert quantizable(proto(model)) == ("input", "r1")
    result = quantized(model, {"r1": 0.0})
    assert LeftAlone("add_1", "Add", "its input m was 0 on every calibration image") in result.left_alone
    assert result.quantized == ("conv_1", "conv_3")


def test_a_tensor_that_loses_its_source_keeps_the_sources_range():
    """m takes r's scale; with the sum left alone r has no pair, and a range of m was never asked for."""
    body = """[conv_1] s = Conv (input, w1) [conv_2] c2 = Conv (s, w2) [tanh_1] d = Tanh (c2) [conv_3] c3 = Conv (d, w3)
        [relu_1] r = Relu (s) [add_1] t = Add (c3, r) [max_pool_1] m = MaxPool <kernel_shape = [1, 1]> (r)
        [conv_4] c4 = Conv (m, w1) [mul_1] logits = Mul (t, c4)"""
    model = exported(body)
    assert quantizable(proto(model)) == ("input", "s", "d", "r")
    result = quantized(model, {"d": 0.0, "r": 5.0})
    assert "pair r" not in lines(result)
    assert values(result)["m_scale"] == np.float32(5 / 127)


@pytest.mark.parametrize("amax", [0.0, 1e-30])
def test_a_scale_is_never_zero(amax):
    with pytest.raises(SpecError, match="nothing in net can be computed in int8: its input input was 0"):
        quantized(exported("[c] logits = Conv (input, w1)"), {"input": amax})


# Bad input


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 1e39])
def test_a_range_that_is_no_range_is_refused_by_name(bad):
    with pytest.raises(
        SpecError, match=rf"the range of 'r1' is {str(bad).replace('+', '.')}\n  fix: calibrate again with"
    ):
        quantized(exported(BLOCK.replace("SUM", "c3, r1")), {"r1": bad})


def test_a_missing_range_is_refused_by_name():
    message = r"there is no range for 2 of 3 tensors, the first being 'r1'\n  fix: calibrate this model; .* another"
    with pytest.raises(SpecError, match=message):
        quantize(exported(BLOCK.replace("SUM", "c3, r1")), {"input": 1.0, "conv_9_out": 1.0})


@pytest.mark.parametrize("name", ["w", "b"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(name, bad):
    arrays = {"w": np.ones((2, 2, 1, 1), np.float32), "b": np.ones(2, np.float32)}
    arrays[name].reshape(-1)[-1] = bad
    model = exported("[c] logits = Conv (input, w, b)", "", **arrays)
    with pytest.raises(
        SpecError, match=rf"initializer '{name}' holds 1 values that are NaN or infinite\n  fix: the weights"
    ):
        quantize(model, {"input": 1.0})


def test_what_is_not_an_fp32_export_is_refused():
    model = exported("[c] logits = Conv (input, w1)")
    with pytest.raises(SpecError, match="net is fp16 with opset 20 and cannot be quantized"):
        quantize(dc.replace(model, precision="fp16"), {"input": 1.0})
    old = proto(model)
    old.opset_import[0].version = 12
    with pytest.raises(
        SpecError, match=r"net is fp32 with opset 12 and cannot be quantized\n  fix: .* opset 13 or later"
    ):
        quantize(dc.replace(model, onnx=old.SerializeToString()), {"input": 1.0})
    twice = dc.replace(quantized(model).model, precision="fp32")
    with pytest.raises(SpecError, match="the graph is quantized already"):
        quantize(twice, {"input": 1.0})
