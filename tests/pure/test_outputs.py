"""Outputs besides the logits: figures by hand, laws of the algebra, and the whole evaluation on known sessions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.parity import outputs
from dlcv_deploy.parity.answers import Candidate, Kept
from dlcv_deploy.parity.compare import FEWEST, NEAREST, neighbours_percent, relative_percent, vector_errors
from dlcv_deploy.parity.evaluate import evaluate
from dlcv_deploy.parity.gate import failures
from dlcv_deploy.parity.outputs import OutputTally
from dlcv_deploy.parity.values import OutputError
from dlcv_deploy.store import Store
from dlcv_deploy.types import Preprocess, TensorSpec

NAN, INF = math.nan, math.inf


def array(*rows):
    return np.array(rows, np.float32)


# Cosine and relative error


def test_vector_errors_by_hand():
    reference = array([3, 4], [1, 0], [2, 0], [0, 0], [0, 0], [5, 0])
    candidate = array([4, 3], [0, 7], [-2, 0], [0, 0], [1, 0], [0, 0])
    assert vector_errors(reference, candidate).tolist() == [
        [24 / 25, 25, 2],
        [0, 1, 50],
        [-1, 4, 16],
        [1, 0, 0],  # equal
        [0, 0, 1],
        [0, 25, 25],
    ]


def test_a_map_is_one_vector():
    a, b = np.arange(24.0).reshape(2, 3, 2, 2), np.ones((2, 3, 2, 2))
    assert np.array_equal(vector_errors(a, b), vector_errors(a.reshape(2, 12), b.reshape(2, 12)))


def test_equal_vectors_have_a_cosine_of_one_exactly():
    x = np.random.default_rng(0).normal(0, 1, (50, 77)).astype(np.float32)
    assert vector_errors(x, x.copy())[:, 0].tolist() == [1] * 50


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_value_that_is_not_finite_spoils_its_row_on_either_side(bad):
    clean, spoilt = array([1, 2], [3, 4]), array([1, 2], [3, bad])
    for one, other in ((clean, spoilt), (spoilt, clean), (spoilt, spoilt)):
        found = vector_errors(one, other)
        assert np.isfinite(found[0]).all()
        assert np.isnan(found[1]).all()


def test_relative_errors():
    assert relative_percent(1, 4) == 50
    assert relative_percent(0, 0) == 0
    assert relative_percent(1e-9, 0) == INF
    assert math.isnan(relative_percent(NAN, NAN))


VECTORS = hnp.arrays(np.float64, (4, 3), elements=st.integers(-50, 50).map(float))


@given(VECTORS, VECTORS, st.floats(1e-3, 1e3))
def test_the_cosine_does_not_change_with_the_scale_and_the_error_only_with_both(a, b, scale):
    plain, one, both = vector_errors(a, b), vector_errors(a, b * scale), vector_errors(a * scale, b * scale)
    assert np.abs(plain[:, 0]).max() <= 1
    known = a.any(1) | ~b.any(1)  # of two vectors, one of which is zero, the cosine is a convention
    assert one[known, 0] == pytest.approx(plain[known, 0])
    assert both[:, 0] == pytest.approx(plain[:, 0])
    for (_, signal, noise), (_, wide, loud) in zip(plain, both, strict=True):
        assert relative_percent(loud, wide) == pytest.approx(relative_percent(noise, signal))


@given(VECTORS, VECTORS)
def test_the_cosine_is_the_same_from_either_side(a, b):
    assert vector_errors(a, b)[:, 0].tolist() == vector_errors(b, a)[:, 0].tolist()


# Neighbours


def by_hand(reference, candidate):
    """Sets of the five nearest, one image at a time; for vectors without ties."""
    common = 0
    for i in range(len(reference)):
        near = [set(np.argsort(np.linalg.norm(x - x[i], axis=1))[1 : NEAREST + 1]) for x in (reference, candidate)]
        common += len(near[0] & near[1])
    return 100 * common / (NEAREST * len(reference))


@pytest.mark.parametrize("noise", [0, 0.1, 1, 10])
def test_neighbours_are_those_found_one_by_one(noise, monkeypatch):
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (60, 8))
    b = a + noise * rng.normal(0, 1, (60, 8))
    want = by_hand(a, b)
    assert neighbours_percent(a, b) == pytest.approx(want, rel=1e-12)
    assert (want == 100) is (noise == 0)
    monkeypatch.setattr("dlcv_deploy.parity.compare._CHUNK", 7 * 60)  # seven rows at a time, and four at the end
    assert neighbours_percent(a, b) == pytest.approx(want, rel=1e-12)


def test_two_images_that_change_places_between_two_crowds():
    """Of six and six: the ten that stay keep four of their five neighbours, the two that go keep none."""
    crowd = np.random.default_rng(0).normal(0, 1, (6, 3))
    a = np.concatenate([crowd, crowd + 100])
    b = a[[0, 1, 2, 3, 4, 6, 5, 7, 8, 9, 10, 11]]
    assert neighbours_percent(a, b) == pytest.approx(100 * 10 * 4 / 60)


def test_equal_distances_share_the_places_that_are_left():
    """One image in the middle of a circle of ten others: each of them has half a place among its five nearest."""
    angles = 2 * np.pi * np.arange(10) / 10
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    a = np.concatenate([circle, [[0, 0]]])
    assert neighbours_percent(a, a) == pytest.approx(100)
    b = a.copy()
    b[:5] *= 0.5  # the middle's five nearest, all of each now
    rows = neighbours_percent(a, b) * NEAREST * 11 / 100
    outer = sum(_common(a, b, i) for i in range(10))
    assert rows - outer == pytest.approx(2.5)


def _common(a, b, row):
    """What one image agrees on, from a definition that takes any number of ties, in exact float64 distances."""
    places = []
    for x in (a, b):
        d = np.linalg.norm(x - x[row], axis=1).round(6)
        d[row] = np.inf
        last = np.sort(d)[NEAREST - 1]
        share = (d < last).astype(float)
        share[d == last] = (NEAREST - share.sum()) / (d == last).sum()
        places.append(share)
    return np.minimum(*places).sum()


LATTICE = hnp.arrays(np.float64, (14, 3), elements=st.integers(-3, 3).map(float))


@settings(max_examples=30)
@given(LATTICE, LATTICE)
def test_ties_are_counted_as_defined(a, b):
    want = 100 * sum(_common(a, b, row) for row in range(14)) / (NEAREST * 14)
    assert neighbours_percent(a, b) == pytest.approx(want)


@settings(max_examples=30)
@given(LATTICE, LATTICE, st.permutations(range(14)))
def test_the_order_of_the_images_does_not_matter(a, b, order):
    assert neighbours_percent(a[order], b[order]) == pytest.approx(neighbours_percent(a, b))


@settings(max_examples=30)
@given(LATTICE, LATTICE, st.integers(0, 2**32 - 1), st.sampled_from([0.125, 4.0]))
def test_turning_moving_and_scaling_all_vectors_does_not_matter(a, b, seed, scale):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
    moved = scale * (b @ turn) + rng.normal(0, 1, 3)
    assert neighbours_percent(a, moved) == pytest.approx(neighbours_percent(a, b))
    assert neighbours_percent(b, moved) == pytest.approx(100)


@settings(max_examples=30)
@given(LATTICE, LATTICE)
def test_agreement_is_a_share_and_the_same_from_either_side(a, b):
    found = neighbours_percent(a, b)
    assert 0 <= found <= 100 + 1e-9
    assert neighbours_percent(b, a) == pytest.approx(found)


def test_vectors_that_are_all_the_same_agree_entirely():
    assert neighbours_percent(np.full((20, 3), 1e4), np.full((20, 3), 7)) == pytest.approx(100)
    crowd = np.repeat(np.random.default_rng(0).normal(1e3, 1, (3, 50)), 8, axis=0)  # three images, each eight times
    assert neighbours_percent(crowd, crowd) == pytest.approx(100)
    other = np.concatenate([crowd[12:], crowd[:12]])[::-1]
    assert neighbours_percent(crowd, other) == pytest.approx(
        100 * sum(_common(crowd, other, row) for row in range(24)) / (NEAREST * 24)
    )


@pytest.mark.parametrize(("images", "length", "copies"), [(5, 129, 7), (1, 513, 23), (2, 1000, 13)])
def test_copies_of_an_image_are_equally_near_however_their_products_round(images, length, copies):
    rng = np.random.default_rng(0)
    crowd = np.repeat(rng.normal(10, 1, (images, length)), copies, axis=0)[rng.permutation(images * copies)]
    assert neighbours_percent(crowd, np.ascontiguousarray(crowd[:, ::-1])) == pytest.approx(100)


def test_too_few_images_have_no_neighbours_to_speak_of():
    x = np.random.default_rng(0).normal(0, 1, (FEWEST, 4))
    assert FEWEST == 11
    assert neighbours_percent(x, x) == 100
    for count in (1, 2, 5, 6, FEWEST - 1):
        assert neighbours_percent(x[:count], x[:count]) is None


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_vector_that_is_not_finite_leaves_no_figure(bad):
    x = np.random.default_rng(0).normal(0, 1, (20, 4))
    y = x.copy()
    y[3, 1] = bad
    assert math.isnan(neighbours_percent(x, y))
    assert math.isnan(neighbours_percent(y, x))


# Tallies


def tallied(a, b, *sizes):
    spec = TensorSpec("features", a.shape[1:])
    original, tally = OutputTally(spec), OutputTally(spec)
    for part in np.split(np.arange(len(a)), np.cumsum(sizes)):
        expected = a[part]
        original.add(expected, expected)
        tally.add(expected, b[part])
    return tally.error(original)


def test_batches_do_not_change_a_figure():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (40, 6)).astype(np.float32)
    b = (a + rng.normal(0, 0.3, (40, 6))).astype(np.float32)
    whole = tallied(a, b)
    for sizes in ((1,) * 39, (7, 20), (39,)):
        assert tallied(a, b, *sizes) == whole
    rows = vector_errors(a, b)
    assert whole.cosine_mean == pytest.approx(rows[:, 0].mean(), rel=1e-14)
    assert whole.cosine_min == rows[:, 0].min() < whole.cosine_mean < 1
    assert whole.error_percent == pytest.approx(100 * np.linalg.norm(b.astype("f8") - a) / np.linalg.norm(a))
    each = 100 * np.linalg.norm(b.astype("f8") - a, axis=1) / np.linalg.norm(a.astype("f8"), axis=1)
    assert whole.error_max_percent == pytest.approx(each.max())
    assert (whole.neighbours_percent, whole.neighbours_of) == (neighbours_percent(a, b), 40)


def test_memory_is_bounded(monkeypatch):
    a = np.random.default_rng(0).normal(0, 1, (40, 6)).astype(np.float32)
    b = a.copy()
    b[20:] = a[:20]
    monkeypatch.setattr(outputs, "GALLERY_IMAGES", 20)
    assert (tallied(a, b, 7, 20).neighbours_percent, tallied(a, b, 7, 20).neighbours_of) == (100, 20)
    monkeypatch.setattr(outputs, "GALLERY_VALUES", 6 * 15 + 5)
    assert tallied(a, b, 7, 20).neighbours_of == 15
    assert tallied(a.reshape(40, 1, 2, 3), b.reshape(40, 1, 2, 3)).neighbours_of == 0


def test_the_documented_bounds():
    assert [OutputTally(TensorSpec("f", (d,)))._room() for d in (64, 1677, 1678, 4096)] == [10_000, 10_000, 9998, 4096]
    assert 4 * outputs.GALLERY_VALUES == 64 << 20


# The whole evaluation

PRE = Preprocess(2, 4, "pad", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # the input is the pixel's value


class Session:
    """Logits that say the brightest pixel is the class; a vector and a map of the crop's corner pixel."""

    def __init__(self, features=lambda v: v, maps=lambda v: v, names=("logits", "features", "map")):
        shapes = {"logits": (30,), "features": (2,), "map": (1, 2, 2)}
        self.inputs = (TensorSpec("image", (3, 2, 2)),)
        self.outputs = tuple(TensorSpec(name, shapes[name]) for name in names)
        self.functions = {"features": features, "map": maps}

    def run(self, feeds):
        x = feeds["image"]
        corner = x[:, 0, 0, 0]
        found = {
            "logits": np.eye(30, dtype=np.float32)[x.max((1, 2, 3)).astype(int)],
            "features": self.functions["features"](np.stack([corner, np.ones_like(corner)], 1)),
            "map": self.functions["map"](x[:, :1]),
        }
        return {spec.name: found[spec.name] for spec in reversed(self.outputs)}


