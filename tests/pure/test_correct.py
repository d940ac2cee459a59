"""Corrections layer by layer: what is simulated is what the INT8 graph computes, and what each of them is for."""

from __future__ import annotations

import dataclasses as dc

import numpy as np
import pytest
from helpers import models
from onnx import helper, load_model_from_string

from dlcv_deploy import backends
from dlcv_deploy.calibration import correct as module
from dlcv_deploy.calibration.correct import _fit, correct, images_for, rounded
from dlcv_deploy.calibration.recipe import PRESETS, Recipe
from dlcv_deploy.calibration.step import Steps
from dlcv_deploy.graph.qdq import prepare, quantizable, quantize
from dlcv_deploy.types import Corrections, Engine, ExportedModel

PIXELS = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
ALL = (*PRESETS.values(), Recipe(norm=True), Recipe(rounding=True), Recipe(bias=True, sums=False, pixels=False))

NETWORK = """g (float[N,3,8,8] x) => (float[N,5] y) {
  [conv_1] c = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [relu_1] r = Relu(c)
  [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  [conv_2] d = Conv<pads=[1,1,1,1], group=2>(p, w2)
  [sum_1] s = Add(d, p)
  [relu_2] t = Relu(s)
  [left] u, v = Split<axis=1, num_outputs=2>(t)
  [conv_3] e = Conv(u, w3, b3)
  [join] j = Concat<axis=1>(e, v)
  [size] n = Shape<start=0, end=1>(j)
  [rest] m = Concat<axis=0>(n, width)
  [flat] f = Reshape(j, m)
  [fc_1] g = MatMul(f, w4)
  [relu_3] h = Relu(g)
  [fc_2] y = Gemm<transB=1>(h, w5, b5)
}"""


def network():
    weights = {"w1": models.weights(8, 3, 3, 3), "b1": models.weights(8), "w2": models.weights(8, 4, 3, 3, seed=2)}
    weights |= {"w3": models.weights(4, 4, 1, 1, seed=3), "b3": models.weights(4, seed=4), "width": np.array([128])}
    weights |= {"w4": models.weights(128, 6, seed=5), "w5": models.weights(5, 6, seed=6), "b5": models.weights(5)}
    return exported(models.model(NETWORK, **weights))


def exported(onnx):
    return ExportedModel("net", onnx, (), (), "0" * 64)


def images(count=40):
    levels = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8)).astype(np.float32) / np.float32(255)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in PIXELS)
    return (levels - mean) / std


@pytest.fixture(autouse=True)
def _runtime(need):
    need("onnxruntime")


def load(onnx):
    backend = backends.get("onnxruntime")
    return backend.load(Engine(backend.name, "CPU", "", {backend.FILE: onnx}))


