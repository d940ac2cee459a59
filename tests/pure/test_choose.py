"""Trials on held-out images: what wins is made on all of them, and the table holds what was tried."""

from __future__ import annotations

import dataclasses as dc

import numpy as np
import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.calibration import choose as choosing
from dlcv_deploy.calibration import choose as module
from dlcv_deploy.calibration.calibrate import Runtimes, Subject, calibrate
from dlcv_deploy.calibration.choose import METHODS, Trials, _some_int8, candidates, choose
from dlcv_deploy.calibration.recipe import PRESETS, Recipe
from dlcv_deploy.calibration.samples import drawn, from_images
from dlcv_deploy.calibration.table import CalibrationTable
from dlcv_deploy.errors import SpecError
from dlcv_deploy.graph.qdq import quantize
from dlcv_deploy.study import Mixed, Point, Score
from dlcv_deploy.types import Engine, ExportedModel, Preprocess, TensorSpec

PRE = Preprocess(8, 8, "resize", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
TEXT = """g (float[N,3,8,8] x) => (float[N,5] y) {
  [conv_1] c = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [relu_1] r = Relu(c)
  [pool] p = GlobalAveragePool(r)
  [flat] f = Flatten(p)
  [fc] y = Gemm<transB=1>(f, w2, b2)
}"""
FAST = PRESETS["fast"]


@pytest.fixture(autouse=True)
def _runtime(need):
    need("onnxruntime")


@pytest.fixture
def subject():
    """A network whose answers follow from its features, and not from its last bias, unless those are tiny."""
    weights = {"w1": models.weights(8, 3, 3, 3), "b1": np.zeros(8, np.float32), "w2": models.weights(5, 8, seed=2)}
    weights["w2"] -= weights["w2"].mean(0)
    onnx = models.model(TEXT, **weights, b2=np.array([0.01, 0, 0, 0, 0], np.float32))
    model = ExportedModel("net", onnx, (TensorSpec("x", (3, 8, 8)),), (TensorSpec("y", (5,)),), "e" * 64)
    return Subject(model, "f" * 64, PRE)


def load(onnx, *, streams=1):
    backend = backends.get("onnxruntime")
    return backend.load(Engine(backend.name, "CPU", "", {backend.FILE: onnx}, streams=streams))


RUNTIMES = Runtimes(load, load, load, {"onnxruntime": "any"})


class Labelled:
    """Drawn images with labels."""

    def __init__(self, count):
        self._images, self.labels = drawn(count, 8), np.arange(count) % 5

    def __getattr__(self, name):
        return getattr(self._images, name)

    def __len__(self):
        return len(self._images)


def test_without_trials_it_is_a_calibration(subject):
    samples = drawn(4, 8)
    assert choose(subject, samples, FAST, Trials(), RUNTIMES) == calibrate(subject, samples, FAST, RUNTIMES)


def test_candidates_are_the_presets_and_each_method_once_the_dearest_last():
    found = candidates(FAST)
    assert next(iter(found.values())) == PRESETS["fast"]
    assert list(found.values())[-1] == PRESETS["best"]
    assert len(set(found.values())) == len(found) == 3 + len(METHODS) - 1  # one method is that of fast
    assert set(candidates(PRESETS["best"]).values()) >= set(PRESETS.values())
    own = Recipe(norm=True)
    assert {each for each in candidates(own).values() if each.norm and not each.rounding} == {
        dc.replace(own, method=method) for method in METHODS
    }


def test_everything_at_once(subject):
    samples = Labelled(16)
    table = choose(subject, samples, FAST, Trials(tournament=True, robustness=2, max_drop=100.0), RUNTIMES)
    study = table.study
    assert study.source.startswith("4 held out of: ")
    tried = candidates(FAST)
    assert [score.name for score in study.tournament.scores] == list(tried)
    assert all(score.images == 4 and not score.failed for score in study.tournament.scores)
    assert study.tournament.winner in tried
    assert table.method == tried[study.tournament.winner].method
    assert (study.robustness.images, len(study.robustness.scores)) == (6, 2)
    assert {layer.node for layer in study.sensitivity} == {"conv_1", "fc"}
    assert study.mixed.reached
    assert study.mixed.measure == "top-1"
    assert study.mixed.chosen.share_int8 == 1
    assert CalibrationTable.from_json(table.to_json()) == table
    assert table.images == 16  # what won is made on all of them
    winner = calibrate(subject, samples, tried[study.tournament.winner], RUNTIMES)
    assert dc.replace(table, study=None) == winner


def test_the_order_of_the_images_changes_nothing_but_times(subject, monkeypatch):
    times = iter(range(1, 100))
    monkeypatch.setattr(choosing, "percentile", lambda values, p: len(values) and next(times) / 1000)
    images = drawn(10, 8)
    texts = set()
    for order in (range(10), reversed(range(10))):
        samples = from_images([images.image(i) for i in order], source="ten")
        table = choose(subject, samples, FAST, Trials(max_drop=0.0, robustness=2), RUNTIMES)
        curve = table.study.mixed.curve
        assert all(point.latency_ms >= 1 for point in curve)
        assert len({point.latency_ms for point in curve}) == len(curve)
        chosen = dc.replace(table.study.mixed.chosen, latency_ms=None)
        untimed = tuple(dc.replace(point, latency_ms=None) for point in curve)
        mixed = dc.replace(table.study.mixed, chosen=chosen, curve=untimed)
        texts.add(dc.replace(table, study=dc.replace(table.study, mixed=mixed)).to_json())
    assert len(texts) == 1


def test_layers_leave_int8_until_the_answers_are_the_same(subject, monkeypatch):
    """``conv_1`` is spoilt in INT8, so it is what has to go."""
    made = quantize

    def spoilt(model, amax, corrections):
        if "conv_1" not in corrections.float_nodes:
            amax = {**amax, "x": amax["x"] / 1000}
        return made(model, amax, corrections)

    monkeypatch.setattr(module, "quantize", spoilt)
    how = dc.replace(FAST, pixels=False)
    table = choose(subject, drawn(24, 8), how, Trials(max_drop=0.0), RUNTIMES)
    mixed = table.study.mixed
    assert table.study.sensitivity[0].node == "conv_1"
    assert mixed.reached
    assert mixed.chosen.float_nodes == table.corrections.float_nodes == ("conv_1",)
    assert made(subject.model, table.amax, table.corrections).quantized == ("fc",)


def point(share, drop, *nodes, **fields):
    return Point(share, nodes, nodes, Score("", 10, 1, 0.1, 20.0, 1.0, drop=drop, **fields))


def test_where_only_float_keeps_to_the_drop_the_best_with_int8_is_taken_and_not_reached():
    curve = (point(1.0, 3.0), point(0.8, 0.5, "a"), point(0.6, 0.5, "b"), point(0.0, 0.0, "a", "b"))
    found = _some_int8(Mixed(0.1, "top-1", True, curve[3], curve))
    assert (found.reached, found.chosen, found.curve) == (False, curve[1], curve)
    kept = Mixed(1.0, "top-1", True, curve[1], curve)
    assert _some_int8(kept) == kept


def test_answers_that_are_no_numbers_are_the_worst():
    curve = (point(1.0, 0.1, non_finite=1), point(0.8, 9.0, "a"), point(0.0, 0.0, "a", "b"))
    assert _some_int8(Mixed(0.1, "top-1", True, curve[2], curve)).chosen == curve[1]


def test_an_unreachable_drop_keeps_what_is_best_in_int8(subject, monkeypatch):
    """Every INT8 graph is spoilt."""
    made = quantize
    monkeypatch.setattr(module, "quantize", lambda m, amax, c: made(m, {t: a / 1e4 for t, a in amax.items()}, c))
    table = choose(subject, drawn(24, 8), dc.replace(FAST, pixels=False), Trials(max_drop=0.0), RUNTIMES)
    assert not table.study.mixed.reached
    assert table.study.mixed.chosen.share_int8 > 0
    assert table.study.mixed.measure == "flips"
    assert made(subject.model, table.amax, table.corrections).quantized
    assert CalibrationTable.from_json(table.to_json()) == table


def test_images_that_are_all_alike_cannot_be_held_out(subject):
    samples = from_images([np.zeros((8, 8, 3), np.uint8)] * 3)
    with pytest.raises(SpecError, match="1 different image cannot be split"):
        choose(subject, samples, FAST, Trials(tournament=True), RUNTIMES)


def test_one_image_is_enough_to_calibrate_and_says_so(subject):
    table = calibrate(subject, drawn(1, 8), PRESETS["best"], RUNTIMES)
    assert table.warnings() == ("calibrated on 1 image: ranges of one say little; some hundred are usual",)
    assert quantize(subject.model, table.amax, table.corrections).quantized == ("conv_1", "fc")


def test_tensors_without_a_range_are_named(subject):
    model = models.model(TEXT, w1=-np.zeros((8, 3, 3, 3), np.float32), b1=-np.ones(8, np.float32),
                         w2=models.weights(5, 8), b2=models.weights(5))  # fmt: skip
    dead = dc.replace(subject, model=dc.replace(subject.model, onnx=model))
    table = calibrate(dead, drawn(2, 8), PRESETS["default"], RUNTIMES)
    assert table.statistics["f"].constant
    assert table.warnings() == ("always 0 in calibration, so what reads it stays in floating point: f",)
    assert quantize(dead.model, table.amax, table.corrections).quantized == ("conv_1",)
    model = models.model(TEXT, w1=np.zeros((8, 3, 3, 3), np.float32), b1=np.ones(8, np.float32),
                         w2=models.weights(5, 8), b2=models.weights(5))  # fmt: skip
    same = dc.replace(subject, model=dc.replace(subject.model, onnx=model))
    table = calibrate(same, drawn(2, 8), FAST, RUNTIMES)
    assert table.warnings() == ("the same number everywhere in calibration, so its range says little: f",)
    assert CalibrationTable.from_json(table.to_json()).warnings() == table.warnings()