class Pictures:
    source, labels, rotated = "drawn", None, 0

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def image(self, i):
        return np.full((2, 2, 3), i + 1, np.uint8)

    def name(self, i):
        return f"picture {i}"

    def digest_of(self, i):
        return f"picture {i}"


@pytest.mark.parametrize("crops", [1, 10])
@pytest.mark.parametrize(("batch_images", "max_batch"), [(None, 64), (2, 7)])
def test_every_figure_of_the_centre_crop_by_hand(crops, batch_images, max_batch):
    """The corner of the centre crop is the picture's, while a corner crop's is the black border's."""
    candidate = Session(lambda v: v * [2, 0], lambda v: 1.5 * v, ("map", "features", "logits"))
    samples = Pictures(12)
    how = {"crops": crops, "batch_images": batch_images, "max_batch": max_batch}
    report = evaluate(Session(), {"x": Candidate(candidate), "gpu": Candidate("no GPU")}, samples, PRE, **how)
    leg, absent = report.legs
    assert (leg.agreement, absent.outputs) == (100, ())
    features, maps = leg.outputs
    values = np.arange(1.0, 13)
    cosines = values / np.sqrt(values**2 + 1)
    signal, noise = (values**2 + 1).sum(), (values**2 + 1).sum()  # the difference of (v, 1) and (2v, 0) is (v, -1)
    assert features == OutputError(
        "features",
        pytest.approx(cosines.mean()),
        pytest.approx(cosines[0]),
        pytest.approx(100 * math.sqrt(noise / signal)),
        pytest.approx(100),
        pytest.approx(100),
        12,
    )
    assert maps == OutputError("map", pytest.approx(1), pytest.approx(1), pytest.approx(50), pytest.approx(50))


