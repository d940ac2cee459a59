"""Names, order and signature follow from the structure, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, parser, shape_inference
from onnx.reference import ReferenceEvaluator

from dlcv_deploy import __version__
from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.index import order, taps, types
from dlcv_deploy.graph.names import name, signature

HEAD = '<ir_version: 10, opset_import: ["": 20, "unused": 3], producer_name: "exporter">'
NET = """
    exported (float[s0,1,4,4] image) => (float[s0,3] scores)
    <float[1,1,3,3] k1 = {1,2,3,4,5,6,7,8,9}, float[1] z = {0}, int64[2] where = {0, 0}, int64[2] to = {4, 4},
     int64[2] axes = {2, 3}, float[16,3] dense, float[3] b, float[2] dead = {1, 2}>
    {
        [conv2d] f1 = Conv <pads = [1,1,1,1], kernel_shape = [3, 3], group = 1, auto_pad = "NOTSET"> (image, k1, z)
        [act] f2 = Relu (f1)
        [cut] f3 = Slice (f2, where, to, axes)
        [again] f4 = Conv <pads = [1,1,1,1]> (f2, k1, z)
        [cut2] f5 = Slice (f3, where, to, axes)
        [sum] f6 = Add (f4, f5)
        [useless] f7 = Relu (dead)
        [flat] f8 = Flatten (f6)
        [fc] scores = Gemm <alpha = 1.0, transB = 0> (f8, dense, b)
    }
"""


def net(text: str = NET, seed: int = 0) -> ModelProto:
    rng = np.random.default_rng(seed)
    dense = "float[16,3] dense = {" + ",".join(f"{v:.6f}" for v in rng.standard_normal(48)) + "}"
    text = text.replace("float[16,3] dense", dense).replace("float[3] b,", "float[3] b = {1, 2, 3},")
    model = parser.parse_model(HEAD + text)
    checker.check_model(model)
    return model


def test_nodes_tensors_and_initializers_get_names_by_operator_and_order():
    before = net()
    kept = before.SerializeToString()
    after = name(before)
    assert before.SerializeToString() == kept, "the argument was changed"
    checker.check_model(after, full_check=True)
    got = [(n.name, *n.input, "->", *n.output) for n in after.graph.node]
    assert got == [
        ("conv_1", "input", "conv_1_weight", "conv_1_bias", "->", "conv_1_out"),
        ("relu_1", "conv_1_out", "->", "relu_1_out"),
        ("conv_2", "relu_1_out", "conv_1_weight", "conv_1_bias", "->", "conv_2_out"),
        ("slice_1", "relu_1_out", "slice_1_starts", "slice_1_ends", "slice_1_axes", "->", "slice_1_out"),
        ("slice_2", "slice_1_out", "slice_2_starts", "slice_2_ends", "slice_2_axes", "->", "slice_2_out"),
        ("add_1", "conv_2_out", "slice_2_out", "->", "add_1_out"),
        ("flatten_1", "add_1_out", "->", "flatten_1_out"),
        ("gemm_1", "flatten_1_out", "gemm_1_weight", "gemm_1_bias", "->", "logits"),
    ]
    assert [i.name for i in after.graph.initializer] == [
        *("conv_1_weight", "conv_1_bias", "slice_1_starts", "slice_1_ends", "slice_1_axes"),
        *("slice_2_starts", "slice_2_ends", "slice_2_axes", "gemm_1_weight", "gemm_1_bias"),
    ]
    x = np.random.default_rng(1).standard_normal((2, 1, 4, 4)).astype(np.float32)
    want = ReferenceEvaluator(before).run(None, {"image": x})[0]
    assert np.array_equal(ReferenceEvaluator(after).run(["logits"], {"input": x})[0], want)


def test_attributes_at_their_default_go_and_the_rest_is_sorted():
    after = name(net())
    assert [a.name for a in after.graph.node[0].attribute] == ["kernel_shape", "pads"]
    assert not after.graph.node[-1].attribute


def test_nothing_of_the_exporter_is_left():
    model = net()
    model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = "secret"
    model.graph.initializer[0].doc_string = model.graph.input[0].doc_string = "secret"
    for holder in (model, model.graph, model.graph.node[1], model.graph.input[0]):
        holder.metadata_props.add(key="secret", value="secret")
    model = shape_inference.infer_shapes(model)
    after = name(model)
    assert b"secret" not in after.SerializeToString()
    assert not after.graph.value_info
    assert (after.producer_name, after.producer_version) == ("dlcv-deploy", __version__)
    assert [(o.domain, o.version) for o in after.opset_import] == [("", 20)]
    assert after.ir_version == 9  # the oldest that opset 20 allows
    assert [d.dim_param or d.dim_value for d in after.graph.input[0].type.tensor_type.shape.dim] == ["batch", 1, 4, 4]
    assert after.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert after.SerializeToString(deterministic=True) == name(net()).SerializeToString(deterministic=True)


def shuffled() -> ModelProto:
    """The same network as an exporter with other habits would write it."""
    text = NET.replace("k1", "kernel").replace("f2", "hidden").replace("s0", "N").replace("group = 1, ", "")
    model = net(text)
    conv, cut = model.graph.node[3], model.graph.node[2]
    swapped = ModelProto()
    swapped.CopyFrom(model)
    swapped.graph.node[2].CopyFrom(conv)
    swapped.graph.node[3].CopyFrom(cut)
    del swapped.graph.initializer[:]
    for at in reversed(model.graph.initializer):
        if at.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(at)
            swapped.graph.initializer.append(helper.make_tensor(at.name, at.data_type, at.dims, values.reshape(-1)))
        else:
            swapped.graph.initializer.append(at)
    return swapped


def test_the_same_network_becomes_the_same_bytes():
    want = name(net()).SerializeToString(deterministic=True)
    assert name(shuffled()).SerializeToString(deterministic=True) == want
    assert name(name(net()), inputs=["input"], outputs=["logits"]).SerializeToString(deterministic=True) == want


def test_names_of_inputs_and_outputs_can_be_given():
    after = name(net(), inputs=["pixels"], outputs=["scores"])
    assert (after.graph.input[0].name, after.graph.output[0].name) == ("pixels", "scores")


def test_further_outputs_variadic_inputs_and_operators_of_others():
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 20, "own": 2]>
        g (float[m,4] x, float[k] y) => (float[m,k] z)
        <float[2,4] w = {1,2,3,4,5,6,7,8}, float[1] v = {1}>
        { c = Concat <axis = 0> (x, w) a, b = Split <num_outputs = 2> (c) d = own.GridSample2D <size = 3> (a, v, , b)
          z = Add (d, y) }
    """)
    after = name(model, inputs=["x", "y"], outputs=["z"])
    assert [(n.name, *n.input, "->", *n.output) for n in after.graph.node] == [
        ("concat_1", "x", "concat_1_input_2", "->", "concat_1_out"),
        ("split_1", "concat_1_out", "->", "split_1_out", "split_1_out_2"),
        (
            "grid_sample2_d_1",
            "split_1_out",
            "grid_sample2_d_1_input_2",
            "",
            "split_1_out_2",
            "->",
            "grid_sample2_d_1_out",
        ),
        ("add_1", "grid_sample2_d_1_out", "y", "->", "z"),
    ]
    assert [(o.domain, o.version) for o in after.opset_import] == [("", 20), ("own", 2)]
    axes = [d.dim_param for v in after.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param]
    assert axes == ["batch", "axis_2"]


