"""Candidates are tried, scored and chosen among; and tried again on other images."""

import math

import numpy as np
import pytest

from dlcv_deploy.calibration.drawn import drawn
from dlcv_deploy.calibration.tournament import robustness, tournament
from dlcv_deploy.errors import ArtifactError, SpecError, ToolError
from dlcv_deploy.progress import silent

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(0, 3, (60, 4))
NOISE = RNG.normal(0, 1, (60, 4))
LABELS = REFERENCE.argmax(1)


def run(onnx):
    """Answers whose noise the "graph" names."""
    if onnx == b"refused":
        raise ToolError("the runtime refused it", fix="none")
    return REFERENCE + float(onnx) * NOISE


def gives(onnx):
    return lambda: onnx


def fails():
    raise SpecError("entropy is not defined here", fix="another method")


def test_the_best_wins_and_all_scores_are_kept():
    candidates = {"max": gives(b"0.5"), "mse": gives(b"0.1"), "entropy": fails, "percentile": gives(b"0.2")}
    result = tournament(candidates, run, REFERENCE, LABELS)
    assert (result.winner, result.closest) == ("mse", "mse")
    assert [score.name for score in result.scores] == list(candidates)
    assert result.scores[2].failed == "entropy is not defined here"
    assert result.scores[2].flips is result.scores[2].divergence is result.scores[2].sqnr_db is None
    assert result.scores[0].divergence > result.scores[3].divergence > result.scores[1].divergence > 0
    assert result.scores[0].sqnr_db < result.scores[3].sqnr_db < result.scores[1].sqnr_db
    assert result.scores[1].top1_reference == 100.0


def test_the_cheaper_of_equals_wins():
    result = tournament({"fast": gives(b"0.1"), "dear": gives(b"0.1")}, run, REFERENCE)
    assert (result.closest, result.winner) == ("fast", "fast")
    alike = {b"1": REFERENCE + 0.1 * NOISE, b"2": REFERENCE + 0.1 * NOISE[::-1]}
    for order in ((b"1", b"2"), (b"2", b"1")):
        result = tournament({name.decode(): gives(name) for name in order}, alike.__getitem__, REFERENCE)
        assert result.winner == order[0].decode()


@pytest.mark.parametrize("bad", [b"nan", b"inf", b"refused"])
def test_a_broken_candidate_never_wins(bad):
    result = tournament({"bad": gives(bad), "fair": gives(b"3")}, run, REFERENCE)
    assert result.winner == "fair"
    broken = result.scores[0]
    assert (broken.failed == "the runtime refused it") if bad == b"refused" else broken.non_finite == 60


def test_when_no_candidate_is_of_use_all_reasons_are_said():
    with pytest.raises(ToolError) as error:
        tournament({"a": fails, "b": gives(b"nan")}, run, REFERENCE)
    assert error.value.what == (
        "no candidate is of use: a: entropy is not defined here; b: NaN or infinity on 60 of 60 images"
    )
    with pytest.raises(SpecError, match="a tournament needs candidates"):
        tournament({}, run, REFERENCE)


def test_what_is_wrong_with_the_images_is_not_a_candidates_fault():
    def damaged():
        raise ArtifactError("an image is damaged")

    with pytest.raises(ArtifactError, match="an image is damaged"):
        tournament({"a": damaged, "b": gives(b"1")}, run, REFERENCE)


class Counted:
    def __init__(self):
        self.told = []

    def __call__(self, what, total):
        self.told.append((what, total))
        return silent(what, total)


IMAGES = drawn(8, 4)


def calibrated(subset):
    """A graph whose noise and a range that follow from the images."""
    mean = float(np.mean([subset.image(i).mean() for i in range(len(subset))]))
    return f"{mean / 1000}".encode(), {"input": 1.0, "dead": 0.0, "conv_1_out": mean}


def test_robustness_is_of_subsets_each_by_itself():
    progress, sizes = Counted(), []

    def calibrate(subset):
        sizes.append(len(subset))
        return calibrated(subset)

    found = robustness(calibrate, IMAGES, 4, run, REFERENCE, LABELS, progress=progress)
    assert sizes == [4] * 4
    assert found.images == 4
    assert progress.told == [("robustness", 4)]
    assert [score.name for score in found.scores] == ["draw 1", "draw 2", "draw 3", "draw 4"]
    counts = sorted(score.flips for score in found.scores)
    assert found.flips == (counts[0], (counts[1] + counts[2]) / 2, counts[3])
    each = np.array([score.divergence for score in found.scores])
    assert found.divergence == pytest.approx((each.mean(), each.std(ddof=1)), rel=1e-12)
    assert each.std() > 0


def test_the_tensors_that_differ_most_come_first():
    worst = robustness(calibrated, IMAGES, 3, run, REFERENCE).worst
    assert [spread.tensor for spread in worst] == ["conv_1_out", "dead", "input"]
    assert worst[0].low < worst[0].high
    assert worst[1].percent == worst[2].percent == 0

    ranges = iter([{"a": 1.0, "b": 4.0, "one": 3.0}, {"a": 3.0, "b": 5.0}])
    worst = robustness(lambda subset: (b"0", next(ranges)), IMAGES, 2, run, REFERENCE).worst
    assert [(s.tensor, s.low, s.high, s.percent) for s in worst] == [
        ("a", 1.0, 3.0, 100.0),
        ("b", 4.0, 5.0, pytest.approx(100 / 4.5)),
    ]


def test_ten_tensors_are_named():
    ranges = iter([{f"t{i}": 1.0 for i in range(20)}, {f"t{i}": 1.0 + i for i in range(20)}])
    worst = robustness(lambda subset: (b"0", next(ranges)), IMAGES, 2, run, REFERENCE).worst
    assert [spread.tensor for spread in worst] == [f"t{i}" for i in range(19, 9, -1)]


def test_a_subset_that_fails_is_recorded():
    answers = iter([b"refused", b"nan", b"0.1"])
    found = robustness(lambda subset: (next(answers), {"a": 1.0}), IMAGES, 3, run, REFERENCE)
    assert found.scores[0].failed == "the runtime refused it"
    assert found.flips == (1, 30.5, 60)
    assert all(map(math.isnan, found.divergence))
    with pytest.raises(ToolError, match="no subset can be calibrated on: entropy is not defined here"):
        robustness(lambda subset: fails(), IMAGES, 2, run, REFERENCE)
    with pytest.raises(SpecError, match="1 subset shows no spread"):
        robustness(calibrated, IMAGES, 1, run, REFERENCE)
