"""FP16 is typed into the graph, with as few Casts as the network allows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, checker, numpy_helper, parser, shape_inference
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.index import types
from dlcv_deploy.types import LeftAlone

CONV = "<float[2,2,1,1] w = {1, 0.1, -0.3, 2}, float[2] b = {0.5, 0.333}>"
LRN = "LRN <size = 3, alpha = 0.001, beta = 0.75, bias = 2.0>"
IO = "(float[n,2,3,3] input) => (float[n,2,3,3] logits)"


def build(body: str, weights: str = CONV, *, signature: str = IO, opset: int = 20) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}]> net {signature} {weights} {{ {body} }}')
    checker.check_model(model, full_check=True)
    return model


def halved(model: ModelProto) -> tuple[ModelProto, tuple[LeftAlone, ...]]:
    before = model.SerializeToString()
    after, left_alone = to_half(model)
    assert model.SerializeToString() == before, "the argument was changed"
    checker.check_model(after, full_check=True)
    shape_inference.infer_shapes(after, check_type=True, strict_mode=True)
    assert to_half(model)[0].SerializeToString() == after.SerializeToString()
    assert [v.type for v in (*after.graph.input, *after.graph.output)] == [
        v.type for v in (*model.graph.input, *model.graph.output)
    ]
    made_by = {t: n.op_type for n in after.graph.node for t in n.output}
    assert not [n for n in after.graph.node if n.op_type == "Cast" and made_by.get(n.input[0]) == "Cast"]
    return after, left_alone


def lines(model: ModelProto) -> list[str]:
    return [f"{n.name}: {' '.join(n.input)} -> {' '.join(n.output)}" for n in model.graph.node]


def elements(model: ModelProto) -> dict[str, str]:
    return {t: TensorProto.DataType.Name(element) for t, (element, _) in types(model).items()}


def test_everything_is_float16_between_two_casts():
    before = build("[conv_1] c = Conv (input, w, b) [relu_1] logits = Relu (c)")
    after, left_alone = halved(before)
    assert left_alone == ()
    assert lines(after) == [
        "input_to_fp16: input -> input_fp16",
        "conv_1: input_fp16 w b -> c",
        "relu_1: c -> logits_fp16",
        "logits_to_fp32: logits_fp16 -> logits",
    ]
    got = elements(after)
    assert {t for t, element in got.items() if element == "FLOAT"} == {"input", "logits"}
    assert {t for t, element in got.items() if element == "FLOAT16"} == {"input_fp16", "w", "b", "c", "logits_fp16"}
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        want = numpy_helper.to_array(old).astype(np.float16)
        assert np.array_equal(numpy_helper.to_array(new), want)
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    want, got = (ReferenceEvaluator(m).run(None, {"input": x})[0] for m in (before, after))
    assert got.dtype == np.float32
    assert 0 < np.abs(want - got).max() < 4 * 2**-11 * np.abs(want).max()


def test_lrn_and_softmax_stay_in_float32_between_casts():
    after, left_alone = halved(
        build(
            f"""[conv_1] c = Conv (input, w, b) [lrn_1] l = {LRN} (c)
            [max_pool_1] p = MaxPool <kernel_shape = [1,1]> (l)
            [softmax_1] s = Softmax <axis = 1> (p) [relu_1] logits = Relu (s)"""
        )
    )
    assert [(left.node, left.op_type) for left in left_alone] == [("lrn_1", "LRN"), ("softmax_1", "Softmax")]
    assert left_alone[0].reason == "its sums of squares leave the range of float16 where an activation is above 255"
    assert left_alone[1].reason == "float16 would round its small probabilities to 0"
    assert lines(after) == [
        "input_to_fp16: input -> input_fp16",
        "conv_1: input_fp16 w b -> c",
        "c_to_fp32: c -> c_fp32",
        "lrn_1: c_fp32 -> l",
        "l_to_fp16: l -> l_fp16",
        "max_pool_1: l_fp16 -> p",
        "p_to_fp32: p -> p_fp32",
        "softmax_1: p_fp32 -> s",
        "s_to_fp16: s -> s_fp16",
        "relu_1: s_fp16 -> logits_fp16",
        "logits_to_fp32: logits_fp16 -> logits",
    ]


def test_what_stays_in_float32_reads_the_input_and_makes_the_output_without_casts():
    after, left_alone = halved(build(f"[lrn_1] l = {LRN} (input) [softmax_1] logits = Softmax (l)", ""))
    assert lines(after) == ["lrn_1: input -> l", "softmax_1: l -> logits"]
    assert len(left_alone) == 2


def test_one_cast_serves_all_readers():
    after, _ = halved(
        build(
            f"[a] p = Relu (input) [b] q = {LRN} (p) [c] r = {LRN} (p) [d] s = Add (q, r) [e] logits = Add (s, input)",
            "",
        )
    )
    assert lines(after) == [
        "input_to_fp16: input -> input_fp16",
        "a: input_fp16 -> p",
        "p_to_fp32: p -> p_fp32",
        "b: p_fp32 -> q",
        "c: p_fp32 -> r",
        "q_to_fp16: q -> q_fp16",
        "r_to_fp16: r -> r_fp16",
        "d: q_fp16 r_fp16 -> s",
        "e: s input_fp16 -> logits_fp16",
        "logits_to_fp32: logits_fp16 -> logits",
    ]


def test_an_output_that_is_read_again_keeps_its_name_in_float32():
    signature = "(float[n,2] input) => (float[n,2] logits, float[n,2] mid)"
    after, _ = halved(
        build("[a] mid = Relu (input) [b] k = Softmax (mid) [c] logits = Add (k, mid)", "", signature=signature)
    )
    assert lines(after) == [
        "input_to_fp16: input -> input_fp16",
        "a: input_fp16 -> mid_fp16",
        "mid_to_fp32: mid_fp16 -> mid",
        "b: mid -> k",
        "k_to_fp16: k -> k_fp16",
        "c: k_fp16 mid_fp16 -> logits_fp16",
        "logits_to_fp32: logits_fp16 -> logits",
    ]


def test_an_inner_tensor_that_is_returned_is_its_cast():
    """A half tensor, one that a float32 node has cast already, one that is float32 itself, one returned twice."""
    names = ("map", "cast", "norm", "again")
    signature = f"(float[n,2,3,3] input) => (float[n,2,3,3] logits, {', '.join(f'float[n,2,3,3] {t}' for t in names)})"
    body = f"""[a] p = Relu (input) [b] q = Relu (p) [c] r = {LRN} (q) [d] logits = Relu (r)
               [e] map = Identity (p) [f] cast = Identity (q) [g] norm = Identity (r) [h] again = Identity (p)"""
    before = build(body, "", signature=signature)
    after, left_alone = halved(before)
    assert [left.node for left in left_alone] == ["c"]
    assert lines(after) == [
        "input_to_fp16: input -> input_fp16",
        "a: input_fp16 -> p",
        "b: p -> q",
        "q_to_fp32: q -> q_fp32",
        "c: q_fp32 -> r",
        "r_to_fp16: r -> r_fp16",
        "d: r_fp16 -> logits_fp16",
        "logits_to_fp32: logits_fp16 -> logits",
        "p_to_fp32: p -> map",
        "f: q_fp32 -> cast",
        "g: r -> norm",
        "h: map -> again",
    ]
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    want, got = (ReferenceEvaluator(m).run(None, {"input": x}) for m in (before, after))
    for one, other in zip(want, got, strict=True):
        assert other.dtype == np.float32
        assert np.abs(one - other).max() < 2**-10 * np.abs(one).max()


def test_integers_that_are_returned_stay_integers():
    body = "[a] logits = Relu (input) [b] i = Shape (input) [c] ints = Identity (i)"
    after, _ = halved(build(body, "", signature="(float[n] input) => (float[n] logits, int64[1] ints)"))
    assert lines(after)[-1] == "c: i -> ints"


def test_inputs_that_the_standard_wants_in_float32_stay_so():
    body = '[up] r = Resize <mode = "nearest"> (input, , k) [c] logits = Mul (r, m)'
    weights = "<float[4] k = {1, 1, 1, 1}, float[1] m = {0.1}>"
    after, left_alone = halved(build(body, weights))
    assert left_alone == ()
    assert lines(after)[1:3] == ["up: input_fp16  k_fp32 -> r", "c: r m -> logits_fp16"]
    assert elements(after)["k_fp32"] == "FLOAT"
    assert {i.name for i in after.graph.initializer} == {"k_fp32", "m"}


def test_operators_without_float16_and_casts_of_integers():
    body = """[shape] s = Shape (input) [cast_1] f = Cast <to = 1> (s) [range] r = Range (zero, four, one)
              [sum] t = Add (f, r) [mean] u = ReduceMean <keepdims = 0> (t) [c] logits = Mul (input, u)"""
    weights = "<float zero = {0}, float four = {4}, float one = {1}>"
    after, left_alone = halved(build(body, weights))
    assert left_alone == (LeftAlone("range", "Range", "ONNX does not define it for float16"),)
    got = elements(after)
    assert (got["s"], got["f"], got["r"], got["t"]) == ("INT64", "FLOAT16", "FLOAT", "FLOAT16")
    assert "range: zero_fp32 four_fp32 one_fp32 -> r" in lines(after)


def test_what_makes_float32_from_nothing_is_cast_after():
    body = (
        "[shape] s = Shape (input) [fill] f = ConstantOfShape <value = float[1] {0.5}> (s) [c] logits = Mul (input, f)"
    )
    after, left_alone = halved(build(body, ""))
    assert left_alone == (LeftAlone("fill", "ConstantOfShape", "it makes float32 values and reads none"),)
    assert lines(after)[:5] == [
        "input_to_fp16: input -> input_fp16",
        "shape: input_fp16 -> s",
        "fill: s -> f",
        "f_to_fp16: f -> f_fp16",
        "c: input_fp16 f_fp16 -> logits_fp16",
    ]


def test_a_cast_reads_what_is_there():
    body = f"[l] k = {LRN} (input) [cast_1] i = Cast <to = 7> (k) [cast_2] f = Cast <to = 1> (i) [c] logits = Relu (f)"
    before = build(body, "")
    after, _ = to_half(before)
    checker.check_model(after, full_check=True)
    assert lines(after)[:4] == ["l: input -> k", "cast_1: k -> i", "cast_2: i -> f", "c: f -> logits_fp16"]


@pytest.mark.parametrize(("value", "ok"), [(65504.0, True), (-65504.0, True), (65505.0, False), (-1e5, False)])
def test_weights_beyond_float16_are_refused_by_name(value, ok):
    model = build("logits = Mul (input, wide)", f"<float[1] wide = {{{value}}}>")
    if ok:
        after, _ = halved(model)
        assert numpy_helper.to_array(after.graph.initializer[0]).tolist() == [value]
    else:
        with pytest.raises(
            SpecError, match=rf"'wide' holds {abs(value):g}, which is beyond 65504, .*\n  fix: build in fp32"
        ):
            to_half(model)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_no_numbers_are_refused_by_name(value):
    model = build("logits = Mul (input, w)", "<float[2,1,1] w = {1, 2}>")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([[[1]], [[value]]], np.float32), "w"))
    with pytest.raises(SpecError, match=r"initializer 'w' holds 1 values that are NaN or infinite"):
        to_half(model)


def test_unknown_types_are_refused():
    own = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20, "own": 1]> g (float[n] input) => (float[n] logits)'
        "{ [mine] h = own.Mine (input) logits = Relu (h) }"
    )
    with pytest.raises(SpecError, match="the type of 'h', which Mine 'mine' makes, cannot be inferred"):
        to_half(own)


PAIRS = """<float[2,2,1,1] w = {1, 0.1, -0.3, 2}, float[2] b = {0.5, 0.333}, int8[2,2,1,1] w8 = {127, 10, -19, 127},
    float[2] ws = {0.01, 0.015}, float xs = {0.02}, float rs = {0.3}, int8 z = {0}>"""
INT8 = """[xq] x8 = QuantizeLinear (input, xs, z) [xdq] x = DequantizeLinear (x8, xs, z)
    [wdq] wf = DequantizeLinear <axis = 0> (w8, ws) [conv_1] c = Conv (x, wf, b) [relu_1] r = Relu (c)
    [rq] r8 = QuantizeLinear (r, rs, z) [rdq] rf = DequantizeLinear (r8, rs, z)"""


def values(model: ModelProto) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def test_an_int8_graph_is_float16_in_between_without_a_cast_beside_its_pairs():
    after, left_alone = halved(build(f"{INT8} [conv_2] logits = Conv (rf, w, b)", PAIRS, opset=18))
    assert left_alone == ()
    assert lines(after) == [
        "xq: input xs_fp32 z -> x8",
        "xdq: x8 xs z -> x",
        "wdq: w8 ws -> wf",
        "conv_1: x wf b -> c",
        "relu_1: c -> r",
        "rq: r rs z -> r8",
        "rdq: r8 rs z -> rf",
        "conv_2: rf w b -> logits_fp16",
        "logits_to_fp32: logits_fp16 -> logits",
    ]
    got = elements(after)
    assert {t for t, element in got.items() if element == "FLOAT"} == {"input", "logits", "xs_fp32"}
    assert {t for t, element in got.items() if element == "INT8"} == {"x8", "w8", "r8", "z"}
    held = values(after)
    assert held["xs"] == np.float16(0.02)
    assert held["xs_fp32"] == np.float32(np.float16(0.02)), "the two of a pair must not differ"
    assert np.array_equal(held["ws"], np.array([0.01, 0.015], np.float16))
    assert (after.opset_import[0].version, after.ir_version) == (19, 9)


def test_what_stands_between_float32_and_int8_stays_float32():
    body = f"""[mul] m = Mul (input, f) [add] a = Add (m, f) [xq] x8 = QuantizeLinear (a, xs, z)
        [xdq] x = DequantizeLinear (x8, xs, z) [conv_1] c = Conv (x, w, b)
        [lrn_1] l = {LRN} (c) [max_pool_1] p = MaxPool <kernel_shape = [1,1]> (l) [pq] p8 = QuantizeLinear (p, rs, z)
        [pdq] pf = DequantizeLinear (p8, rs, z) [conv_2] logits = Conv (pf, w, b)"""
    after, left_alone = halved(build(body, PAIRS.replace("<", "<float f = {3},", 1)))
    assert [left.node for left in left_alone] == ["mul", "add", "lrn_1", "max_pool_1"]
    assert (
        left_alone[0].reason
        == left_alone[3].reason
        == ("it stands between float32 and int8 alone, and float16 would only round")
    )
    assert [line for line in lines(after) if "_to_" in line] == [
        "c_to_fp32: c -> c_fp32",
        "logits_to_fp32: logits_fp16 -> logits",
    ]
    assert {elements(after)[t] for t in ("m", "a", "l", "p")} == {"FLOAT"}


def test_a_convolution_left_out_of_int8_is_float16_though_a_pair_follows():
    body = """[conv_1] c = Conv (input, w, b) [relu_1] r = Relu (c) [rq] r8 = QuantizeLinear (r, rs, z)
        [rdq] rf = DequantizeLinear (r8, rs, z) [wdq] wf = DequantizeLinear <axis = 0> (w8, ws)
        [conv_2] logits = Conv (rf, wf)"""
    after, left_alone = halved(build(body, PAIRS))
    assert left_alone == ()
    assert [elements(after)[t] for t in ("input_fp16", "w", "c", "r", "rs")] == ["FLOAT16"] * 5


def test_an_lrn_reads_what_is_dequantized_for_it_in_float32():
    alone, _ = halved(build(f"{INT8} [lrn_1] logits = {LRN} (rf)", PAIRS))
    assert lines(alone)[-2:] == ["rdq: r8 rs_fp32 z -> rf", "lrn_1: rf -> logits"]
    both, _ = halved(build(f"{INT8} [lrn_1] l = {LRN} (rf) [sum] logits = Add (l, rf)", PAIRS))
    assert lines(both)[-6:-3] == ["rdq: r8 rs z -> rf", "rf_to_fp32: rf -> rf_fp32", "lrn_1: rf_fp32 -> l"]


@pytest.mark.parametrize("scale", [2**-14 * 0.999, 1e-20, 65520.0])
def test_a_scale_that_float16_would_cut_digits_off_stays_float32(scale):
    weights = PAIRS.replace("{0.01, 0.015}", f"{{0.01, {scale}}}").replace("rs = {0.3}", f"rs = {{{scale}}}")
    after, _ = halved(build(f"{INT8} [conv_2] logits = Conv (rf, w, b)", weights))
    found = lines(after)
    assert {"wdq: w8 ws_fp32 -> wf", "wf_to_fp16: wf -> wf_fp16", "conv_1: x wf_fp16 b -> c"} <= set(found)
    assert {"r_to_fp32: r -> r_fp32", "rq: r_fp32 rs_fp32 z -> r8", "rdq: r8 rs_fp32 z -> rf"} <= set(found)
    assert values(after)["ws_fp32"].tolist() == np.array([0.01, scale], np.float32).tolist()
    kept = build(INT8 + " [conv_2] logits = Conv (rf, w, b)", PAIRS.replace("{0.3}", f"{{{2.0**-14}}}"))
    assert "rq: r rs z -> r8" in lines(halved(kept)[0])


def test_an_output_that_is_dequantized_is_float32():
    after, _ = halved(build(INT8.replace("-> rf", "").replace(" rf = ", " logits = "), PAIRS))
    assert lines(after)[-2:] == ["rdq: r8 rs z -> logits_fp16", "logits_to_fp32: logits_fp16 -> logits"]


def test_int8_answers_stay_those_of_the_float32_graph():
    before = build(f"{INT8} [conv_2] logits = Conv (rf, w, b)", PAIRS)
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    want, got = (ReferenceEvaluator(m).run(None, {"input": x})[0] for m in (before, halved(before)[0]))
    assert got.dtype == np.float32
    assert 0 < np.abs(want - got).max() < 0.31 * 2.1  # one step of the second pair, times a row of weights


def test_an_int8_graph_of_an_old_operator_set_is_refused():
    with pytest.raises(SpecError, match=r"an int8 graph with opset 17 cannot be .*\n  fix: export with opset 18"):
        to_half(build(f"{INT8} [conv_2] logits = Conv (rf, w, b)", PAIRS, opset=17))
