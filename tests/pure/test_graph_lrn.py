"""LRN and the pool behind it as nodes of the plugin: what they stand for, what they answer, and what is left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, parser, shape_inference
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from dlcv_deploy.calibration.table import bundled
from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.index import types
from dlcv_deploy.graph.lrn import Lowering, lower_lrn
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.plugin import library, reference
from dlcv_deploy.types import ExportedModel, LeftAlone

IO = "(float[n,4,9,9] input) => (float[n,4,h,w] logits)"
LRN = "LRN <size = 3, alpha = 0.5, beta = 0.75, bias = 2.0>"
POOL = "MaxPool <kernel_shape = [3, 3], strides = [2, 2]>"
GRAPHS = ["fp32", "fp16", "int8", "int8 through"]


# The two operators, on NumPy and on ONNX Runtime


def answer(x: np.ndarray, pool: tuple, scales: tuple, size: int, alpha: float, beta: float, bias: float) -> np.ndarray:
    wide = x.astype(np.float64) * (scales[0] if x.dtype == np.int8 else 1)
    y = reference.lrn(wide, size, alpha, beta, bias)
    y = reference.max_pool(y, *pool) if pool else y
    return reference.quantize(y, scales[1]) if x.dtype == np.int8 else y.astype(x.dtype)


class DlcvLRN(OpRun):
    op_domain = "dlcv"

    def _run(self, x, size=None, alpha=None, beta=None, bias=None, input_scale=None, output_scale=None):
        return (answer(x, (), (input_scale, output_scale), size, alpha, beta, bias),)


class DlcvLRNMaxPool(OpRun):
    op_domain = "dlcv"

    def _run(self, x, size=None, alpha=None, beta=None, bias=None, input_scale=None, output_scale=None,
             kernel_shape=None, strides=None, pads=None):  # fmt: skip
        pool = (kernel_shape, strides, pads)
        return (answer(x, pool, (input_scale, output_scale), size, alpha, beta, bias),)


def on_numpy(model: ModelProto, x: np.ndarray, *tensors: str) -> list[np.ndarray]:
    wanted = list(tensors) or None
    return ReferenceEvaluator(model, new_ops=[DlcvLRN, DlcvLRNMaxPool]).run(wanted, {"input": x})


def on_runtime(model: ModelProto, x: np.ndarray, *tensors: str) -> list[np.ndarray]:
    """What ONNX Runtime computes, node by node as the graph has them."""
    runtime = pytest.importorskip("onnxruntime")
    new = ModelProto.FromString(model.SerializeToString())
    there = {o.name for o in new.graph.output}
    new.graph.output.extend(helper.make_empty_tensor_value_info(t) for t in tensors if t not in there)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # it tells of sizes that shape inference counts wrongly
    options.intra_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(new.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(tensors) or None, {"input": x})


def spelled(model: ModelProto) -> ModelProto:
    """The plugin's nodes written as the ONNX operators that they stand for, which ONNX Runtime can run."""
    known = types(model)
    new = ModelProto.FromString(model.SerializeToString())
    del new.graph.node[:], new.graph.value_info[:]

    def add(op: str, inputs: list[str], y: str, **given: object) -> None:
        new.graph.node.append(helper.make_node(op, inputs, [y], **given))

    for node in model.graph.node:
        if node.domain != "dlcv":
            new.graph.node.append(node)
            continue
        given, x, y = attributes(node), node.input[0], node.output[0]
        scales = {name: given.pop(name) for name in ("input_scale", "output_scale") if name in given}
        new.graph.initializer.extend(numpy_helper.from_array(np.float32(v), f"{y}_{n}") for n, v in scales.items())
        new.graph.initializer.extend(numpy_helper.from_array(np.int8(0), f"{y}_zero") for _ in list(scales)[:1])
        window = {name: given.pop(name) for name in ("kernel_shape", "strides", "pads") if name in given}
        if scales:
            add("DequantizeLinear", [x, f"{y}_input_scale"], f"{y}_a")
        else:
            add("Cast", [x], f"{y}_a", to=TensorProto.FLOAT)
        add("LRN", [f"{y}_a"], f"{y}_b", **given)
        add("MaxPool" if window else "Identity", [f"{y}_b"], f"{y}_c", **window)
        if scales:
            add("QuantizeLinear", [f"{y}_c", f"{y}_output_scale", f"{y}_zero"], y)
        else:
            add("Cast", [f"{y}_c"], y, to=known[x][0])
    checker.check_model(new)
    return new


# Graphs


def build(body: str, weights: str = "", *, signature: str = IO, **arrays: np.ndarray) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> net {signature} {weights} {{ {body} }}')
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    checker.check_model(model, full_check=True)
    return model


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pixels(*shape: int) -> np.ndarray:
    return weight(*shape, seed=1)


