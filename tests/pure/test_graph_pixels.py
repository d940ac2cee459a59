"""The image in its own 256 levels: the same network, and an INT8 input without an error."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import models
from onnx import helper, load_model_from_string
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.graph.pixels import own, to_pixels
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.models import catalogue
from dlcv_deploy.models.catalogue import NETWORKS
from dlcv_deploy.types import Corrections, ExportedModel, Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPARED = [*(n.preprocess for n in NETWORKS.values()), *vars(catalogue).values()]
NORMALIZED = sorted({(p.mean, p.std) for p in PREPARED if isinstance(p, Preprocess)})


def image(mean=MEAN, std=STD, side=16):
    """Every byte in every channel, as networks take it: (1, 3, 16, 16)."""
    levels = np.stack([np.roll(np.arange(256), shift) for shift in (0, 77, 154)]).reshape(1, 3, 16, 16)
    x = levels.astype(np.float32) / np.float32(255)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (mean, std))
    return ((x - mean) / std)[..., :side, :side], levels[..., :side, :side]


def first(attributes="", bias=True, kernel=3, channels=3, **more):
    text = f"""g (float[N,{channels},16,16] x) => (float[N,4,H,W] y) {{
      [conv_1] y = Conv{f"<{attributes}>" if attributes else ""}(x, w{", b" if bias else ""})
    }}"""
    weights = {"w": models.weights(4, channels, kernel, kernel)} | ({"b": models.weights(4)} if bias else {}) | more
    return load_model_from_string(models.model(text, **weights))


def run(model, x):
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "attributes",
    [
        "strides=[1,1]",
        "pads=[1,1,1,1]",
        "pads=[0,1,2,3], strides=[2,1]",
        "pads=[2,2,2,2], dilations=[2,2]",
        'auto_pad="NOTSET"',
    ],
)
def test_the_network_computes_the_same(attributes, bias):
    model = first(attributes, bias)
    x, _ = image()
    before = run(model, x)
    assert to_pixels(model, MEAN, STD) == "x_levels"
    after = run(model, x)
    assert after.shape == before.shape
    assert np.abs(after - before).max() <= 2e-5


@pytest.mark.parametrize(("mean", "std"), [*NORMALIZED, ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((0.5,) * 3, (0.5,) * 3)])
def test_the_quantized_image_is_exact(mean, std):
    model = first("pads=[1,1,1,1]")
    exported = ExportedModel("net", model.SerializeToString(), (), (), "0" * 64)
    made = load_model_from_string(quantize(exported, {"x": 2.0}, Corrections(pixels=(mean, std))).model.onnx)
    (pair,) = (n for n in made.graph.node if n.op_type == "QuantizeLinear")
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info(pair.output[0], 3, None))
    x, levels = image(mean, std)
    inner = run(made, x)[..., 1:-1, 1:-1]
    assert (inner.astype(int) == levels - 128).all()
    assert (inner.min(), inner.max()) == (-128, 127)


def test_int8_with_levels_is_closer_than_with_a_range():
    model = first("pads=[1,1,1,1]")
    exported = ExportedModel("net", model.SerializeToString(), (), (), "0" * 64)
    x, _ = image()
    wanted = run(model, x)
    errors = []
    for pixels in (None, (MEAN, STD)):
        result = quantize(exported, {"x": float(np.abs(x).max())}, Corrections(pixels=pixels))
        assert result.quantized == ("conv_1",)
        assert {left.op_type for left in result.left_alone} == ({"Mul", "Add"} if pixels else set())
        errors.append(np.square(run(load_model_from_string(result.model.onnx), x) - wanted).mean())
    assert errors[1] < errors[0]


GROUPED = first("group=3", bias=False, w=models.weights(6, 1, 3, 3))
CHANNEL = first(channels=1, bias=False)


@pytest.mark.parametrize(
    "text",
    [
        "[conv_1] y = Conv<group=2>(x, w2)",
        '[conv_1] y = Conv<auto_pad="SAME_UPPER">(x, w)',
        '[conv_1] y = Conv<auto_pad="VALID">(x, w)',
        "[conv_1] c = Conv(x, w) [relu] r = Relu(x) [conv_2] d = Conv(r, w) [sum] y = Add(c, d)",
        "[relu] r = Relu(x) [conv_1] y = Conv(r, w)",
        "[w] v = Identity(w) [conv_1] y = Conv(x, v)",
        "[flat] f = Flatten(x) [fc] y = MatMul(f, m)",
    ],
)
def test_where_it_does_not_apply_nothing_changes(text):
    weights = {"w": models.weights(4, 4, 3, 3), "w2": models.weights(4, 2, 3, 3), "m": models.weights(256, 2)}
    onnx = models.model(f"g (float[N,4,8,8] x) => (float[N,4,H,W] y) {{ {text} }}", **weights)
    model = load_model_from_string(onnx)
    assert to_pixels(model, (0.5,) * 4, (0.25,) * 4) == ""
    assert model.SerializeToString(deterministic=True) == onnx
    assert own("", model.graph) == frozenset()


@pytest.mark.parametrize("model", [CHANNEL, first(channels=4)])
def test_another_number_of_channels_is_left(model):
    assert to_pixels(model, MEAN, STD) == ""


def test_one_dimension_is_left():
    text = "g (float[N,3,8] x) => (float[N,4,6] y) { [conv_1] y = Conv(x, w) }"
    assert to_pixels(load_model_from_string(models.model(text, w=models.weights(4, 3, 3))), MEAN, STD) == ""


def test_a_returned_input_does_not_matter():
    model = first()
    model.graph.node.append(helper.make_node("Identity", ["x"], ["image"], "tap"))
    model.graph.output.append(helper.make_tensor_value_info("image", 1, ["N", 3, 16, 16]))
    x, _ = image()
    before = run(model, x)
    assert to_pixels(model, MEAN, STD) == "x_levels"
    after, tapped = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.abs(after - before).max() <= 2e-5
    assert (tapped == x).all()


def test_its_nodes_are_told_from_the_networks_own():
    model = first("pads=[1,1,1,1]")
    levels = to_pixels(model, MEAN, STD)
    assert own(levels, model.graph) == {"x_levels_pad", "x_levels_mul", "x_levels_add"}


def test_the_range_of_the_input_does_not_matter_then():
    exported = ExportedModel("net", first().SerializeToString(), (), (), "0" * 64)
    assert quantizable(first()) == ("x",)
    made = [quantize(exported, {"x": amax}, Corrections(pixels=(MEAN, STD))).model.onnx for amax in (0.0, 1.0, 2.6)]
    assert made[0] == made[1] == made[2]


def test_a_first_layer_that_stays_in_float_reads_the_image_as_it_is():
    text = "g (float[N,3,16,16] x) => (float[N,4,H,W] y) { [conv_1] c = Conv(x, w) [conv_2] y = Conv(c, v) }"
    onnx = models.model(text, w=models.weights(4, 3, 3, 3), v=models.weights(4, 4, 1, 1))
    exported = ExportedModel("net", onnx, (), (), "0" * 64)
    made = quantize(exported, {"x": 1.0, "c": 1.0}, Corrections(pixels=(MEAN, STD), float_nodes=("conv_1",)))
    assert "x_levels" not in {t for n in load_model_from_string(made.model.onnx).graph.node for t in n.input}
    assert made.quantized == ("conv_2",)
