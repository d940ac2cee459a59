"""Rounding by what a layer gives: covariances of what weights are multiplied with, and the steps that follow."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import models
from onnx import load_model_from_string, numpy_helper
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.calibration.rounding import _compensated, _places, moments, round_by_output
from dlcv_deploy.graph.index import index
from dlcv_deploy.graph.layer import Layer

RNG = np.random.default_rng(0)


def layer_of(text, w, x_shape, y_rank):
    rank = ",".join("N" if i == 0 else "ABCDE"[i] for i in range(y_rank))
    shape = ",".join(["N", *map(str, x_shape[1:])])
    onnx = models.model(f"g (float[{shape}] x) => (float[{rank}] y) {{ [n] y = {text} }}", w=w)
    model = load_model_from_string(onnx)
    node = model.graph.node[0]
    return model, node, Layer.of(node, index(model.graph), 1.0)


def normal(*shape):
    return RNG.normal(0, 1, shape).astype(np.float32)


CONVOLUTIONS = [
    ("Conv(x, w)", (3, 2, 3), (2, 2, 7)),
    ("Conv<pads=[2,0], strides=[2]>(x, w)", (3, 2, 3), (2, 2, 7)),
    ("Conv<pads=[1,1,1,1]>(x, w)", (4, 3, 3, 3), (2, 3, 5, 5)),
    ("Conv<pads=[0,1,2,3], strides=[2,1], dilations=[1,2]>(x, w)", (4, 3, 3, 2), (2, 3, 7, 6)),
    ("Conv<pads=[1,0,1,0,1,1], strides=[1,2,1]>(x, w)", (2, 2, 2, 2, 3), (2, 2, 4, 5, 4)),
]


@pytest.mark.parametrize(("text", "w", "x"), CONVOLUTIONS)
def test_filters_times_places_are_the_convolution(text, w, x):
    model, node, layer = layer_of(text, normal(*w), x, len(x))
    values = normal(*x)
    places = _places(node, values, layer)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": values})
    assert np.allclose(places @ layer.rows.T, np.moveaxis(wanted, 1, -1).reshape(-1, w[0]), atol=1e-5)


def test_of_many_places_some_are_taken_evenly():
    _, node, layer = layer_of("Conv(x, w)", normal(2, 1, 1, 1), (2, 1, 200, 200), 4)
    x = np.arange(80_000, dtype=np.float32).reshape(2, 1, 200, 200)
    places = _places(node, x, layer)[:, 0]
    assert len(places) == 1 << 14
    assert (places[0], places[-1]) == (0, 79_999)
    assert set(np.diff(places)) == {4.0, 5.0}


def test_moments_are_covariances_group_by_group():
    _, node, layer = layer_of("Conv<group=2>(x, w)", normal(4, 2, 1, 1), (3, 4, 5, 5), 4)
    x = normal(3, 4, 5, 5) + 7
    rows = np.moveaxis(x, 1, -1).reshape(-1, 4)
    found = moments(node, x, layer)
    assert len(found) == 2
    for part, covariance in zip(np.split(rows, 2, axis=1), found, strict=True):
        assert np.allclose(covariance, np.cov(part.T, bias=True), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "w", "x"),
    [
        ("Gemm<transB=1>(x, w)", (4, 6), (9, 6)),
        ("Gemm(x, w)", (6, 4), (9, 6)),
        ("MatMul(x, w)", (6, 4), (9, 6)),
        ("MatMul(x, w)", (6, 4), (3, 5, 6)),
    ],
)
def test_matrix_products(text, w, x):
    _, node, layer = layer_of(text, normal(*w), x, len(x))
    values = normal(*x)
    (found,) = moments(node, values, layer)
    assert np.allclose(found, np.cov(values.reshape(-1, 6).T, bias=True), atol=1e-5)
    assert round_by_output(layer, node, [found]).shape == (4, 6)


def test_values_that_do_not_hang_together_are_rounded_to_the_nearest():
    _, node, layer = layer_of("Gemm<transB=1>(x, w)", normal(8, 200), (2, 200), 2)
    for covariance in (np.eye(200), np.diag(RNG.uniform(0, 9, 200)), np.zeros((200, 200)), np.eye(200) * 1e-20):
        assert (round_by_output(layer, node, [covariance]) == layer.nearest()).all()


@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e10])
def test_the_output_is_closer_where_they_do(scale):
    """300 values are more than a block."""
    _, node, layer = layer_of("Gemm<transB=1>(x, w)", normal(16, 300), (2, 300), 2)
    x = normal(900, 40) @ normal(40, 300) + 0.3 * normal(900, 300)
    covariance = np.cov(x.T.astype(np.float64), bias=True)
    errors = []
    for steps in (layer.nearest(), round_by_output(layer, node, [covariance * scale])):
        off = layer.rows - steps * layer.scale[:, None].astype(np.float64)
        errors.append(np.einsum("oi,ij,oj->", off, covariance, off))
    assert errors[1] < 0.5 * errors[0]


def test_grouped_filters_are_rounded_by_their_own_group():
    w = normal(4, 3, 1, 1)
    _, node, layer = layer_of("Conv<group=2>(x, w)", w, (2, 6, 1, 1), 4)
    mixed = np.cov(RNG.normal(0, 1, (3, 2)) @ RNG.normal(0, 1, (2, 50)), bias=True)
    steps = round_by_output(layer, node, [np.eye(3), mixed])
    assert (steps[:2] == layer.nearest()[:2]).all()
    alone = _compensated(layer.rows[2:].astype(np.float64) / layer.scale[2:, None].astype(np.float64), mixed)
    assert (steps[2:] == alone).all()


def test_steps_stay_in_range_and_a_value_that_never_varies_keeps_its_own():
    x = np.repeat(normal(50, 1), 4, axis=1)  # all the same: errors add up on the last
    x[:, 2] = 5
    steps = _compensated(np.array([[126.5, 126.5, 3.4, 126.5], [-126.5, -126.5, -3.6, -126.5]]), np.cov(x.T, bias=True))
    assert np.abs(steps.astype(int)).max() <= 127
    assert steps[:, 2].tolist() == [3, -4]
    assert steps[:, [0, 1, 3]].astype(int).sum(1).tolist() == [380, -380]  # 379.5 in all


def test_a_weight_initializer_stays_as_it_is():
    w = normal(4, 3, 1, 1)
    model, node, layer = layer_of("Conv(x, w)", w, (2, 3, 2, 2), 4)
    round_by_output(layer, node, moments(node, normal(2, 3, 2, 2), layer))
    assert (numpy_helper.to_array(model.graph.initializer[0]) == w).all()
