"""Weights from ONNX graphs in the layouts of the Model Zoo, and every reason to refuse one."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from helpers import models, zoo  # noqa: E402
from torch import nn  # noqa: E402

from dlcv_deploy.errors import ArtifactError  # noqa: E402
from dlcv_deploy.models.alexnet import AlexNet  # noqa: E402
from dlcv_deploy.models.catalogue import build, network  # noqa: E402
from dlcv_deploy.models.importers.fitting import fitting, shed  # noqa: E402
from dlcv_deploy.models.resnet import ImageNetResNet  # noqa: E402
from dlcv_deploy.models.weights import load  # noqa: E402


def small_alexnet(*, caffe=True):
    """Caffe's, with few units in the dense layers."""
    with torch.device("meta"):
        net = AlexNet(caffe=caffe)
        net.fc6, net.fc7, net.fc8 = nn.Linear(9216, 16), nn.Linear(16, 16), nn.Linear(16, 10)
    return net.eval()


def small_resnet(*, early=True):
    """ResNet-50's first two stages."""
    with torch.device("meta"):
        net = ImageNetResNet(50, early=early)
        net.layer3, net.layer4, net.fc = nn.Identity(), nn.Identity(), nn.Linear(512, 10)
    return net.eval()


def named(name):
    with torch.device("meta"):
        return shed(build(network(name)).eval())


@pytest.fixture
def saved(tmp_path):
    def save(model, name="w.onnx", **options):
        onnx.save(model, tmp_path / name, **options)
        return tmp_path / name

    return save


def loaded(net, path, size):
    state = fitting(net, path, "net", (3, size, size))
    counts = {key: torch.zeros((), dtype=torch.int64) for key in net.state_dict() if key.endswith("tracked")}
    net.load_state_dict({**state, **counts}, assign=True)
    return net


def same_answers(net, path, size, *, logits=False):
    """The network answers as ONNX Runtime does on the file, within 1e-5 of the greatest answer."""
    images = np.random.default_rng(1).standard_normal((2, 3, size, size)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    (expected,) = onnxruntime.InferenceSession(path, options).run(None, {"data_0": images})
    with torch.inference_mode():
        found = net(torch.from_numpy(images))
    found = found if logits else found.softmax(1)
    assert expected.std() > 1e-4  # it says something
    assert np.abs(found.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def refusal(net, path, size=64):
    with pytest.raises(ArtifactError) as e:
        fitting(net, path, "net", (3, size, size))
    return str(e.value)


# --- the Model Zoo's layouts ---


def test_bvlcalexnet(saved):
    path = saved(zoo.alexnet(small_alexnet()))
    same_answers(loaded(small_alexnet(), path, 227), path, 227)


def test_bvlc_googlenet(saved):
    """In modules 3b, 4c and 4d a branch has the shape of another: the dataflow tells them apart."""
    path = saved(zoo.googlenet(named("googlenet")))
    found = load(network("googlenet"), str(path))
    same_answers(found.net, path, 224)
    assert not any(key.startswith("aux") for key in found.net.state_dict())


@pytest.mark.parametrize("style", ["gluon", "folded", "caffe"])
@pytest.mark.parametrize("early", [True, False])
def test_resnet(saved, style, early):
    path = saved(zoo.resnet(small_resnet(early=early), style))
    same_answers(loaded(small_resnet(early=early), path, 64), path, 64, logits=True)


def test_resnet50_knows_where_it_strides(saved):
    path = saved(zoo.resnet(named("resnet50-caffe")))
    same_answers(load(network("resnet50-caffe"), str(path)).net, path, 64, logits=True)
    with pytest.raises(ArtifactError) as e:
        load(network("resnet50"), str(path))
    lines = str(e.value).splitlines()
    assert lines[0] == f"{path} does not hold the weights of resnet50"
    assert lines[1] == "  layer2.0.conv1 has strides 1, and conv_38 has 2"
    assert lines[2] == "  layer2.0.conv2 has strides 2, and conv_41 has 1"
    assert lines[-1] == "  fix: they are those of resnet50-caffe: name that"


def test_another_epsilon(saved):
    path = saved(zoo.resnet(small_resnet(), eps=2e-3))
    same_answers(loaded(small_resnet(), path, 64), path, 64, logits=True)


def test_a_folded_normalization_is_the_identity_to_the_bit(saved):
    path = saved(zoo.resnet(small_resnet(), "folded"))
    net, file = loaded(small_resnet(), path, 64), onnx.load(path)
    tensors = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer}
    first = file.graph.node[0]
    assert np.array_equal(net.conv1.weight.detach().numpy(), tensors[first.input[1]])
    assert np.array_equal(net.bn1.bias.detach().numpy(), tensors[first.input[2]])
    x = torch.randn(2, 64, 5, 5)
    net.bn1.bias.data.zero_()
    assert torch.equal(net.bn1(x), x)


# --- other ways to say the same ---


def rewritten(model, change):
    """A model with its nodes passed through ``change``, which gives the nodes to have in place of one."""
    nodes = [new for node in model.graph.node for new in change(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def tensors_of(model):
    return {t.name: t for t in model.graph.initializer}


def dense_as_matmul(model):
    """Gemm as a transposition, a product and a sum."""

    def change(node):
        if node.op_type != "Gemm":
            return [node]
        x, weight, bias = node.input
        return [
            helper.make_node("Transpose", [weight], [f"{node.name}_t"], perm=[1, 0]),
            helper.make_node("MatMul", [x, f"{node.name}_t"], [f"{node.name}_m"]),
            helper.make_node("Add", [bias, f"{node.name}_m"], list(node.output), name=node.name),
        ]

    return rewritten(model, change)


def dense_not_transposed(model):
    tensors = tensors_of(model)
    for node in model.graph.node:
        if node.op_type == "Gemm":
            weight = tensors[node.input[1]]
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), weight.name))
            del node.attribute[:]
    return model