def alexnet() -> tuple[ModelProto, np.ndarray]:
    """The first three convolutions with the paper's normalization, narrow, on 27 x 27 pixels."""
    lrn = "LRN <size = 5, alpha = 0.0005, beta = 0.75, bias = 2.0>"
    body = f"""[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1)
        [lrn_1] l1 = {lrn} (r1) [max_pool_1] m1 = {POOL} (l1)
        [conv_2] c2 = Conv <pads = [2,2,2,2], group = 2> (m1, w2) [relu_2] r2 = Relu (c2)
        [lrn_2] l2 = {lrn} (r2) [max_pool_2] m2 = {POOL} (l2) [conv_3] logits = Conv (m2, w3)"""
    io = "(float[n,3,27,27] input) => (float[n,4,4,4] logits)"
    arrays = {"w1": 20 * weight(8, 3, 3, 3), "w2": weight(8, 4, 5, 5), "w3": weight(4, 8, 2, 2)}
    return build(body, signature=io, **arrays), pixels(2, 3, 27, 27)


def googlenet() -> tuple[ModelProto, np.ndarray]:
    """The stem: LRN behind a pool, LRN before a pool with ceil_mode, whose answer four branches read."""
    lrn = "LRN <size = 5, alpha = 0.0001, beta = 0.75, bias = 1.0>"
    ceil = POOL.replace(">", ", ceil_mode = 1>")
    body = f"""[conv_1] c1 = Conv (input, w1) [relu_1] r1 = Relu (c1)
        [max_pool_1] m1 = {ceil} (r1) [lrn_1] l1 = {lrn} (m1)
        [conv_2] c2 = Conv (l1, w2) [relu_2] r2 = Relu (c2) [lrn_2] l2 = {lrn} (r2) [max_pool_2] m2 = {ceil} (l2)
        [conv_3] a = Conv (m2, w3) [conv_4] b = Conv (m2, w4)
        [max_pool_3] m3 = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (m2) [conv_5] c = Conv (m3, w3)
        [concat_1] logits = Concat <axis = 1> (a, b, c)"""
    io = "(float[n,3,28,28] input) => (float[n,c,h,w] logits)"
    arrays = {"w1": 30 * weight(8, 3, 1, 1), "w2": weight(12, 8, 1, 1), "w3": weight(4, 12, 1, 1)}
    return build(body, signature=io, **arrays, w4=weight(4, 12, 1, 1, seed=2)), pixels(2, 3, 28, 28)


def exported(model: ModelProto) -> ExportedModel:
    return ExportedModel("net", model.SerializeToString(), (), (), "0" * 64)


def ranges(model: ModelProto, x: np.ndarray) -> dict[str, float]:
    names = quantizable(model)
    seen = dict(zip(names[1:], on_runtime(model, x, *names[1:]), strict=True))
    return {name: float(np.abs(seen.get(name, x)).max()) for name in names}


def written(model: ModelProto, kind: str, amax: dict[str, float] | float = 4.0) -> ModelProto:
    """A graph as the passes before the lowering leave it: in fp32, fp16 or int8."""
    if kind == "fp32":
        return model
    if kind == "fp16":
        return to_half(model)[0]
    given = amax if isinstance(amax, dict) else dict.fromkeys(quantizable(model), amax)
    result = quantize(exported(model), given, through_lrn=kind == "int8 through")
    return ModelProto.FromString(result.model.onnx)


def lowered(model: ModelProto) -> Lowering:
    before = model.SerializeToString()
    result = lower_lrn(model)
    assert model.SerializeToString() == before, "the argument was changed"
    checker.check_model(result.model, full_check=True)
    shape_inference.infer_shapes(result.model, check_type=True, strict_mode=True)
    again = lower_lrn(result.model)
    assert (again.model, again.lowered) == (result.model, ()), "lowered twice, there is more to lower"
    assert lower_lrn(model).model.SerializeToString() == result.model.SerializeToString()
    ours = [n for n in result.model.graph.node if n.domain == "dlcv"]
    assert tuple(n.name for n in ours) == result.lowered
    assert {n.op_type for n in ours} <= set(library.OPS)
    assert list(result.model.opset_import) == [*model.opset_import, *[helper.make_opsetid("dlcv", 1)] * bool(ours)]
    read = {t for n in result.model.graph.node for t in n.input} | {o.name for o in result.model.graph.output}
    assert {i.name for i in result.model.graph.initializer} <= read
    return result


def lines(model: ModelProto) -> list[str]:
    return [f"{n.op_type}: {' '.join(n.input)} -> {' '.join(n.output)}" for n in model.graph.node]


