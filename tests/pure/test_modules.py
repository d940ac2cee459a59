"""Every node of an exported graph knows the PyTorch module that it stems from, through all passes."""

from __future__ import annotations

import pytest
from onnx import ModelProto, checker, helper, parser

from dlcv_deploy.graph.fold import fold
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.lrn import lower_lrn
from dlcv_deploy.graph.modules import KEY, forget, keep, mark, module_of, modules
from dlcv_deploy.graph.names import name, signature

SCOPES = "pkg.torch.onnx.name_scopes"
NET = """
    <ir_version: 8, opset_import: ["": 18]>
    exported (float[n,1,4,4] image) => (float[n,1,4,4] scores)
    <float[1,1,1,1] k = {2}, float[1] one = {1}, float[1] zero = {0}>
    {
        [first] a = Conv (image, k)
        [norm] b = BatchNormalization (a, one, zero, zero, one)
        [lrn] c = LRN <size = 3> (b)
        [second] scores = Conv (c, k)
    }
"""


def net(*scopes: str) -> ModelProto:
    model = parser.parse_model(NET)
    for node, value in zip(model.graph.node, scopes, strict=False):
        node.metadata_props.add(key=SCOPES, value=value)
    return model


def test_the_module_is_the_innermost_that_was_at_work():
    model = net("['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']", "['', 'add']", "['hook', 'size']")
    mark(model)
    assert modules(model) == {"first": "layer1.0.conv1", "norm": "norm", "lrn": "lrn", "second": "second"}
    assert [entry.key for entry in model.graph.node[0].metadata_props] == [SCOPES, KEY]
    assert not any(entry.key == KEY for node in model.graph.node[1:] for entry in node.metadata_props)


@pytest.mark.parametrize("scopes", ["", "[", "['']", "{'': 1}", "conv1", "['conv1']", "7", "('', 'a', 'b')"])
def test_what_pytorch_notes_otherwise_names_no_module(scopes):
    model = net(scopes)
    mark(model)
    assert module_of(model.graph.node[0]) == "first"


def test_the_name_of_a_wrapper_is_left_out():
    scopes = ("['', 'net.conv', 'x']", "['', 'net', 'x']", "['', 'network.conv', 'x']", "['', 'a.net.b', 'x']")
    model = net(*scopes)
    mark(model, within="net")
    assert list(modules(model).values()) == ["conv", "norm", "network.conv", "a.net.b"]


def test_a_mark_replaces_an_earlier_one():
    model = net("['', 'conv1', 'x']")
    mark(model)
    mark(model)
    node = helper.make_node("Relu", ["x"], ["y"], "act")
    keep(model.graph.node[0], node)
    keep(model.graph.node[0], node)
    assert [(entry.key, entry.value) for entry in node.metadata_props] == [(KEY, "conv1")]
    keep(model.graph.node[1], node)
    assert not node.metadata_props
    forget(model)
    assert modules(model) == {"first": "first", "norm": "norm", "lrn": "lrn", "second": "second"}


def test_passes_keep_the_module_and_nothing_else_of_the_metadata():
    model = net(*(f"['', '{part}', 'x']" for part in ("stem", "stem_norm", "local", "head")))
    mark(model)
    model = name(fold(model))
    want = {"conv_1": "stem", "lrn_1": "local", "conv_2": "head"}
    assert modules(model) == want
    assert {entry.key for node in model.graph.node for entry in node.metadata_props} == {KEY}
    half, _ = to_half(model)
    for made in (half, name(model), lower_lrn(model).model):
        got = modules(made)
        assert {node: got[node] for node in want} == want
    checker.check_model(half)
    checker.check_model(model)
    assert b"stem" not in name(fold(net())).SerializeToString()


def test_what_is_left_of_a_node_that_does_nothing_keeps_the_module():
    model = net()
    model.graph.node.add(op_type="Dropout", name="drop", input=["c"], output=["dropped"])
    model.graph.node[-1].metadata_props.add(key=SCOPES, value="['', 'head.drop', 'x']")
    model.graph.output.add(name="dropped").type.CopyFrom(model.graph.output[0].type)
    mark(model)
    (left,) = (node for node in fold(model).graph.node if node.output[0] == "dropped")
    assert (left.op_type, module_of(left)) == ("Identity", "head.drop")


def test_names_of_modules_change_the_bytes_and_not_the_signature():
    one, other = net("['', 'a', 'x']"), net("['', 'b', 'x']")
    mark(one)
    mark(other)
    assert name(one).SerializeToString() != name(other).SerializeToString()
    assert signature(name(one)) == signature(name(other)) == signature(net())