def bias_apart(model):
    """A convolution's bias as a sum after it."""

    def change(node):
        if node.op_type != "Conv" or len(node.input) < 3:
            return [node]
        bias = tensors_of(model)[node.input.pop()]
        bias.dims[:] = [bias.dims[0], 1, 1]
        answer = node.output[0]
        node.output[0] = f"{answer}_bare"
        return [node, helper.make_node("Add", [node.output[0], bias.name], [answer], name=f"{node.name}_bias")]

    return rewritten(model, change)


def constants_in_nodes(model):
    tensors = tensors_of(model)
    found = [helper.make_node("Constant", [], [f"{name}_c"], value=tensors[name]) for name in tensors]
    found += [helper.make_node("Identity", [f"{name}_c"], [name]) for name in tensors]
    nodes = [*found, *model.graph.node]
    del model.graph.initializer[:]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def pads_by_name(model):
    """SAME_LOWER, where all is padded alike and nothing strides."""
    for node in model.graph.node:
        about = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv" and about["strides"] == [1, 1]:
            kept = [a for a in node.attribute if a.name != "pads"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("auto_pad", "SAME_LOWER")])
    return model


def mean_by_axes(model):
    def change(node):
        if node.op_type != "GlobalAveragePool":
            return [node]
        return [helper.make_node("ReduceMean", list(node.input), list(node.output), axes=[-2, -1], name=node.name)]

    return rewritten(model, change)


def mean_by_window(model):
    def change(node):
        if node.op_type != "GlobalAveragePool":
            return [node]
        return [helper.make_node("AveragePool", list(node.input), list(node.output), kernel_shape=[8, 8])]

    return rewritten(model, change)


def sums_turned(model):
    for node in model.graph.node:
        if node.op_type == "Add":
            node.input[:] = list(node.input)[::-1]
    return model