def attributes(node: NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def ours(result: Lowering) -> list[NodeProto]:
    return [n for n in result.model.graph.node if n.domain == "dlcv"]


# What the nodes stand for


def test_an_lrn_alone_keeps_its_name_its_tensors_and_its_attributes():
    result = lowered(build(f"[lrn_1] l = {LRN} (input) [relu_1] logits = Relu (l)"))
    assert (result.lowered, result.left_alone) == (("lrn_1",), ())
    assert lines(result.model) == ["DlcvLRN: input -> l", "Relu: l -> logits"]
    assert attributes(result.model.graph.node[0]) == {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 2.0}
    assert types(result.model)["l"] == (TensorProto.FLOAT, ("n", 4, 9, 9))


def test_attributes_that_are_not_there_are_the_standard_s():
    (node,) = ours(lowered(build("logits = LRN <size = 5> (input)")))
    want = {"size": 5, "alpha": np.float32(1e-4), "beta": 0.75, "bias": 1.0}
    assert attributes(node) == want
    assert node.name == "logits"


def test_a_window_wider_than_the_channels_is_lowered():
    model = build("[lrn_1] logits = LRN <size = 15, alpha = 3.0> (input)")
    result = lowered(model)
    assert result.lowered == ("lrn_1",)
    x = pixels(2, 4, 9, 9)
    assert np.abs(on_numpy(result.model, x)[0] - on_runtime(model, x)[0]).max() < 1e-6


FUSED = {"size": 5, "alpha": np.float32(5e-4), "beta": 0.75, "bias": 2.0, "kernel_shape": [3, 3], "strides": [2, 2]}


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("fp32", ["DlcvLRNMaxPool: r1 -> m1", "DlcvLRNMaxPool: r2 -> m2"]),
        ("fp16", ["DlcvLRNMaxPool: r1 -> m1", "DlcvLRNMaxPool: r2 -> m2"]),
        ("int8", ["DlcvLRNMaxPool: r1 -> m1", "DlcvLRNMaxPool: r2 -> m2"]),
        ("int8 through", ["DlcvLRNMaxPool: r1_q -> m1_q", "DlcvLRNMaxPool: r2_q -> m2_q"]),
    ],
)
def test_alexnet_has_two_fused_nodes(kind, want):
    before = written(alexnet()[0], kind, {"input": 1.0, "r1": 2.0, "m1": 3.0, "r2": 4.0, "m2": 5.0})
    result = lowered(before)
    assert (result.lowered, result.left_alone) == (("lrn_1+max_pool_1", "lrn_2+max_pool_2"), ())
    assert [line for line in lines(result.model) if line.startswith("Dlcv")] == want
    scales = [(2.0, 3.0), (4.0, 5.0)] if kind == "int8 through" else [(), ()]
    for node, amax in zip(ours(result), scales, strict=True):
        steps = dict(zip(("input_scale", "output_scale"), (np.float32(a / 127) for a in amax), strict=False))
        assert attributes(node) == {**FUSED, "pads": [0, 0, 0, 0], **steps}
    rest = [n.op_type for n in result.model.graph.node if n.domain != "dlcv"]
    assert not {"LRN", "MaxPool"} & set(rest)
    count = {op: rest.count(op) for op in ("Cast", "QuantizeLinear", "DequantizeLinear")}
    casts, quantizes, dequantizes = {"fp32": (0, 0, 0), "fp16": (2, 0, 0)}.get(kind, (0, 3, 6))  # 3 of weights
    assert count == {"Cast": casts, "QuantizeLinear": quantizes, "DequantizeLinear": dequantizes}
    known = types(result.model)
    element = {"fp16": "FLOAT16", "int8 through": "INT8"}.get(kind, "FLOAT")
    assert [known[n.output[0]] for n in ours(result)] == [
        (TensorProto.DataType.Value(element), ("n", 8, 12, 12)),
        (TensorProto.DataType.Value(element), ("n", 8, 5, 5)),
    ]


def test_int8_enters_and_leaves_the_plugin_as_int8():
    model = build(
        f"[conv_1] c = Conv (input, w) [lrn_1] l = {LRN} (c) [max_pool_1] m = {POOL} (l) [conv_2] logits = Conv (m, w)",
        w=weight(4, 4, 1, 1),
    )
    assert lines(lowered(written(model, "int8 through")).model) == [
        "QuantizeLinear: input input_scale input_zero_point -> input_q",
        "DequantizeLinear: input_q input_scale input_zero_point -> input_dq",
        "DequantizeLinear: w_q w_scale -> w_dq",
        "Conv: input_dq w_dq -> c",
        "QuantizeLinear: c c_scale c_zero_point -> c_q",
        "DlcvLRNMaxPool: c_q -> m_q",
        "DequantizeLinear: m_q m_scale m_zero_point -> m_dq",
        "DequantizeLinear: w_again_q w_again_scale -> w_again_dq",
        "Conv: m_dq w_again_dq -> logits",
    ]


def test_fp16_enters_and_leaves_the_plugin_as_fp16():
    result = lowered(written(build(f"[r] r = Relu (input) [lrn_1] l = {LRN} (r) [p] logits = {POOL} (l)"), "fp16"))
    assert lines(result.model) == [
        "Cast: input -> input_fp16",
        "Relu: input_fp16 -> r",
        "DlcvLRNMaxPool: r -> logits_fp16",
        "Cast: logits_fp16 -> logits",
    ]


def test_an_lrn_of_float16_is_one_of_float16():
    io = "(float16[n,4,9,9] input) => (float16[n,4,h,w] logits)"
    result = lowered(build(f"[a] l = {LRN} (input) [p] logits = {POOL} (l)", signature=io))
    assert lines(result.model) == ["DlcvLRNMaxPool: input -> logits"]