def returning(*tensors: str) -> ModelProto:
    """``net`` with inner tensors as outputs after the first."""
    model = net()
    known = types(model)
    model.graph.output.extend(helper.make_tensor_value_info(t, *known[t]) for t in tensors)
    return model


def test_an_inner_tensor_that_is_returned_keeps_its_name_and_is_repeated_under_the_outputs():
    plain, after = name(net()), name(returning("f6", "f2"), outputs=["logits", "sum", "map"])
    checker.check_model(after, full_check=True)
    assert list(after.graph.node[:-2]) == list(plain.graph.node)
    assert list(after.graph.initializer) == list(plain.graph.initializer)
    assert [(n.op_type, n.name, *n.input, "->", *n.output) for n in after.graph.node[-2:]] == [
        ("Identity", "identity_1", "add_1_out", "->", "sum"),
        ("Identity", "identity_2", "relu_1_out", "->", "map"),
    ]
    assert [o.name for o in after.graph.output] == ["logits", "sum", "map"]
    assert taps(after.graph) == {"sum", "map"}
    x = np.random.default_rng(1).standard_normal((2, 1, 4, 4)).astype(np.float32)
    want = ReferenceEvaluator(returning("f6", "f2")).run(None, {"image": x})
    for one, other in zip(want, ReferenceEvaluator(after).run(None, {"input": x}), strict=True):
        assert np.array_equal(one, other)
    again = name(after, inputs=["input"], outputs=["logits", "sum", "map"])
    assert again.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


