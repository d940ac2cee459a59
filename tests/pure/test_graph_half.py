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


def test_int8_graphs_and_unknown_types_are_refused():
    body = "q = QuantizeLinear (input, s, z) logits = DequantizeLinear (q, s, z)"
    with pytest.raises(SpecError, match=r"an int8 graph cannot be turned into fp16\n  fix: start from the fp32 export"):
        to_half(build(body, "<float s = {1}, int8 z = {0}>"))
    own = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20, "own": 1]> g (float[n] input) => (float[n] logits)'
        "{ [mine] h = own.Mine (input) logits = Relu (h) }"
    )
    with pytest.raises(SpecError, match="the type of 'h', which Mine 'mine' makes, cannot be inferred"):
        to_half(own)