@pytest.mark.parametrize("kind", GRAPHS)
def test_googlenet_has_a_plain_node_behind_a_pool_and_a_fused_one(kind):
    result = lowered(written(googlenet()[0], kind))
    assert (result.lowered, result.left_alone) == (("lrn_1", "lrn_2+max_pool_2"), ())
    first, second = ours(result)
    assert (first.op_type, second.op_type) == ("DlcvLRN", "DlcvLRNMaxPool")
    assert attributes(second)["pads"] == [0, 0, 1, 1]  # 14 pixels: the seventh window stands over the edge by one
    assert ("input_scale" in attributes(first), "input_scale" in attributes(second)) == (kind == "int8 through",) * 2


# What they answer


@pytest.mark.parametrize("net", [alexnet, googlenet])
@pytest.mark.parametrize("kind", GRAPHS)
def test_written_as_onnx_the_lowered_graph_answers_bit_for_bit_as_before(net, kind):
    model, x = net()
    before = written(model, kind, ranges(model, x))
    after = spelled(lowered(before).model)
    want, got = on_runtime(before, x)[0], on_runtime(after, x)[0]
    assert np.ptp(want) > 1
    assert np.array_equal(want, got)


@pytest.mark.parametrize("net", [alexnet, googlenet])
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8 through"])
def test_the_plugin_s_reference_answers_as_onnx_runtime_does(net, kind):
    """Each node fed alike: to 8 units in the last place of float32, to 1 of float16, to 1 step of int8 and rarely."""
    model, x = net()
    before = written(model, kind, ranges(model, x))
    result = lowered(before)
    for node in ours(result):
        fed, want = on_runtime(before, x, node.input[0], node.output[0])
        ends = [helper.make_empty_tensor_value_info(t) for t in (node.input[0], node.output[0])]
        ends[0].CopyFrom(helper.make_tensor_value_info(node.input[0], helper.np_dtype_to_tensor_dtype(fed.dtype), None))
        alone = helper.make_model(
            helper.make_graph([node], "alone", ends[:1], ends[1:]), opset_imports=result.model.opset_import
        )
        (got,) = ReferenceEvaluator(alone, new_ops=[DlcvLRN, DlcvLRNMaxPool]).run(None, {node.input[0]: fed})
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        off = np.abs(got.astype(np.float64) - want)
        if got.dtype == np.int8:
            assert off.max() <= 1
            assert off.mean() < 1e-3
            assert np.ptp(want) > 100
        else:
            assert (off <= {"fp32": 8, "fp16": 1}[kind] * np.spacing(np.abs(want))).all()


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_lowered_graph_runs_whole_on_the_reference(kind):
    """Tolerances are what one step of int8, or one rounding to float16, in the second normalization may change."""
    model, x = alexnet()
    before = written(model, kind, ranges(model, x))
    want, got = on_runtime(before, x)[0], on_numpy(lowered(before).model, x)[0]
    assert np.abs(want - got).max() <= {"fp32": 1e-5, "fp16": 2e-3}.get(kind, 2e-2) * np.abs(want).max()


# Who reads what


def test_a_cast_that_others_read_too_stays():
    """The LRN's Cast to float32 feeds Softmax as well."""
    body = f"[r] r = Relu (input) [lrn_1] l = {LRN} (r) [s] k = Softmax (r) [a] logits = Add (l, k)"
    result = lowered(written(build(body), "fp16"))
    assert lines(result.model)[2:5] == ["Cast: r -> r_fp32", "Softmax: r_fp32 -> k", "DlcvLRN: r -> l_fp16"]


def test_a_pair_that_others_read_too_stays():
    body = f"[lrn_1] l = {LRN} (input) [p] m = {POOL} (l) [a] k = Conv (m, w) [b] j = Conv (input, v) "
    body += "[c] logits = Add (k, j)"
    model = build(body, w=weight(4, 4, 1, 1), v=weight(4, 4, 6, 6))
    result = lowered(written(model, "int8 through"))
    assert lines(result.model)[1:3] == [
        "DequantizeLinear: input_q input_scale input_zero_point -> input_dq",
        "DlcvLRNMaxPool: input_q -> m_q",
    ]
    assert "Conv: input_dq v_dq -> j" in lines(result.model)