def test_a_tensor_may_be_returned_twice_the_first_output_too():
    model = returning("f6", "f6")
    model.graph.output.append(model.graph.output[0])
    after = name(model, outputs=["logits", "sum", "again", "scores"])
    checker.check_model(after, full_check=True)
    assert [(n.op_type, *n.input, "->", *n.output) for n in after.graph.node[-4:]] == [
        ("Gemm", "flatten_1_out", "gemm_1_weight", "gemm_1_bias", "->", "logits"),
        ("Identity", "add_1_out", "->", "sum"),
        ("Identity", "add_1_out", "->", "again"),
        ("Identity", "logits", "->", "scores"),
    ]
    assert signature(model) == signature(returning("f6")) == signature(net())


def test_an_output_that_no_node_reads_needs_no_identity():
    after = name(returning("f7"), outputs=["logits", "head"])
    assert [(n.name, *n.output) for n in after.graph.node[-2:]] == [("gemm_1", "logits"), ("relu_2", "head")]
    assert not taps(after.graph)


def test_what_is_computed_anyway_does_not_change_the_signature_when_it_is_returned():
    want = signature(net())
    for tensors in (["f6"], ["f2", "f6"], ["f4", "f8", "f1"]):
        assert signature(returning(*tensors)) == want
        assert signature(name(returning(*tensors), outputs=["logits", *tensors])) == want


def test_what_an_output_adds_changes_the_signature():
    head = signature(returning("f7"))
    assert head != signature(net())
    assert head == signature(name(returning("f7"), outputs=["logits", "head"]))
    assert head == signature(returning("f6", "f7", "f2"))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["a", "b"], ["y"], r"the graph has the inputs image; they cannot be called a, b"),
        (["a"], [], r"the graph has the outputs scores; they cannot be called "),
        (["relu_1_out"], ["y"], r"'relu_1_out' is the name of another tensor\n  fix: give inputs and outputs other"),
        (["a"], ["gemm_1_bias"], r"'gemm_1_bias' is the name of another tensor"),
        (["a"], ["a"], r"'a' names an input and an output"),
    ],
)
def test_names_that_do_not_fit_are_refused(inputs, outputs, message):
    with pytest.raises(SpecError, match=message):
        name(net(), inputs=inputs, outputs=outputs)


def test_an_output_that_nothing_computes_is_refused():
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[n] x) => (float[n] x) { y = Relu (x) }'
    )
    with pytest.raises(SpecError, match="output 'x' is not computed by a node"):
        name(model)


def test_signature_holds_for_other_weights_names_and_habits():
    want = signature(net())
    assert signature(net(seed=1)) == want
    assert signature(shuffled()) == want
    assert signature(name(net())) == want
    half = name(net())
    half.producer_version = "9"
    half.ir_version = 10
    half.graph.node[0].metadata_props.add(key="dlcv_deploy.module", value="stem")
    assert signature(half) == want


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[act] f2 = Relu", "[act] f2 = Tanh"),
        ("pads = [1,1,1,1]> (f2", "pads = [1,1,1,1], dilations = [1, 1]> (f2"),
        ("axes = {2, 3}", "axes = {3, 2}"),
        ("f6 = Add (f4, f5)", "f6 = Add (f5, f4)"),
        ("f8 = Flatten (f6)", "f8 = Flatten (f4)"),
        ("float[2] dead = {1, 2}", "float[2] dead = {1, 2}, float[1,3] c = {1, 1, 1}"),
        ("float[s0,1,4,4]", "float[2,1,4,4]"),
    ],
)
def test_signature_changes_with_the_structure(old, new):
    text = NET.replace(old, new)
    assert text != NET
    if " c = " in new:
        text = text.replace("dense, b)", "dense, c)")
    assert signature(net(text)) != signature(net())


def test_signature_changes_with_the_type_of_a_weight_and_the_opset():
    model = net()
    at = next(i for i in model.graph.initializer if i.name == "dense")
    at.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(at).astype(np.float16), "dense"))
    assert signature(model) != signature(net())
    model = net()
    model.opset_import[0].version = 19
    assert signature(model) != signature(net())


def test_order_of_a_network_deeper_than_the_stack():
    nodes = [helper.make_node("Relu", [f"t{n}"], [f"t{n + 1}"]) for n in range(5000)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "deep", [value("t0", 1, [1])], [value("t5000", 1, [1]), value("t10", 1, [1])], doc_string="d"
    )
    assert [n.output[0] for n in order(graph)] == [f"t{n}" for n in range(1, 5001)]


def test_types_and_shapes_are_inferred_without_the_values_of_weights():
    known = types(net())
    assert known["f6"] == (TensorProto.FLOAT, ("s0", 1, 4, 4))
    assert known["dense"] == (TensorProto.FLOAT, (16, 3))
    assert known["where"] == (TensorProto.INT64, (2,))
    assert known["scores"] == (TensorProto.FLOAT, ("s0", 3))
