"""Preprocessing in the graph: the same numbers as in Python, bit for bit where nothing but it is computed."""

import numpy as np
import pytest
from helpers import models
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper, load_model_from_string

from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.bake import bake
from dlcv_deploy.models import catalogue
from dlcv_deploy.models.catalogue import NETWORKS
from dlcv_deploy.parity.compare import softmax
from dlcv_deploy.parity.crops import crops, to_input
from dlcv_deploy.types import Preprocess

PRE = Preprocess(8, 11, "resize", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PREPARED = [*(n.preprocess for n in NETWORKS.values()), *(p for p in vars(catalogue).values() if type(p) is Preprocess)]
NORMALIZED = sorted({(p.mean, p.std) for p in PREPARED})
BYTES = np.stack([np.roll(np.arange(256), shift) for shift in (0, 77, 154)], axis=-1)
EVERY = BYTES.reshape(4, 8, 8, 3).astype(np.uint8)
"""Every byte in every channel."""


def parsed(onnx):
    return load_model_from_string(onnx)


def same():
    """x (N, 3, 8, 8) -> y, the same."""
    return parsed(models.model("g (float[N,3,8,8] x) => (float[N,3,8,8] y) { [same] y = Identity(x) }"))


def read(batch=5, seed=3, side=8):
    return np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), np.uint8)


def answer(model, **feeds):
    checker.check_model(model, full_check=True)
    return models.reference(model.SerializeToString(), feeds)


def with_output(model, tensor, shape):
    model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape))
    return model


@pytest.mark.parametrize(("mean", "std"), NORMALIZED)
def test_pixels_become_the_bits_of_to_input(mean, std):
    pre = Preprocess(8, 8, "pad", mean, std)
    found = answer(bake(same(), pre, uint8=True), pixels=EVERY)["y"]
    assert found.dtype == np.float32
    assert np.array_equal(found, to_input(EVERY, pre))


@pytest.mark.parametrize(("mean", "std"), NORMALIZED[:2])
def test_onnx_runtime_gives_these_bits_too(need, mean, std):
    need("onnxruntime")
    import onnxruntime

    pre = Preprocess(8, 8, "pad", mean, std)
    onnx = bake(same(), pre, uint8=True).SerializeToString()
    (found,) = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]).run(None, {"pixels": EVERY})
    assert np.array_equal(found, to_input(EVERY, pre))


def test_the_input_is_plain_pixels_and_the_rest_stays():
    before = parsed(models.net())
    after = bake(before, PRE, uint8=True)
    (tensor,) = after.graph.input
    assert (tensor.name, tensor.type.tensor_type.elem_type) == ("pixels", TensorProto.UINT8)
    assert [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim] == ["N", 8, 8, 3]
    assert [n.op_type for n in after.graph.node[:4]] == ["Cast", "Transpose", "Mul", "Add"]
    assert after.graph.node[3].output == ["x"]
    assert list(after.graph.node[4:]) == list(before.graph.node)
    assert after.graph.output == before.graph.output
    assert parsed(models.net()) == before


@given(size=st.integers(1, 8), more=st.integers(0, 5), batch=st.integers(1, 3))
def test_the_ten_crops_are_those_of_crops(size, more, batch):
    pre = Preprocess(size, size + more, "resize", PRE.mean, PRE.std)
    text = f"g (float[N,3,{size},{size}] x) => (float[N,{3 * size * size}] y) {{ [flat] y = Flatten(x) }}"
    canvases = read(batch, side=size + more)
    expected = np.concatenate([to_input(crops(c, pre, 10), pre) for c in canvases])  # image by image
    expected = expected.reshape(batch, 10, 3, size, size).transpose(1, 0, 2, 3, 4).reshape(-1, 3, size, size)
    for uint8, name, fed in ((True, "pixels", canvases), (False, "canvas", to_input(canvases, pre))):
        model = bake(parsed(models.model(text)), pre, uint8=uint8, ten_crop=True)
        found = answer(with_output(model, "x", ["M", 3, size, size]), **{name: fed})["x"]
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("network", [models.net, models.net_int8, models.net_fp16])
@pytest.mark.parametrize("uint8", [True, False])
def test_the_mean_of_ten_softmaxes(network, uint8):
    canvases = read(3, side=11)
    rows = to_input(np.concatenate([crops(c, PRE, 10) for c in canvases]), PRE)
    expected = softmax(models.reference(network(), {"x": rows})["y"]).reshape(3, 10, 5).mean(1)
    model = bake(parsed(network()), PRE, uint8=uint8, ten_crop=True)
    fed = {"pixels": canvases} if uint8 else {"canvas": to_input(canvases, PRE)}
    found = answer(model, **fed)
    assert list(found) == ["probabilities"]
    assert found["probabilities"].shape == (3, 5)
    assert np.abs(found["probabilities"] - expected).max() <= (2e-3 if network is models.net_fp16 else 1e-6)


def test_ten_crops_drop_the_other_outputs_and_what_computes_them():
    model = bake(parsed(models.model(
        """g (float[N,3,8,8] x) => (float[N,5] y, float[N,3,8,8] map) {
          [flat] f = Flatten(x) [fc] y = Gemm(f, w) [map] map = Mul(x, only_there)
        }""", w=models.weights(192, 5), only_there=models.weights(1))), PRE, ten_crop=True)  # fmt: skip
    assert [o.name for o in model.graph.output] == ["probabilities"]
    assert "Mul" not in [n.op_type for n in model.graph.node]
    assert "only_there" not in [i.name for i in model.graph.initializer]


def test_pixels_alone_keep_all_outputs():
    model = bake(parsed(models.returning()), PRE, uint8=True)
    assert [o.name for o in model.graph.output] == [o.name for o in parsed(models.returning()).graph.output]


def test_names_that_are_taken_are_left_to_their_owners():
    text = "g (float[N,3,8,8] pixels) => (float[N,192] probabilities) { [flat] probabilities = Flatten(pixels) }"
    plain, ten = parsed(models.model(text)), parsed(models.model(text))
    assert bake(plain, PRE, uint8=True).graph.input[0].name == "pixels_2"
    assert bake(ten, PRE, ten_crop=True).graph.output[0].name == "probabilities_2"


@pytest.mark.parametrize(
    ("onnx", "how", "message"),
    [
        (models.net(), {}, "nothing is to be put before the network"),
        (models.two_inputs(), {"uint8": True}, "the network has 2 inputs, and pixels go into one"),
        (models.linear(), {"uint8": True}, "input 'x' is float N x 6, not float32 N x 3 x 8 x 8"),
        (models.lrn_net(), {"ten_crop": True}, "output 'y' is no row of float32 logits"),
        (
            models.model("g (float[2,3,8,8] x) => (float[2,192] y) { y = Flatten(x) }"),
            {"uint8": True},
            "the network has a fixed batch of 2",
        ),
    ],
)
def test_what_cannot_be_baked(onnx, how, message):
    with pytest.raises(SpecError) as error:
        bake(parsed(onnx), PRE, **how)
    assert error.value.what.startswith(message)


def test_an_old_operator_set():
    model = parsed(models.net())
    model.opset_import[0].version = 17
    with pytest.raises(SpecError, match="ten crops take opset 18, and the network has 17"):
        bake(model, PRE, ten_crop=True)