ELSEWHERE = "it is not all that reads what the LRN gives"
BETWEEN = "between the LRN and it stands a conversion that the plugin cannot take in"


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("fp32", ["DlcvLRN: r -> l", "MaxPool: l -> m", "Identity: l -> norm"]),
        ("fp16", ["DlcvLRN: r_fp32 -> l", "Cast: l -> l_fp16", "MaxPool: l_fp16 -> m", "Identity: l -> norm"]),
        ("int8 through", ["DlcvLRN: r_dq -> l", "MaxPool: l_dq -> m", "Identity: l -> norm"]),
    ],
)
def test_what_the_graph_returns_is_not_fused_away(kind, want):
    signature = "(float[n,4,9,9] input) => (float[n,4,4,4] logits, float[n,4,9,9] norm)"
    body = f"""[r] r = Relu (input) [lrn_1] l = {LRN} (r) [p] m = {POOL} (l) [c] logits = Conv (m, w)
        [norm] norm = Identity (l)"""
    model = build(body, signature=signature, w=weight(4, 4, 1, 1))
    before = written(model, kind)
    result = lowered(before)
    assert result.lowered == ("lrn_1",)
    assert result.left_alone == (LeftAlone("p", "MaxPool", ELSEWHERE),)
    assert [line for line in lines(result.model) if line in want] == want
    x = pixels(2, 4, 9, 9)
    for one, other in zip(on_runtime(before, x), on_runtime(spelled(result.model), x), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("tail", "kinds"),
    [
        (f"[p] m = {POOL} (l) [q] k = {POOL} (l) [a] logits = Add (m, k)", ("p", "q")),
        (f"[p] m = {POOL} (l) [q] k = GlobalAveragePool (l) [a] logits = Add (m, k)", ("p",)),
    ],
)
def test_a_pool_beside_other_readers_stays(tail, kinds):
    result = lowered(build(f"[lrn_1] l = {LRN} (input) {tail}"))
    assert result.lowered == ("lrn_1",)
    assert result.left_alone == tuple(LeftAlone(p, "MaxPool", ELSEWHERE) for p in kinds)


def test_what_is_not_a_pool_stays_without_a_word():
    result = lowered(build(f"[lrn_1] l = {LRN} (input) [r] r = Relu (l) [p] logits = {POOL} (r)"))
    assert (result.lowered, result.left_alone) == (("lrn_1",), ())


def test_one_normalization_behind_another():
    model = build(f"[a] k = {LRN} (input) [b] l = {LRN} (k) [p] logits = {POOL} (l)")
    assert lines(lowered(model).model) == ["DlcvLRN: input -> k", "DlcvLRNMaxPool: k -> logits"]
    assert lines(lowered(written(model, "fp16")).model) == [
        "DlcvLRN: input -> k",
        "DlcvLRN: k -> l",
        "Cast: l -> l_fp16",
        "MaxPool: l_fp16 -> logits_fp16",
        "Cast: logits_fp16 -> logits",
    ]


def test_a_graph_without_normalization_is_returned_as_it_is():
    model = build("[r] logits = Relu (input)", "<float[1] spare = {1}>")
    assert lower_lrn(model) == Lowering(model, (), ())


def test_a_graph_that_no_pass_understands_is_refused():
    model = build("[r] logits = Relu (input)")
    model.graph.sparse_initializer.add().values.name = "w"
    with pytest.raises(SpecError, match="initializer 'w' is sparse"):
        lower_lrn(model)


# Pairs as others write them


def paired(before: str, after: str, pool: str = "", **arrays: np.ndarray) -> ModelProto:
    """x -> Q -> DQ -> LRN -> Q -> DQ, with what is to be different about the pairs."""

    def pair(x: str, q: str, dq: str, inputs: str) -> str:
        return f"{q} = QuantizeLinear ({inputs.replace('@', x)}) {dq} = DequantizeLinear ({inputs.replace('@', q)})"

    first, second = pair("input", "a", "b", before), pair("l", "m", "k", after)
    third = f"[p] p = {POOL} (k) {pool}" if pool else "[r] logits = Relu (k)"
    given = {"s": np.float32(0.5), "t": np.float32(0.25), "z": np.int8(0)} | arrays
    text = f"{first} [lrn_1] l = {LRN} (b) {second} {third}"
    names = {t.strip() for t in f"{before},{after},{pool}".replace("(", ",").replace(")", ",").split(",")}
    return build(text, **{n: np.asarray(v) for n, v in given.items() if n in names})


def test_pairs_with_and_without_a_zero_point_and_with_a_scale_of_one_axis():
    for before, after, more in (
        ("@, s, z", "@, t, z", {}),
        ("@, u, z", "@, u, z", {"u": np.array([0.5], np.float32)}),
    ):
        model = paired(before, after, **more)
        result = lowered(model)
        assert [line for line in lines(result.model) if "LRN" in line] == ["DlcvLRN: a -> m"]
        (node,) = ours(result)
        want = (0.5, 0.25) if not more else (0.5, 0.5)
        assert (attributes(node)["input_scale"], attributes(node)["output_scale"]) == want


@pytest.mark.parametrize(
    ("before", "after", "more", "want"),
    [
        ("@, s, z", "@, t", {}, "DlcvLRN: b -> l"),  # without a zero point it is uint8
        ("@, s, z", "@, t, u", {"u": np.uint8(0)}, "DlcvLRN: b -> l"),
        ("@, s, u", "@, t, z", {"u": np.int8(1)}, "DlcvLRN: b -> l"),
        ("@, s, z", "@, t, u", {"u": np.int8(-3)}, "DlcvLRN: b -> l"),
        ("@, u, v", "@, t, z", {"u": np.ones(4, np.float32), "v": np.zeros(4, np.int8)}, "DlcvLRN: b -> l"),
        ("@, s, z", "@, u, z", {"u": np.float32(0)}, "DlcvLRN: b -> l"),
        ("@, u, z", "@, t, z", {"u": np.float32(np.inf)}, "DlcvLRN: b -> l"),
        ("@, u, z", "@, t, z", {"u": np.float32(-1)}, "DlcvLRN: b -> l"),
    ],
    ids=["uint8 unsaid", "uint8", "zero point", "zero point behind", "by channel", "0", "infinity", "negative"],
)
def test_other_pairs_stay_around_a_node_of_float32(before, after, more, want):
    result = lowered(paired(before, after, **more))
    assert [line for line in lines(result.model) if "LRN" in line] == [want]
    assert [n.op_type for n in result.model.graph.node].count("DequantizeLinear") == 2


