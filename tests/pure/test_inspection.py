"""Graphs are run beside the fp32 graph, and the layer whose scale was tampered with is the one that is named."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import models
from onnx import helper, load_model_from_string, numpy_helper
from onnx.reference import ReferenceEvaluator

from dlcv_deploy import inspection
from dlcv_deploy.calibration.collect import observed
from dlcv_deploy.graph.equalize import equalization
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.layers import INPUT, layers
from dlcv_deploy.graph.modules import KEY
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.inspection import drift_of, inconsistent
from dlcv_deploy.parity.values import Check, Consistency
from dlcv_deploy.types import Corrections, ExportedModel

pytest.importorskip("onnxruntime")

BLOCKS = 4


def residual():
    """x (N, 3, 8, 8) -> y (N, 5): a stem, four residual blocks of two convolutions, a pool and a classifier."""
    rng, nodes, held = np.random.default_rng(0), [], {}

    def add(op, inputs, output, module="", **attributes):
        node = helper.make_node(op, inputs, [output], f"n_{output}", **attributes)
        if module:
            node.metadata_props.add(key=KEY, value=module)
        nodes.append(node)
        return output

    def conv(x, output, channels, module):
        held[f"{output}_w"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, (8, channels, 3, 3)).astype(np.float32)
        return add("Conv", [x, f"{output}_w"], output, module, pads=[1] * 4)

    x = add("Relu", [conv("x", "stem", 3, "conv1")], "stem_r")
    for i in range(BLOCKS):
        main = add("Relu", [conv(x, f"a{i}", 8, f"layer{i}.conv1")], f"a{i}_r")
        main = conv(main, f"b{i}", 8, f"layer{i}.conv2")
        x = add("Relu", [add("Add", [main, x], f"s{i}", f"layer{i}")], f"s{i}_r")
    held["fc_w"] = rng.normal(0, 0.3, (8, 5)).astype(np.float32)
    x = add("Flatten", [add("GlobalAveragePool", [x], "pool", "pool")], "flat")
    add("Gemm", [x, "fc_w"], "y", "fc")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["N", 5])],
        [numpy_helper.from_array(v, k) for k, v in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    return model.SerializeToString()


NET, IMAGES = residual(), models.images(16)
MODEL = load_model_from_string(NET)
LAYERS = ["conv1", *(f"layer{i}{part}" for i in range(BLOCKS) for part in (".conv1", ".conv2", "")), "pool", "fc"]
OWNER = {"x": "x", "stem_r": "conv1", "flat": "pool"}
OWNER |= {f"{t}{i}_r": f"layer{i}{m}" for i in range(BLOCKS) for t, m in (("a", ".conv1"), ("s", ""))}
del OWNER[f"s{BLOCKS - 1}_r"]  # no int8 layer reads it


def seen():
    """Each tensor that INT8 needs a range of, on the images."""
    tensors = quantizable(MODEL)
    graph = load_model_from_string(observed(NET, tensors))
    found = dict(
        zip([o.name for o in graph.graph.output], ReferenceEvaluator(graph).run(None, {"x": IMAGES}), strict=True)
    )
    return {t: {"x": IMAGES, **found}[t] for t in tensors}


SEEN = seen()
AMAX = {name: float(np.abs(x).max()) for name, x in SEEN.items()}


def int8(amax=AMAX, corrections=Corrections()):  # noqa: B008 - frozen
    return quantize(ExportedModel("net", NET, (), (), "0" * 64), amax, corrections).model.onnx


def drifted(onnx, corrections=Corrections(), precision="int8", images=IMAGES):  # noqa: B008 - frozen
    return drift_of(NET, onnx, images, corrections, precision)


def test_a_sound_int8_graph_has_no_outlier():
    found = drifted(int8())
    assert (found.graph, found.images, found.outlier, found.unmatched) == ("int8 graph", 16, "", 0)
    assert [layer.module for layer in found.layers] == ["x", *LAYERS]
    assert found.layers[0].op_type == "Input"
    assert all(15 < layer.sqnr_db < 60 and 0.98 < layer.cosine < 1 for layer in found.layers)


def test_the_tensor_whose_scale_is_an_eighth_is_named():
    assert set(OWNER) == set(AMAX)
    named = {t: drifted(int8({**AMAX, t: AMAX[t] / 8})).outlier for t in AMAX}
    assert named == OWNER


def test_a_scale_eight_times_too_large_is_named_where_it_is_felt():
    """Its rounding noise is 64 times as much, 18 dB; between good layers that is out of line, among much noise not."""
    assert drifted(int8({**AMAX, "a0_r": AMAX["a0_r"] * 8})).outlier == "layer0.conv1"
    last = drifted(int8({**AMAX, "flat": AMAX["flat"] * 8}))
    assert last.outlier == ""
    assert last.layers[-1].sqnr_db > 20
    named = {t: drifted(int8({**AMAX, t: AMAX[t] * 32})).outlier for t in AMAX}
    assert named == OWNER


def test_fp16_is_near_and_in_line():
    half, _ = to_half(MODEL)
    found = drifted(half.SerializeToString(), precision="fp16")
    assert (found.outlier, found.unmatched) == ("", 0)
    assert [layer.module for layer in found.layers] == ["x", *LAYERS]
    assert all(layer.sqnr_db > 50 for layer in found.layers)


def test_the_graph_itself_does_not_differ_at_all():
    found = drifted(NET)
    assert [layer.module for layer in found.layers] == LAYERS  # the input is not rounded: it is no entry
    assert {(layer.sqnr_db, layer.cosine) for layer in found.layers} == {(float("inf"), 1.0)}


def test_equalized_channels_are_scaled_back():
    peaks = {t: np.abs(x).max((0, *range(2, x.ndim))) for t, x in SEEN.items()}
    corrections = Corrections(equalization=equalization(MODEL, peaks, tuple(SEEN)))
    assert corrections.equalization
    amax = dict(AMAX)  # a channel is divided by 1 at most: the largest magnitude of a tensor stays about what it was
    onnx = int8(amax, corrections)
    assert all(layer.sqnr_db > 15 for layer in drifted(onnx, corrections).layers)
    assert min(layer.sqnr_db for layer in drifted(onnx).layers) < 10  # as they are, they are far apart


def test_a_few_images_at_a_time_give_the_same(monkeypatch):
    whole = drifted(int8())
    monkeypatch.setattr(inspection, "_VALUES", 1)
    for one, other in zip(whole.layers, drifted(int8()).layers, strict=True):
        assert one.sqnr_db == pytest.approx(other.sqnr_db, rel=1e-5)


def test_a_failed_check_is_a_warning():
    checks = (Check("threads", False, "4 threads"), Check("equal rows", True, ""), Check("batch sizes", None, ""))
    found = (Consistency("int8 on openvino", checks), Consistency("int8 on tensorrt", (), "no GPU"))
    assert inconsistent(found) == ("int8 on openvino does not agree with itself (threads): 4 threads",)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "alexnet-cifar10", "googlenet-cifar10"])
def test_bundled_networks_are_in_line_until_a_scale_is_wrong(name):
    """On drawn images, which clip more than photographs do."""
    pytest.importorskip("torch")
    from dlcv_deploy.calibration.samples import drawn
    from dlcv_deploy.calibration.table import bundled
    from dlcv_deploy.export import export
    from dlcv_deploy.models import catalogue, own
    from dlcv_deploy.proof import pixels_of

    network = catalogue.network(name)
    loaded = own.load(network, None)
    table = bundled(loaded.weights_sha256)
    model = export(name, loaded.net, network.input_shape, outputs=("logits",), weights_sha256=loaded.weights_sha256)
    images = pixels_of(drawn(32, 32), table.preprocess, 32)

    def outlier_with(**wrong):
        onnx = quantize(model, {**table.amax, **wrong}, table.corrections).model.onnx
        return drift_of(model.onnx, onnx, images, table.corrections, "int8").outlier

    assert outlier_with() == ""
    model_layers = layers(load_model_from_string(model.onnx))
    ends = {layer.tensor: layer.module for layer in model_layers if layer.op_type != INPUT}
    read = [t for t in table.amax if t in ends and not t.startswith(("max_pool", "relu_1_", "relu_2_"))]  # own scales
    for tensor in read[::4]:
        assert outlier_with(**{tensor: table.amax[tensor] / 8}) == ends[tensor], tensor