def run(onnx, x):
    with load(onnx) as session:
        parts = [session.run({session.inputs[0].name: part}) for part in np.split(x, range(10, len(x), 10))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def all_tensors(onnx, *tensors):
    """The graph with inner tensors as outputs."""
    model = load_model_from_string(onnx)
    model.graph.output.extend(helper.make_tensor_value_info(t, 1, None) for t in tensors)
    return model.SerializeToString()


def ranges(model, x, tensors=None):
    names = tensors or quantizable(load_model_from_string(model.onnx))
    values = run(all_tensors(model.onnx, *(n for n in names if n != "x")), x) | {"x": x}
    return {name: float(np.abs(values[name]).max()) for name in names}


def made(recipe):
    return Corrections(pixels=PIXELS if recipe.pixels else None, float_sums=not recipe.sums)


@pytest.mark.parametrize("recipe", ALL, ids=str)
def test_what_is_simulated_is_what_the_int8_graph_computes(recipe, monkeypatch):
    model, x, walks = network(), images(), []

    class Kept(module._Walk):
        def __init__(self, *args):
            super().__init__(*args)
            walks.append(self)

    monkeypatch.setattr(module, "_Walk", Kept)
    amax = ranges(model, x)
    corrections = correct(model, amax, made(recipe), x, load, dc.replace(recipe, equalize=False))
    if not recipe.corrects:
        assert corrections == made(recipe)
        assert not walks
        return
    (walk,) = walks
    assert {*walk._fp} == {*walk._int8} == {"y"}  # all others were let go
    result = quantize(model, amax, corrections)
    assert {"conv_1", "conv_2", "conv_3", "fc_1", "fc_2"} <= set(result.quantized)
    assert ("sum_1" in result.quantized) == recipe.sums
    assert np.allclose(walk._fp["y"], run(model.onnx, x)["y"], atol=1e-4)
    wanted = run(result.model.onnx, x)["y"]
    error = np.abs(walk._int8["y"] - wanted).max(1)
    step = amax["h"] / 127
    assert np.median(error) <= 1e-4
    assert error.max() <= 3 * step  # sums in another order may fall on the other side of a step's edge


@pytest.mark.parametrize("norm", [False, True])
def test_the_means_of_all_channels_become_those_of_the_original(norm):
    text = "g (float[N,3,8,8] x) => (float[N,8,8,8] y) { [conv] y = Conv<pads=[1,1,1,1]>(x, w) }"
    model, x = exported(models.model(text, w=models.weights(8, 3, 3, 3))), images()
    amax = {"x": 1.5}  # much is clipped
    before, wanted = run(quantize(model, amax).model.onnx, x)["y"], run(model.onnx, x)["y"]
    assert np.abs(before.mean((0, 2, 3)) - wanted.mean((0, 2, 3))).max() > 0.01
    corrections = correct(model, amax, Corrections(), x, load, Recipe(bias=True, norm=norm))
    after = run(quantize(model, amax, corrections).model.onnx, x)["y"]
    assert np.abs(after.mean((0, 2, 3)) - wanted.mean((0, 2, 3))).max() < 1e-5
    assert (set(corrections.gain), set(corrections.bias)) == ({"conv"} if norm else set(), {"conv"})


def test_norm_is_never_worse_in_squares_than_bias():
    rng = np.random.default_rng(0)
    for power in (1e-6, 0.3, 1.0, 4.0, 1e6):
        wanted = rng.normal(1, 2, (20, 6, 4, 4)).astype(np.float32)
        got = (wanted * power + rng.normal(0, 1, wanted.shape) * rng.uniform(-3, 3, (6, 1, 1))).astype(np.float32)
        got[:, 5] = 2.5  # constant
        errors = []
        for scaled in (False, True):
            gain, shift = (
                v.reshape(1, -1, 1, 1).astype(np.float64) for v in _fit(wanted, got, (0, 2, 3), scaled=scaled)
            )
            assert (gain.min() >= 0.5) & (gain.max() <= 2.0)
            fitted = got * gain + shift
            assert np.allclose(fitted.mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=1e-3, atol=1e-3 * power)
            errors.append(np.square(fitted - wanted).sum((0, 2, 3)))
        assert (errors[1] <= errors[0] * (1 + 1e-5)).all()
        assert gain.ravel()[5] == 1


def test_rounding_lowers_the_error_of_a_layer_whose_inputs_hang_together():
    text = "g (float[N,16,8,8] x) => (float[N,8,8,8] y) { [conv] y = Conv<pads=[1,1,1,1]>(x, w) }"
    model = exported(models.model(text, w=models.weights(8, 16, 3, 3)))
    rng = np.random.default_rng(0)
    x = (rng.normal(0, 1, (40, 3, 8, 8)).transpose(0, 2, 3, 1) @ rng.normal(0, 1, (3, 16))).transpose(0, 3, 1, 2)
    x = np.ascontiguousarray(np.rint(x * 16) / 16, np.float32)
    amax = {"x": 127 / 16}  # exact: what is left is the weights' error
    x = np.clip(x, -127 / 16, 127 / 16)
    wanted, errors = run(model.onnx, x)["y"], []
    for recipe in (Recipe(bias=True), Recipe(bias=True, rounding=True)):
        corrections = correct(model, amax, Corrections(), x, load, recipe)
        errors.append(np.square(run(quantize(model, amax, corrections).model.onnx, x)["y"] - wanted).mean())
    assert errors[1] < 0.5 * errors[0]


def test_rounded_is_what_a_pair_of_onnxruntime_gives():
    scale = np.float32(0.037)
    text = "g (float[N,1] x) => (float[N,1] y) { [q] i = QuantizeLinear(x, s, z) [dq] y = DequantizeLinear(i, s, z) }"
    onnx = models.model(text, s=scale, z=np.int8(0))
    halves = (np.arange(-300, 300) / 2).astype(np.float32) * scale
    x = np.concatenate([halves, np.nextafter(halves, np.float32(9)), [0.0, 1e9, -1e9]]).astype(np.float32)[:, None]
    with load(onnx) as session:
        wanted = np.concatenate([session.run({"x": x[i : i + 1]})["y"] for i in range(len(x))])
    kept = x.copy()
    assert (rounded(x, float(scale)) == wanted).all()
    assert (x == kept).all()


def small(body, shape="N,3,4,4", out="N,4,4,4", **weights):
    return exported(models.model(f"g (float[{shape}] x) => (float[{out}] y) {{ {body} }}", **weights))


def test_one_image_channels_that_are_dead_and_layers_without_a_bias():
    w = models.weights(4, 3, 1, 1)
    w[1] = 0
    model = small("[c1] c = Conv(x, w) [r] r = Relu(c) [c2] y = Conv(r, v)", w=w, v=models.weights(4, 4, 1, 1))
    x = images(1)[:, :, :4, :4]
    for recipe in ALL[1:]:
        corrections = correct(model, {"x": 3.0, "r": 3.0}, Corrections(), x, load, recipe)
        if recipe.bias or recipe.norm:
            assert corrections.bias["c1"][1] == 0
        result = quantize(model, {"x": 3.0, "r": 3.0}, corrections)
        assert np.isfinite(run(result.model.onnx, np.repeat(x, 10, 0))["y"]).all()


def test_one_channel_everywhere():
    model = small(
        "[c1] c = Conv(x, w) [r] r = Relu(c) [c2] y = Conv(r, w)",
        shape="N,1,4,4",
        out="N,1,4,4",
        w=np.array([[[[0.7]]]], np.float32),
    )
    x = images(3)[:, :1, :4, :4]
    corrections = correct(model, {"x": 3.0, "r": 2.0}, Corrections(pixels=PIXELS), x, load, PRESETS["best"])
    assert all(len(values) == 1 for values in (*corrections.gain.values(), *corrections.bias.values()))


def test_tensors_that_are_always_zero_and_layers_in_float_are_not_corrected():
    body = "[c1] c = Conv(x, w) [r] r = Relu(c) [c2] d = Conv(r, v) [c3] y = Conv(d, v)"
    model = small(body, w=-np.ones((4, 3, 1, 1), np.float32), v=models.weights(4, 4, 1, 1))
    x = np.abs(images(3)[:, :, :4, :4])
    amax = {"x": 3.0, "r": 0.0, "d": 3.0}
    corrections = correct(model, amax, Corrections(float_nodes=("c3",)), x, load, PRESETS["best"])
    assert set(corrections.bias) == {"c1"}
    assert corrections.float_nodes == ("c3",)


def test_what_is_there_is_kept_and_progress_is_told():
    model, x = network(), images(4)
    told = []

    class Bar:
        def __init__(self, what, total, unit=""):
            told.append((what, total))

        def __enter__(self):
            return lambda n: told.append(n)

        def __exit__(self, *_):
            pass

    given = Corrections(pixels=PIXELS, equalization={"g": (0.5,) * 6}, float_sums=True)
    amax = ranges(model, x)
    found = correct(model, amax, given, x, load, Recipe(bias=True), Bar)
    assert dc.replace(found, bias={}) == given
    assert told == [("correct", 18), *[1] * 18]  # two turn the image, and one pads it


def test_a_product_of_computed_rows_is_rounded_and_not_shifted():
    """As a fully connected layer on (N, rows, channels) is exported; it has no bias of its own."""
    body = "[t] t = Transpose<perm=[0,2,1]>(x) [fc] m = MatMul(t, w) [shift] y = Add(m, b)"
    model = small(body, shape="N,6,5", out="N,5,4", w=models.weights(6, 4), b=models.weights(4))
    x = np.random.default_rng(0).normal(0, 1, (20, 6, 5)).astype(np.float32).cumsum(1)
    found = correct(model, {"x": 3.0, "t": 3.0}, Corrections(), x, load, PRESETS["best"])
    assert (set(found.bias), set(found.gain), set(found.rounding)) == (set(), set(), {"fc"})


def test_where_an_image_has_several_rows_layers_are_left_as_they_are():
    body = """[size] n = Shape<start=0, end=1>(x) [twice] m = Mul(n, two) [to] s = Concat<axis=0>(m, three)
      [rows] r = Reshape(x, s) [c1] c = Conv(r, w) [back] b = Concat<axis=0>(n, eight) [whole] d = Reshape(c, b)
      [c2] y = Conv(d, v)"""
    ints = {"two": np.array([2]), "three": np.array([3, 4, 4]), "eight": np.array([8, 4, 4])}
    model = small(body, shape="N,6,4,4", w=models.weights(4, 3, 1, 1), v=models.weights(4, 8, 1, 1), **ints)
    x = np.random.default_rng(0).normal(0, 1, (100, 6, 4, 4)).astype(np.float32)  # more than are run at a time
    found = correct(model, dict.fromkeys(("x", "r", "d"), 4.0), Corrections(), x, load, PRESETS["best"])
    assert set(found.bias) == {"c2"}


def test_as_many_images_as_fit_the_memory():
    model = network()
    steps = Steps(load_model_from_string(model.onnx), load)
    largest = 4 * (8 * 64 + 8 * 64)  # c and r
    assert steps.bytes_per_image() == largest
    assert images_for(model, load) == (1 << 28) // (2 * largest)


def test_steps_run_what_does_not_pass_with_its_readers():
    steps = Steps(load_model_from_string(network().onnx), load)
    nodes = {n.name: n for n in load_model_from_string(network().onnx).graph.node}
    assert steps.gives(nodes["left"]) == ("u", "v")
    assert steps.gives(nodes["size"]) == steps.gives(nodes["rest"]) == ()
    assert steps.reads(nodes["flat"]) == ("j",)
    place = list(nodes).index("flat")
    assert (steps.last["j"], steps.last["v"]) == (place, list(nodes).index("join"))
    with steps.opened(nodes["left"]) as split:
        x = np.arange(150 * 128, dtype=np.float32).reshape(150, 8, 4, 4)
        found = split.run({"t": x}, 150)
    assert (np.concatenate([found["u"], found["v"]], 1) == x).all()


def test_equalized_and_corrected_is_prepared_once_for_both():
    model, x = network(), images(4)
    given = Corrections(pixels=PIXELS, equalization={"g": (0.5,) * 6})
    prepared = prepare(model, ranges(model, x), given)
    assert prepared.scales["x_levels"] == 1
    assert "g_equalized_weight" in {i.name for i in prepared.model.graph.initializer}