def test_outputs_may_be_left_out():
    report = evaluate(Session(), {"x": Candidate(Session())}, Pictures(3), PRE, crops=10, further=False)
    assert report.legs[0].outputs == ()


def test_answers_with_further_outputs_are_not_kept(tmp_path):
    kept = Kept(Store(tmp_path), "the original")
    ask = {"crops": 1, "kept": kept}
    evaluate(Session(), {"x": Candidate(Session(), "", "x")}, Pictures(3), PRE, **ask)
    assert not list(tmp_path.rglob("*.npy"))
    evaluate(Session(), {"x": Candidate(Session(), "", "x")}, Pictures(3), PRE, **ask, further=False)
    assert len(list(tmp_path.rglob("*.npy"))) == 2


@pytest.mark.parametrize("broken", ["reference", "candidate"])
def test_an_output_that_is_not_finite_never_passes(broken):
    def spoil(v):
        return np.where(v == 3, NAN, v)

    sessions = {side: Session(spoil if side == broken else lambda v: v) for side in ("reference", "candidate")}
    report = evaluate(sessions["reference"], {"x": Candidate(sessions["candidate"])}, Pictures(12), PRE, crops=1)
    features, maps = report.legs[0].outputs
    assert (features.non_finite, maps.non_finite) == (1, 0)
    figures = (features.cosine_mean, features.cosine_min, features.error_percent, features.error_max_percent)
    assert all(map(math.isnan, (*figures, features.neighbours_percent)))
    assert maps.cosine_min == 1
    assert failures(report) == ("x or the original answers NaN or infinity in features on 1 of 12 images",)