WAYS = [
    dense_as_matmul, dense_not_transposed, bias_apart, constants_in_nodes, pads_by_name, mean_by_axes, mean_by_window,
    sums_turned,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_same_in_other_words(saved, way):
    model = way(zoo.resnet(small_resnet()))
    onnx.checker.check_model(model)
    path = saved(model)
    same_answers(loaded(small_resnet(), path, 64), path, 64, logits=True)


def test_half_weights(saved):
    model = zoo.resnet(small_resnet(), "folded")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    state = fitting(small_resnet(), saved(model), "net", (3, 64, 64))
    half = numpy_helper.to_array(model.graph.initializer[0])
    assert np.array_equal(state["conv1.weight"].numpy(), half.astype(np.float32))
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_what_this_tool_exports_comes_back(tmp_path):
    """Option A's shortcuts too: a slice and a padding."""
    from dlcv_deploy.build import export_file
    from dlcv_deploy.store import Store

    path, store = tmp_path / "w.onnx", Store(tmp_path / "cache")
    export_file(
        model="resnet20", output=path, fp16=False, weights="random", outputs=("logits", "features"), store=store
    )
    original, found = load(network("resnet20"), "random").net, load(network("resnet20"), str(path)).net
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(found(images), original(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(ArtifactError) as e:
        load(network("plain-20"), str(path))
    assert "fix: they are those of resnet20: name that" in str(e.value)


def test_weights_in_another_file(saved, tmp_path):
    model = zoo.resnet(small_resnet())
    path = saved(model, save_as_external_data=True, location="w.data", size_threshold=0)
    same_answers(loaded(small_resnet(), path, 64), path, 64, logits=True)
    (tmp_path / "w.data").rename(tmp_path / "v.data")
    assert refusal(small_resnet(), path) == (
        f"{path} keeps its weights in w.data, which is not beside it\n  fix: put it into {tmp_path}"
    )
    (tmp_path / "w.data").write_bytes(b"short")
    assert "cannot read what" in refusal(small_resnet(), path)


# --- graphs that do not fit ---


def changed(op, index=0, **attributes):
    """The small ResNet with other settings in one of its nodes."""
    model = zoo.resnet(small_resnet())
    node = [node for node in model.graph.node if node.op_type == op][index]
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])
    return model


SETTINGS = {
    "strides": (changed("Conv", strides=[1, 1]), "conv1 has strides 2, and conv_0 has 1"),
    "pads": (changed("Conv", pads=[2, 2, 3, 3]), "conv1 has pads 3, and conv_0 has (2, 2, 3, 3)"),
    "pads by name": (changed("Conv", auto_pad="SAME_UPPER"), "conv1 has pads 3, and conv_0 has (2, 2, 3, 3)"),
    "pads by another name": (changed("Conv", auto_pad="SAME_LOWER"), "conv1 has pads 3, and conv_0 has (3, 3, 2, 2)"),
    "no pads by name": (changed("Conv", auto_pad="VALID"), "conv1 has pads 3, and conv_0 has 0"),
    "dilations": (changed("Conv", 2, dilations=[2, 2]), "layer1.0.conv1 has dilations 1, and "),
    "a window": (changed("MaxPool", kernel_shape=[2, 2]), "has kernel 3, and maxpool_3 has 2"),
    "where it begins": (changed("MaxPool", pads=[0, 0, 1, 1]), "has pads 1, and maxpool_3 has 0"),
    "a map": (changed("MaxPool", pads=[1, 1, 2, 2]), "has map 16, and maxpool_3 has 17"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_shapes_do_not_show(saved, case):
    model, expected = SETTINGS[case]
    assert expected in refusal(small_resnet(), saved(model))


def test_order_that_shapes_do_not_show(saved):
    """CaffeNet has bvlc_alexnet's shapes, and pools before it normalizes."""
    text = refusal(small_alexnet(), saved(zoo.alexnet(small_alexnet(), swapped=True)), 227)
    assert "lrn after " not in text.splitlines()[0]
    assert "is a step of another kind in the file" in text


def test_normalization_by_another_convention(saved):
    """The paper's alpha and k are not Caffe's."""
    text = refusal(small_alexnet(caffe=False), saved(zoo.alexnet(small_alexnet())), 227)
    assert "has alpha 0.0005, and lrn_2 has 0.0001" in text
    assert "\n  lrn has bias 2, and lrn_2 has 1" in text


def test_another_depth_is_named(saved):
    net = small_resnet()
    net.layer2.pop(1)
    text = refusal(small_resnet(), saved(zoo.resnet(net)))
    assert "3 layers missing: 1 conv (128, 128, 3, 3), 1 conv (512, 128, 1, 1), 1 conv (128, 512, 1, 1)\n" in text


def test_a_bias_that_there_is_no_place_for(saved):
    net = small_resnet()
    net.bn1 = nn.Identity()
    assert "conv1 has no bias, and conv_0 has one" in refusal(net, saved(zoo.resnet(small_resnet(), "folded")))


def test_sides_that_cannot_be_told_apart(saved):
    """Two equal branches into a sum: either could be either."""

    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.a(x) + self.b(x)

    with torch.device("meta"):
        net = Twins().eval()
    w = zoo.Writer()
    answer = w.node("Add", w.conv("data_0", net.a), w.conv("data_0", net.b))
    info = [helper.make_tensor_value_info(name, 1, ["N", c, 8, 8]) for name, c in (("data_0", 3), (answer, 4))]
    path = saved(helper.make_model(helper.make_graph(w.nodes, "g", info[:1], info[1:], w.initializers)))
    assert "adds two things of the same shapes, and so does add_2: which is which is open" in refusal(net, path, 8)


def test_two_answers_from_different_weights(saved):
    one, other = zoo.resnet(small_resnet()), zoo.resnet(small_resnet(), "folded")
    merged = onnx.compose.merge_models(
        onnx.compose.add_prefix(one, "a_", rename_inputs=True), onnx.compose.add_prefix(other, "b_"), io_map=[]
    )
    assert "has 2 outputs that compute what net does, from different weights" in refusal(small_resnet(), saved(merged))


def test_missing_initializers_are_named(saved):
    model = zoo.alexnet(small_alexnet())
    names = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    kept = [t for t in model.graph.initializer if t.name not in names[:2]]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path = saved(model)
    assert refusal(small_alexnet(), path, 227) == (
        f"{path} lacks the initializers {names[0]}, {names[1]}\n"
        "  fix: it holds a graph without its weights; save it with them"
    )


def test_constants_that_cannot_be_computed(saved):
    model = dense_as_matmul(zoo.resnet(small_resnet()))
    (node,) = [node for node in model.graph.node if node.op_type == "Transpose"]
    node.attribute[0].ints[:] = [3, 0]
    assert f"{node.output[0]}, which Transpose makes from constants, cannot be computed" in refusal(
        small_resnet(), saved(model)
    )


def test_a_quantized_graph(saved):
    text = refusal(small_resnet(), saved(onnx.load_model_from_string(models.net_int8())))
    assert "is quantized (DequantizeLinear " in text
    assert "fix: save it with float32 weights" in text


def test_steps_that_no_network_has(saved):
    """Normalization of the image within the graph is named, not guessed at."""

    def change(node):
        if node.input[0] != "data_0":
            return [node]
        node.input[0] = "centred"
        return [helper.make_node("Sub", ["data_0", mean], ["centred"], name="centre"), node]

    model = zoo.resnet(small_resnet())
    mean = "mean"
    model.graph.initializer.append(numpy_helper.from_array(np.float32([[[0.5]]]), mean))
    assert "input is a step of another kind in the file: Sub, centre" in refusal(
        small_resnet(), saved(rewritten(model, change))
    )


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("pads", [0, 0, 0]), ("pads", [0, 0, 0, -1]), ("strides", [0, 1]), ("strides", [1]), ("dilations", [1, 1, 1])],
)
def test_a_window_that_does_not_move(saved, attribute, value):
    """One number an axis, or two for padding; a stride of nothing would divide by zero."""

    def change(node):
        if node.op_type == "MaxPool":
            kept = [each for each in node.attribute if each.name != attribute]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(attribute, value)])
        return [node]

    text = refusal(small_resnet(), saved(rewritten(zoo.resnet(small_resnet()), change)))
    assert f"(MaxPool) is not as the standard has it: {attribute} {value} for a window over 2 axes" in text
    assert "fix: copy or export it again" in text


