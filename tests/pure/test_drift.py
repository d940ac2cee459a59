"""Each layer beside fp32, exactly; and the layer to blame is named, where there is one."""

from __future__ import annotations

import dataclasses as dc
import math

import numpy as np
import pytest
from helpers import models
from hypothesis import given
from hypothesis import strategies as st
from onnx import load_model_from_string

from dlcv_deploy.graph.equalize import divisors
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.layers import INPUT, counterparts, layers
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.parity.drift import TYPICAL, TensorError, outlier
from dlcv_deploy.types import Corrections, ExportedModel

FINITE = st.lists(st.floats(-100, 100), min_size=4, max_size=4)


def error(share):
    """Of a tensor with that share of noise."""
    return TensorError(1.0, 1.0 + share, share)


def chain(*sqnr_db):
    """Layers one after another, behind an exact input, by their SQNR."""
    errors = [error(0.0), *(error(10 ** (-db / 10)) for db in sqnr_db)]
    return errors, [(), *((place,) for place in range(len(sqnr_db)))]


def test_figures_by_hand():
    found = TensorError.of([[3.0, 4.0]], [[3.0, 4.5]])
    assert found == TensorError(25.0, 29.25, 0.25)
    assert found.sqnr_db == pytest.approx(20)
    assert found.cosine == pytest.approx(27 / (5 * math.sqrt(29.25)), abs=1e-12)


@pytest.mark.parametrize(
    ("exact", "found", "sqnr_db", "cosine"),
    [
        ([1, 2], [1, 2], math.inf, 1),
        ([0, 0], [0, 0], math.inf, 1),
        ([0, 0], [0, 1], -math.inf, 0),
        ([1, 0], [0, 0], 0, 0),
        ([1, 0], [-1, 0], -6.0206, -1),
        ([1, 2], [math.nan, 2], math.nan, math.nan),
        ([1, 2], [math.inf, 2], math.nan, math.nan),
        ([math.inf, 2], [math.inf, 2], math.nan, math.nan),
    ],
)
def test_the_ends_of_the_scale(exact, found, sqnr_db, cosine):
    made = TensorError.of(exact, found)
    assert (made.sqnr_db, made.cosine) == pytest.approx((sqnr_db, cosine), nan_ok=True)


@given(FINITE, FINITE, FINITE, FINITE)
def test_it_is_a_fold(a, b, c, d):
    parts = TensorError.of(a, b).merge(TensorError.of(c, d))
    assert dc.astuple(parts) == pytest.approx(dc.astuple(TensorError.of([a, c], [b, d])))


def test_noise_that_gathers_evenly_is_in_line():
    assert outlier(*chain(36, 33, 31.5, 30, 29, 28.5, 28)) is None
    assert outlier(*chain(70, 66, 66, 65, 64, 64, 60)) is None
    assert outlier(*chain(*[math.inf] * 5)) is None


def test_the_first_that_falls_out_of_line_is_named():
    assert outlier(*chain(36, 33, 31.5, 12, 11.8, 11.5)) == 4
    assert outlier(*chain(36, 33, 14, 13.9, 1, 0.9, 0.8)) == 3  # and not the worst


def test_a_fault_at_the_start_is_named_though_it_spoils_what_is_typical():
    assert outlier(*chain(3, 1, 0.3, 0.1, 0.05, 0.04)) == 1


def test_ten_times_what_is_expected_is_the_line():
    errors, reads = chain(30, 40, 50)  # the typical layer adds what the first one does
    assert outlier([*errors, error(10.5 * (errors[-1].share + TYPICAL))], [*reads, (3,)]) == 4
    assert outlier([*errors, error(9.5 * (errors[-1].share + TYPICAL))], [*reads, (3,)]) is None


def test_a_layer_is_held_against_the_worst_of_its_inputs():
    errors = [error(0.0), error(1e-4), error(1e-1), error(1.2e-1)]
    assert outlier(errors, [(), (0,), (0,), (1, 2)]) == 2
    errors[2] = error(2e-4)
    assert outlier(errors, [(), (0,), (0,), (1, 2)]) == 3


def test_nan_is_out_of_line_where_it_begins():
    errors, reads = chain(36, 33, 31)
    errors[2] = errors[3] = TensorError(1.0, math.nan, math.nan)
    assert outlier(errors, reads) == 2
    errors[2] = errors[3] = TensorError(math.nan, math.nan, math.nan)  # the exact values are no better
    assert outlier(errors, reads) is None


def test_a_layer_without_signal_says_nothing():
    errors, reads = chain(36, 33, 31)
    errors[2] = TensorError(0.0, 1.0, 1.0)
    assert outlier(errors, reads) is None


def exported(onnx):
    return ExportedModel("net", onnx, (), (), "0" * 64)


def test_layers_end_where_a_tensor_is_handed_on():
    found = layers(load_model_from_string(models.returning()))
    assert [(x.op_type, x.node, x.tensor, x.reads) for x in found] == [
        (INPUT, "x", "x", ()),
        ("Conv+Relu", "conv1", "r", (0,)),
        ("Conv+Relu", "conv2", "s", (1,)),
        ("GlobalAveragePool+Flatten", "pool", "f", (2,)),
        ("Gemm", "fc", "y", (3,)),
    ]


def test_branches_and_sums():
    body = """[conv] c = Conv<pads=[1,1,1,1]>(x, w) [relu] r = Relu(c) [cut] s = Slice(x, begin, end)
              [flat] t = Identity(s) [sum] a = Add(r, t) [half] y = Mul(a, k)"""
    onnx = models.model(
        f"g (float[N,3,8,8] x) => (float[N,3,8,8] y) {{ {body} }}",
        w=models.weights(3, 3, 3, 3),
        begin=np.zeros(4, np.int64),
        end=np.array([99, 3, 8, 8]),
        k=np.float32([0.5]),
    )
    found = layers(load_model_from_string(onnx))
    assert [(x.op_type, x.reads) for x in found] == [
        (INPUT, ()),
        ("Conv+Relu", (0,)),
        ("Slice+Identity", (0,)),
        ("Add", (1, 2)),
        ("Mul", (3,)),
    ]


def test_counterparts_of_fp16_and_int8():
    model = load_model_from_string(models.net())
    tensors = tuple(layer.tensor for layer in layers(model))
    half, _ = to_half(model)
    assert counterparts(model, half, tensors) == {"x": "x_fp16", "r": "r", "s": "s", "f": "f", "y": "y"}
    int8 = quantize(exported(models.net()), dict.fromkeys(quantizable(model), 1.0)).model
    found = counterparts(model, load_model_from_string(int8.onnx), tensors)
    assert found == {"x": "x_dq", "r": "r_dq", "s": "s", "f": "f_dq", "y": "y"}


def test_what_has_no_counterpart_is_left_out():
    model = load_model_from_string(models.net())
    other = load_model_from_string(models.net().replace(b"\x01r", b"\x01q"))
    assert "r" not in counterparts(model, other, ("r", "s"))
    assert counterparts(model, other, ("s", "nowhere")) == {"s": "s"}
    fixed = load_model_from_string(models.fixed_batch(2))
    assert counterparts(fixed, fixed, ("x", "y")) == {}


def test_divisors_of_every_tied_tensor():
    model = load_model_from_string(models.net())
    factors = tuple(np.linspace(0.25, 1, 8).tolist())
    found = divisors(model, {"c": factors})
    assert {name: by.tolist() for name, by in found.items()} == {"c": list(factors), "r": list(factors)}
    assert divisors(model, Corrections().equalization) == {}