def test_a_session_without_an_output_is_refused():
    lacking = Session(names=("logits", "map"))
    fix = r"fix: build it again, with --outputs logits,features,map"
    with pytest.raises(SpecError, match=rf"x lacks the output 'features'; it answers with logits, map\n  {fix}"):
        evaluate(Session(), {"x": Candidate(lacking)}, Pictures(1), PRE)
    assert evaluate(lacking, {"x": Candidate(Session())}, Pictures(1), PRE).legs[0].outputs[0].name == "map"


def test_an_output_of_another_shape_is_refused():
    other = Session()
    other.outputs = (*other.outputs[:2], TensorSpec("map", (2, 2, 2)))
    with pytest.raises(SpecError, match=r"answers with map of shape \(1, 2, 2\), and x with shape \(2, 2, 2\)"):
        evaluate(Session(), {"x": Candidate(other)}, Pictures(1), PRE)
    broken = Session(maps=lambda v: v.reshape(-1, 4))
    with pytest.raises(ToolError, match=r"x: output 'map' has shape \(1, 4\) for a batch of 1"):
        evaluate(Session(), {"x": Candidate(broken)}, Pictures(1), PRE, crops=1)


def test_a_map_first_is_no_row_of_logits():
    with pytest.raises(SpecError, match=r"output 'map' is no row of logits: \(1, 2, 2\)"):
        evaluate(Session(names=("map", "logits")), {}, Pictures(1), PRE)