@pytest.mark.parametrize("content", [b"\x00" * 9, b"no graph at all" * 9, bytes(range(256)), b"\x08\x07"])
def test_no_graph(tmp_path, content):
    (tmp_path / "w.onnx").write_bytes(content)
    text = refusal(small_resnet(), tmp_path / "w.onnx")
    assert "is damaged, or " in text
    assert "fix: copy or download it again" in text


def tiny():
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()


def tiny_bytes():
    w, net = zoo.Writer(), tiny()
    x = w.flat(w.node("Relu", w.conv("data_0", net[0])), 8)
    return w.proto(w.dense(x, net[3]), 3, 2).SerializeToString()


TINY = tiny_bytes()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_graph_is_an_error_or_still_weights(tmp_path, data):
    """Cut anywhere, or with some bytes altered: never a traceback."""
    content = bytearray(TINY)
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(1, len(content) - 1), "at") :]
    for _ in range(data.draw(st.integers(1, 3), "alterations")):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "w.onnx"
    path.write_bytes(content)
    try:
        state = fitting(tiny(), path, "tiny", (3, 2, 2))
    except ArtifactError as error:
        state, refusal = {}, error
    else:
        refusal = None
    assert [tuple(value.shape) for value in state.values()] in ([], [(3, 8), (3,), (2, 3, 1, 1), (2,)])
    assert refusal is None or (str(path) in refusal.what and refusal.fix)