def test_a_scale_that_is_computed_is_no_attribute():
    body = f"""[t] t = ReduceMax <keepdims = 0> (input) [q1] a = QuantizeLinear (input, t, z)
        [d1] b = DequantizeLinear (a, t, z) [lrn_1] logits = {LRN} (b)"""
    assert "DlcvLRN: b -> logits" in lines(lowered(build(body, z=np.int8(0))).model)


@pytest.mark.parametrize(
    ("behind", "want"),
    [
        ("[q3] g = QuantizeLinear (p, t, z) [d3] logits = DequantizeLinear (g, t, z)", ["DlcvLRNMaxPool: a -> g"]),
        (
            "[q3] g = QuantizeLinear (p, s, z) [d3] logits = DequantizeLinear (g, s, z)",
            ["DlcvLRN: a -> m", "MaxPool: k -> p"],
        ),
        ("[r] logits = Relu (p)", ["DlcvLRN: a -> m", "MaxPool: k -> p"]),
    ],
    ids=["same scale", "another scale", "float32"],
)
def test_a_pool_between_pairs_is_fused_where_they_have_one_scale(behind, want):
    model = paired("@, s, z", "@, t, z", behind)
    result = lowered(model)
    assert [line for line in lines(result.model) if "LRN" in line or "Pool" in line] == want
    assert result.left_alone == (() if len(want) == 1 else (LeftAlone("p", "MaxPool", BETWEEN),))
    x = 20 * pixels(2, 4, 9, 9)
    assert np.array_equal(on_runtime(model, x)[0], on_runtime(spelled(result.model), x)[0])


def test_a_pool_without_a_pair_before_it_is_fused_between_int8_tensors():
    body = f"""[q1] a = QuantizeLinear (input, s, z) [d1] b = DequantizeLinear (a, s, z) [lrn_1] l = {LRN} (b)
        [p] p = {POOL} (l) [q2] g = QuantizeLinear (p, t, z) [d2] logits = DequantizeLinear (g, t, z)"""
    model = build(body, s=np.float32(0.5), t=np.float32(0.25), z=np.int8(0))
    result = lowered(model)
    assert lines(result.model)[1] == "DlcvLRNMaxPool: a -> g"
    x = 20 * pixels(2, 4, 9, 9)
    assert np.array_equal(on_runtime(model, x)[0], on_runtime(spelled(result.model), x)[0])


def test_where_one_side_is_int8_the_node_works_in_float32():
    pair = "[q] a = QuantizeLinear ({0}, s, z) [d] b = DequantizeLinear (a, s, z) "
    given = {"s": np.float32(0.5), "z": np.int8(0)}
    model = build(pair.format("input") + f"[lrn_1] l = {LRN} (b) [p] m = {POOL} (l) [r] logits = Relu (m)", **given)
    assert "DlcvLRNMaxPool: b -> m" in lines(lowered(model).model)
    model = build(
        f"[lrn_1] l = {LRN} (input) [p] m = {POOL} (l) " + pair.format("m") + "[r] logits = Relu (b)", **given
    )
    assert "DlcvLRNMaxPool: input -> m" in lines(lowered(model).model)


# What is left alone


@pytest.mark.parametrize(
    ("lrn", "reason"),
    [
        ("LRN <size = 4>", "its window of 4 channels has no centre"),
        ("LRN <size = 16>", "its window is 16 channels wide, and the plugin's are 1 to 15"),
        ("LRN <size = 17>", "its window is 17 channels wide, and the plugin's are 1 to 15"),
        ("LRN <size = 0>", "its window is 0 channels wide, and the plugin's are 1 to 15"),
        ("LRN <size = 5, bias = -0.5>", "its bias is -0.5, and the plugin takes none below 0"),
    ],
)
def test_what_the_plugin_does_not_have_stays(lrn, reason):
    model = build(f"[lrn_1] l = {lrn} (input) [p] logits = {POOL} (l)")
    assert lowered(model) == Lowering(model, (), (LeftAlone("lrn_1", "LRN", reason),))


