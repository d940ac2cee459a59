"""Names that PyTorch's earlier exporter gave, and the tensors that they mean here."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from dlcv_deploy.calibration.scoped import scoped
from dlcv_deploy.graph.modules import KEY


def graph(*nodes: tuple[str, str, str, str]) -> ModelProto:
    """Nodes as (operator, module, inputs, output)."""
    made = []
    for op, module, inputs, output in nodes:
        node = helper.make_node(op, inputs.split(), [output], output)
        if module:
            node.metadata_props.add(key=KEY, value=module)
        made.append(node)
    return helper.make_model(helper.make_graph(made, "g", [], []))


CHAIN = graph(
    ("Conv", "conv1", "x", "c1"),
    ("Relu", "", "c1", "r1"),
    ("Conv", "layer1.0.conv1", "r1", "c2"),
    ("Relu", "layer1.0", "c2", "r2"),
    ("Conv", "layer1.0.conv2", "r2", "c3"),
    ("Add", "layer1.0", "c3 r1", "a1"),
    ("Relu", "layer1.0", "a1", "r3"),
    ("GlobalAveragePool", "", "r3", "g"),
    ("Flatten", "", "g", "f"),
)


def test_modules_stand_in_a_name_each_by_its_last_part():
    names = {
        "/conv1/Conv_output_0": "c1",
        "/Relu_output_0": "r1",
        "/layer1/layer1.0/conv1/Conv_output_0": "c2",
        "/layer1/layer1.0/Relu_output_0": "r2",
        "/layer1/layer1.0/Relu_1_output_0": "r3",
        "/layer1/layer1.0/Add_output_0": "a1",
        "/ReduceMean_output_0": "g",
        "/Reshape_output_0": "f",
    }
    assert scoped(names, CHAIN) == names
    assert scoped(reversed(list(names)), CHAIN) == names


def test_a_list_of_modules_is_not_named_itself():
    """Sequential calls its parts from within itself, and a ModuleList is never called."""
    assert scoped(["/layer1.0/conv1/Conv_output_0"], CHAIN) == {"/layer1.0/conv1/Conv_output_0": "c2"}
    deep = graph(("Conv", "0.1.conv", "x", "a"), ("Conv", "blocks.2.1", "a", "b"), ("Conv", "0.1.conv_1", "b", "c"))
    names = {"/0/0.1/conv/Conv_output_0": "a", "/blocks/blocks.2/blocks.2.1/Conv_output_0": "b"}
    assert scoped(names, deep) == names
    names = {"/0.1/conv_1/Conv_output_0": "c", "/blocks.2.1/Conv_output_0": "b"}
    assert scoped(names, deep) == names


def test_modules_that_are_functions_here_count_as_what_is_around_them():
    names = {
        "/relu/Relu_output_0": "r1",
        "/layer1/layer1.0/relu/Relu_output_0": "r2",
        "/layer1/layer1.0/relu_1/Relu_output_0": "r3",
        "/avgpool/GlobalAveragePool_output_0": "g",
    }
    assert scoped(names, CHAIN) == names


def test_a_module_called_again_is_told_by_its_number():
    shared = graph(("Relu", "act", "x", "a"), ("Relu", "act", "a", "b"), ("Relu", "act_1", "b", "c"))
    assert scoped(["/act_1/Relu_output_0"], shared) == {"/act_1/Relu_output_0": "c"}
    two = graph(("Relu", "act", "x", "a"), ("Relu", "act", "a", "b"))
    assert scoped(["/act_1/Relu_output_0", "/act/Relu_output_0"], two) == {
        "/act/Relu_output_0": "a",
        "/act_1/Relu_output_0": "b",
    }


def test_what_stands_around_the_whole_network_is_passed_over():
    inner = ["/conv1/Conv_output_0", "/layer1/layer1.0/Add_output_0", "/Relu_output_0"]
    want = {"/conv1/Conv_output_0": "c1", "/layer1/layer1.0/Add_output_0": "a1", "/Relu_output_0": "r1"}
    for outer in ("/model", "/module/model"):
        names = [*(outer + name for name in inner), "/Softmax_output_0", "/Relu_1_output_0", "images"]
        assert scoped(names, CHAIN) == {outer + name: tensor for name, tensor in want.items()}
    mixed = [f"/model{inner[0]}", inner[1]]
    assert scoped(mixed, CHAIN) == {inner[1]: "a1"}


@pytest.mark.parametrize(
    "names",
    [
        ["input", "output", "123", "onnx::Conv_12", "(Unnamed Layer* 0) [Convolution]_output", "c1", ""],
        [
            "/conv1/Conv_output_1",
            "/conv1/Conv",
            "conv1/Conv_output_0",
            "/conv1/Conv_0_output_0",
            "/conv1//Conv_output_0",
        ],
        ["/conv2/Conv_output_0", "/layer2/layer2.0/Relu_output_0", "/layer1/other/conv1/Conv_output_0"],
        ["/layer1/layer1.0/Relu_output_0"],  # one of two
        ["/stem/Relu_output_0", "/stem/Conv_output_0", "/conv2/Conv_output_0"],  # a block, and no ReLU alone
        ["/stem/Relu_output_0", "/stem/act/Sigmoid_output_0", "/conv2/Conv_output_0"],
        ["/layer1/layer1.0/Relu_1_output_0", "/layer1/layer1.0/Relu_2_output_0"],
        ["/layer1/layer1.0/relu1/Relu_output_0", "/layer1/layer1.0/relu2/Relu_output_0"],
        ["/layer1/layer1.0/relu/Relu_output_0", "/layer1/layer1.0/Relu_output_0"],
        ["/layer1/layer1.0/relu/Relu_output_0", "/layer1/layer1.0/act_1/Relu_output_0"],
        ["/layer1/layer1.0/relu_1/Relu_1_output_0", "/layer1/layer1.0/relu/Relu_output_0"],
        ["/Flatten_output_0", "/Reshape_output_0"],
        ["/Relu_output_0", "/Relu_1_output_0"],  # one more than there is
        ["/conv1/Conv_output_0", "/bn1/BatchNormalization_output_0"],  # before its batch norm
    ],
)
def test_what_is_not_certain_is_not_matched(names):
    assert scoped(names, CHAIN) == {}


def test_a_batch_norm_that_is_kept_on_both_sides_changes_nothing():
    kept = graph(("Conv", "conv", "x", "c"), ("BatchNormalization", "bn", "c", "b"))
    names = {"/conv/Conv_output_0": "c", "/bn/BatchNormalization_output_0": "b"}
    assert scoped(names, kept) == names
    assert scoped(["/conv/Conv_output_0"], kept) == {}


def test_branches_leave_the_order_of_what_is_in_them_open():
    branched = graph(
        ("Relu", "", "x", "first"),
        ("Relu", "", "first", "left"),
        ("Relu", "", "first", "right"),
        ("Add", "", "left right", "sum"),
        ("Relu", "", "sum", "last"),
    )
    names = ["/Relu_output_0", "/Relu_1_output_0", "/Relu_2_output_0", "/Relu_3_output_0"]
    assert scoped(names, branched) == {"/Relu_output_0": "first", "/Relu_3_output_0": "last"}


def test_ten_and_more_are_counted_as_numbers():
    many = graph(*(("Relu", "", f"t{n}", f"t{n + 1}") for n in range(12)))
    names = {f"/Relu{f'_{n}' if n else ''}_output_0": f"t{n + 1}" for n in range(12)}
    assert scoped(sorted(names), many) == names


def test_names_of_the_exporter_itself_mean_tensors_of_the_same_values():
    """One network, by PyTorch's earlier exporter and by this tool: what is matched is equal, number for number."""
    torch = pytest.importorskip("torch")
    ort = pytest.importorskip("onnxruntime")
    from torch import nn

    from dlcv_deploy.export import export

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.relu, self.conv2 = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, bias=False)

        def forward(self, x):
            return self.relu(self.conv2(self.relu(self.bn1(self.conv1(x)))) + x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.layer1 = nn.Conv2d(3, 4, 3), nn.Sequential(Block(), Block())
            self.blocks, self.shared = nn.ModuleList([Block()]), Block()
            self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)

        def forward(self, x):
            x = self.shared(self.shared(self.blocks[0](self.layer1(torch.relu(self.conv1(x))))))
            x = torch.relu(self.left(x)) + torch.relu(self.right(x))
            return self.fc(torch.flatten(self.pool(x), 1))

    torch.manual_seed(0)
    net, file = Net().eval(), io.BytesIO()
    here = onnx.load_model_from_string(export("net", net, (3, 8, 8), weights_sha256="").onnx)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and says so
        try:
            torch.onnx.export(net, (torch.zeros(2, 3, 8, 8),), file, dynamo=False)
        except (ImportError, AttributeError, TypeError):
            pytest.skip("this PyTorch has no earlier exporter any more")
    there = onnx.load_model_from_string(file.getvalue())
    made = [tensor for node in there.graph.node for tensor in node.output]
    found = scoped(made, here)
    lost = {name for name in made if name.startswith("/")} - set(found)
    assert lost == {"/Relu_1_output_0", "/Relu_2_output_0"}, "two branches, each with its own"
    assert len(found) > 25

    def values(model, tensors):
        model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
        session = ort.InferenceSession(model.SerializeToString())
        image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
        return session.run(tensors, {session.get_inputs()[0].name: image})

    ours = values(here, list(dict.fromkeys(found.values())))
    assert len(ours) == len(found)
    for name, one, other in zip(found, values(there, list(found)), ours, strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-5), name
