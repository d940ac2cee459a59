"""TensorRT for RTX builds AlexNet and GoogLeNet with the plugin, without a GPU; engines hold the model's attributes."""

import re
import struct

import pytest
from onnx import helper, load_model_from_string

from dlcv_deploy import backends
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.lrn import lower_lrn
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.plugin.library import OPS
from dlcv_deploy.types import CompileOptions

PAPER = {"size": 5, "alpha": 5e-4, "beta": 0.75, "bias": 2.0}
"""Section 3.3 of the paper, alpha times the window in ONNX's terms."""
POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
CAFFE = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
NETWORKS = {
    "alexnet": [("DlcvLRNMaxPool", {**PAPER, **POOL, "pads": [0] * 4})] * 2,
    "googlenet": [("DlcvLRN", CAFFE), ("DlcvLRNMaxPool", {**CAFFE, **POOL, "pads": [0, 0, 1, 1]})],
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(need, request):
    """A network of the catalogue with drawn weights, as ONNX."""
    need("torch", "tensorrt_rtx")
    from dlcv_deploy.export import export
    from dlcv_deploy.models import catalogue

    known = catalogue.network(request.param)
    net = catalogue.build(known).eval()
    return export(request.param, net, known.input_shape, outputs=("logits",), weights_sha256="")


@pytest.fixture(params=["fp32", "fp16", "int8"])
def lowered(network, request):
    """It at a precision, lowered; INT8 with ranges that serve the purpose, and FP16 in between."""
    model = load_model_from_string(network.onnx)
    if request.param == "fp16":
        model, _ = to_half(model)
    elif request.param == "int8":
        ranges = {tensor: 0.5 + i / 8 for i, tensor in enumerate(quantizable(model))}
        model, _ = to_half(load_model_from_string(quantize(network, ranges, through_lrn=True).model.onnx))
    return lower_lrn(model)


def attributes(node):
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def told(engine):
    """The plugins that an engine serializes, with their fields: name and NUL, its length before; type; count; data."""
    found = []
    for start in re.finditer(rb"\x05\0\0\0size\0", engine):
        at, fields = start.start(), {}
        while True:
            (length,) = struct.unpack_from("<i", engine, at)
            name = engine[at + 4 : at + 3 + length].decode("latin1")
            if not (1 < length < 20 and name.replace("_", "").isalpha()):
                break
            kind, count = struct.unpack_from("<ii", engine, at + 4 + length)
            fields[name] = list(struct.unpack_from(f"<{count}{'i' if kind == 5 else 'f'}", engine, at + 12 + length))
            at += 12 + length + 4 * count
        found.append(fields)
    return found


def test_every_node_becomes_a_plugin_layer_with_its_attributes(request, lowered, plugin_library):
    wanted = NETWORKS[request.node.callspec.params["network"]]
    nodes = [node for node in lowered.model.graph.node if node.op_type in OPS]
    assert [node.op_type for node in nodes] == [op for op, _ in wanted]
    assert not any(node.op_type == "LRN" for node in lowered.model.graph.node)
    options = CompileOptions(plugin=plugin_library.data, sm=(86, 89))
    made = backends.get("tensorrt_rtx").compile(lowered.model.SerializeToString(), options)
    (engine,) = [data for name, data in made.files.items() if name.endswith(".engine")]
    layers = told(engine)
    assert len(layers) == len(nodes)
    for node, (_, expected) in zip(nodes, wanted, strict=True):
        given = attributes(node)
        scales = {name: given.pop(name) for name in ("input_scale", "output_scale") if name in given}
        assert given == {name: pytest.approx(value) if name != "pads" else value for name, value in expected.items()}
        assert bool(scales) == (request.node.callspec.params["lowered"] == "int8")
        whole = {"input_scale": 0.0, "output_scale": 0.0, **scales, **given}
        plain = {name: list(value) if isinstance(value, list) else [value] for name, value in whole.items()}
        assert plain in layers