@pytest.mark.parametrize("name", ["alpha", "beta", "bias"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_not_finite_stay(name, value):
    model = build("[lrn_1] logits = LRN <size = 5> (input)")
    model.graph.node[0].attribute.append(helper.make_attribute(name, float(value)))
    assert [left.reason for left in lower_lrn(model).left_alone] == ["its alpha, beta or bias is not a finite number"]


@pytest.mark.parametrize("size", [1, 15])
def test_the_narrowest_and_the_widest_window_are_lowered(size):
    assert lowered(build(f"[lrn_1] logits = LRN <size = {size}, bias = 0.0> (input)")).lowered == ("lrn_1",)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("(float[n,4,9] input) => (float[n,4,9] logits)", "its input has 3 axes, not the four of images: N, C, H, W"),
        (
            "(float[n,4,9,9,9] input) => (float[n,4,9,9,9] logits)",
            "its input has 5 axes, not the four of images: N, C, H, W",
        ),
        (
            "(double[n,4,9,9] input) => (double[n,4,9,9] logits)",
            "it is computed in double, which the plugin does not have",
        ),
        (
            "(bfloat16[n,4,9,9] input) => (bfloat16[n,4,9,9] logits)",
            "it is computed in bfloat16, which the plugin does not have",
        ),
    ],
)
def test_other_shapes_and_types_stay(signature, reason):
    model = build("[lrn_1] logits = LRN <size = 3> (input)", signature=signature)
    assert lowered(model) == Lowering(model, (), (LeftAlone("lrn_1", "LRN", reason),))


def test_an_unknown_number_of_axes_stays():
    signature = "(float[n,4,9,9] input, int64[k] s) => (float[a,b,c,d] logits)"
    model = build("[a] r = Reshape (input, s) [lrn_1] logits = LRN <size = 3> (r)", signature=signature)
    reason = "its input has an unknown number of axes, not the four of images: N, C, H, W"
    assert [left.reason for left in lower_lrn(model).left_alone] == [reason]


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ("kernel_shape = [3, 3], dilations = [1, 2]", "its windows have gaps: its dilations are 1 and 2"),
        ("kernel_shape = [1, 16], pads = [0, 8, 0, 8]",
         "its window is 1 x 16 pixels, and the plugin's are 1 to 15"),
        ("kernel_shape = [2, 3], pads = [2, 0, 0, 0]",
         "its padding [2, 0, 0, 0] is negative, or not smaller than its window of 2 x 3"),
        ("kernel_shape = [2, 3], pads = [0, 0, 0, 3]",
         "its padding [0, 0, 0, 3] is negative, or not smaller than its window of 2 x 3"),
        ('kernel_shape = [1, 1], strides = [3, 5], auto_pad = "SAME_UPPER"',
         "its padding [-1, -2, -1, -1] is negative, or not smaller than its window of 1 x 1"),
        ("kernel_shape = [12, 12], pads = [1, 1, 1, 1]",
         "its window of 12 x 12 pixels is larger than its padded input"),
    ],
)  # fmt: skip
def test_pools_that_the_plugin_does_not_have_stay_behind_a_plain_node(pool, reason):
    body = f"[l] l = {LRN} (input) [p] logits = MaxPool <{pool}> (l)"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> net {IO} {{ {body} }}')
    result = lower_lrn(model)
    assert lines(result.model) == ["DlcvLRN: input -> l", "MaxPool: l -> logits"]
    assert (result.lowered, result.left_alone) == (("l",), (LeftAlone("p", "MaxPool", reason),))


def test_a_pool_that_gives_places_too_stays():
    signature = "(float[n,4,9,9] input) => (float[n,4,4,4] logits, int64[n,4,4,4] where)"
    result = lowered(build(f"[l] l = {LRN} (input) [p] logits, where = {POOL} (l)", signature=signature))
    assert result.left_alone == (LeftAlone("p", "MaxPool", "it also gives the places of the values"),)


@pytest.mark.parametrize("height", ["h", "1"])
def test_an_unknown_height_leaves_the_pool_alone(height):
    signature = f"(float[n,4,{height},9] input) => (float[n,4,a,b] logits)"
    pool = POOL.replace("3, 3", "1, 3")
    result = lowered(build(f"[l] l = {LRN} (input) [p] logits = {pool} (l)", signature=signature))
    unknown = LeftAlone("p", "MaxPool", "the height or width of its input is not known")
    assert result.left_alone == ((unknown,) if height == "h" else ())


# How many windows


@st.composite
def pools(draw: st.DrawFn, *, torch: bool = False) -> tuple[list[int], dict[str, object]]:
    """A height and width, and the attributes of a MaxPool on it: of one that PyTorch has, or any."""

    def pair(lo: int, hi: int) -> list[int]:
        return [draw(st.integers(lo, hi)), draw(st.integers(lo, hi))]

    kernel = pair(1, 15) if draw(st.booleans()) else pair(1, 4)
    given: dict[str, object] = {"kernel_shape": kernel, "strides": pair(1, 6), "ceil_mode": draw(st.integers(0, 1))}
    auto = "NOTSET" if torch else draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if torch:
        given["pads"] = [draw(st.integers(0, k // 2)) for k in kernel] * 2
    elif auto == "NOTSET":
        given["pads"] = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    else:
        given["auto_pad"] = auto
    return [draw(st.integers(k if torch else 1, 40)) for k in kernel], given


def fuse(lengths: Sequence[int], given: dict[str, object]) -> tuple[ModelProto, Lowering]:
    nodes = [
        helper.make_node("LRN", ["input"], ["l"], "l", size=3),
        helper.make_node("MaxPool", ["l"], ["logits"], "p", **given),
    ]
    ends = [
        helper.make_tensor_value_info(t, 1, s) for t, s in (("input", ["n", 2, *lengths]), ("logits", list("ncab")))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model, lower_lrn(model)


@given(pools())
@example(((13, 8), {"kernel_shape": [1, 2], "strides": [5, 3], "ceil_mode": 1, "pads": [0, 0, 0, 1]}))  # one ignored
@example(((55, 27), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}))
@example(((56, 28), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}))
def test_a_fused_pool_has_the_windows_that_onnx_runtime_counts(drawn):
    lengths, given = drawn
    model, result = fuse(lengths, given)
    if result.lowered == ("l",):
        (left,) = result.left_alone
        same = str(given.get("auto_pad", "")).startswith("SAME")
        assert left.reason.endswith("larger than its padded input") or (same and "its padding [" in left.reason)
        return
    x = pixels(1, 2, *lengths)
    want, got = on_runtime(model, x)[0], on_numpy(result.model, x)[0]
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5
    assert all(
        0 <= p < k for p, k in zip(attributes(ours(result)[0])["pads"], [*given["kernel_shape"]] * 2, strict=True)
    )


@given(pools(torch=True))
@example(((14, 14), {"kernel_shape": [2, 2], "strides": [5, 5], "ceil_mode": 1, "pads": [1, 1, 1, 1]}))
def test_a_fused_pool_has_the_windows_that_pytorch_counts(drawn):
    torch = pytest.importorskip("torch")
    lengths, given = drawn
    x = pixels(1, 2, *lengths)
    y = torch.nn.functional.local_response_norm(torch.from_numpy(x), 3)
    window = (given["kernel_shape"], given["strides"], given["pads"][:2])
    want = torch.nn.functional.max_pool2d(y, *window, ceil_mode=bool(given["ceil_mode"])).numpy()
    _, result = fuse(lengths, given)
    (got,) = on_numpy(result.model, x)
    assert result.lowered == ("l+p",)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5


def test_sizes_behind_a_pool_that_shape_inference_counts_wrongly_are_not_believed():
    """14 pixels in windows of 2 with padding 1, 5 apart: the last would start in the padding, so there are three."""
    wrong = "MaxPool <kernel_shape = [2, 2], strides = [5, 5], pads = [1, 1, 1, 1], ceil_mode = 1>"
    body = f"""[a] k = {LRN} (input) [p] m = {wrong} (k) [r] r = Relu (m) [b] l = {LRN} (r)
        [q] logits = MaxPool <kernel_shape = [2, 2]> (l)"""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> net {IO.replace("9", "14")} {{ {body} }}')
    assert types(model)["m"][1] == ("n", 4, 4, 4)
    result = lower_lrn(model)
    assert result.lowered == ("a+p", "b")
    assert result.left_alone == (LeftAlone("q", "MaxPool", "the height or width of its input is not known"),)
    x = pixels(2, 4, 14, 14)
    want, got = on_runtime(model, x)[0], on_numpy(result.model, x)[0]
    assert want.shape == got.shape == (2, 4, 2, 2)
    assert np.abs(want - got).max() < 1e-6


# Networks


@pytest.fixture(scope="module")
def networks() -> dict[str, ExportedModel]:
    """AlexNet for CIFAR-10 with its weights, and the paper's GoogLeNet with drawn ones on 64 x 64 pixels."""
    pytest.importorskip("torch")
    from dlcv_deploy.export import export
    from dlcv_deploy.models import catalogue, weights

    found = {}
    for name, shape, choice in (("alexnet-cifar10", (3, 32, 32), None), ("googlenet", (3, 64, 64), "random")):
        loaded = weights.load(catalogue.network(name), choice)
        found[name] = export(name, loaded.net, shape, outputs=("logits",), weights_sha256=loaded.weights_sha256)
    return found


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("name", ["alexnet-cifar10", "googlenet"])
def test_networks_answer_bit_for_bit_as_before(networks, name, kind):
    model = ModelProto.FromString(networks[name].onnx)
    x = pixels(2, *networks[name].inputs[0].shape)
    table = bundled(networks[name].weights_sha256)
    assert (table is None) == (name == "googlenet")
    amax = dict(table.amax) if table else ranges(model, x)
    assert set(quantizable(model)) == set(amax)
    before = written(model, kind, amax)
    result = lowered(before)
    assert result.left_alone == ()
    first = "lrn_1+max_pool_1" if name == "alexnet-cifar10" else "lrn_1"
    assert result.lowered == (first, "lrn_2+max_pool_2")
    for node in ours(result):
        assert ("input_scale" in attributes(node)) == (kind == "int8 through")
    want, got = on_runtime(before, x)[0], on_runtime(spelled(result.model), x)[0]
    assert np.isfinite(want).all()
    assert np.array_equal(want, got)
