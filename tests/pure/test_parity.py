"""Evaluation and gate, on sessions whose every answer is known."""

import math
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.parity.evaluate import evaluate
from dlcv_deploy.parity.gate import failures, passes
from dlcv_deploy.types import BATCH, Flip, Leg, ParityReport, Preprocess, TensorSpec

PRE = Preprocess(2, 4, "pad", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # the input is the pixel's value
CLASSES = 4


class Told:
    """A session that answers each crop as ``answer`` says, and remembers the batches it was given."""

    def __init__(self, answer, classes=CLASSES, dtype="float32"):
        self.inputs = (TensorSpec("image", (3, 2, 2), dtype), TensorSpec("unused", (1,)))
        self.outputs = (TensorSpec("logits", (classes,)), TensorSpec("other", (7,)))
        self.answer, self.batches = answer, []

    def run(self, feeds):
        assert list(feeds) == ["image"]
        x = feeds["image"]
        assert x.dtype == self.inputs[0].dtype
        self.batches.append(x.copy())
        return {"other": np.zeros((len(x), 7)), "logits": self.answer(x)}

    def close(self):
        pass


class Pictures:
    """Image ``i`` is ``values[i]`` in every pixel and channel."""

    source = "drawn"

    def __init__(self, values, labels=None):
        self.values = values
        self.labels = None if labels is None else np.array(labels, np.int64)
        self.threads = set()

    def __len__(self):
        return len(self.values)

    def image(self, i):
        self.threads.add(threading.get_ident())
        return np.full((2, 2, 3), self.values[i], np.uint8)

    def name(self, i):
        return f"picture {i}"


def looked_up(rows):
    """Answers by the brightest pixel of a crop, which a black border leaves alone."""
    table = np.array(rows, np.float32)
    return lambda x: table[x.max((1, 2, 3)).astype(int)]


def one_hot(classes, by=8.0):
    return looked_up(by * np.eye(CLASSES)[list(classes)])


def test_every_figure_by_hand():
    #            image 0  1  2  3  4
    reference = Told(one_hot([0, 1, 2, 3, 0]))  # right on 0, 1, 2, 3
    candidate = Told(one_hot([0, 2, 2, 0, 1]))  # right on 0, 2, 4: flips 1, 3, 4; loses 1, 3; gains 4
    samples = Pictures(range(5), [0, 1, 2, 3, 1])
    report = evaluate(reference, {"int8": candidate, "gpu": "no GPU"}, samples, PRE, crops=1)
    assert (report.source, report.images, report.crops, report.labelled) == ("drawn", 5, 1, True)
    assert (report.top1, report.top5, report.non_finite) == (80.0, 100.0, 0)
    leg, absent = report.legs
    assert (leg.name, leg.top1, leg.top5, leg.drop, leg.agreement) == ("int8", 60.0, 100.0, 20.0, 40.0)
    assert leg.drop_low < 20 < leg.drop_high
    assert leg.flips == (
        Flip(1, "picture 1", 1, 1, 2),
        Flip(3, "picture 3", 3, 3, 0),
        Flip(4, "picture 4", 1, 0, 1),
    )
    assert leg.logit_max_abs == 8
    assert leg.logit_sqnr_db == pytest.approx(10 * math.log10(5 * 64 / (3 * 128)))
    assert absent == Leg("gpu", not_run="no GPU")


def test_without_labels_there_is_agreement_only():
    samples = Pictures(range(3))
    report = evaluate(Told(one_hot([0, 1, 2])), {"x": Told(one_hot([0, 1, 3]))}, samples, PRE, crops=1)
    assert (report.labelled, report.top1, report.top5) == (False, None, None)
    (leg,) = report.legs
    assert (leg.top1, leg.top5, leg.drop, leg.drop_low, leg.drop_high) == (None,) * 5
    assert leg.agreement == pytest.approx(200 / 3)
    assert leg.flips == (Flip(2, "picture 2", -1, 2, 3),)


def test_all_sessions_see_the_same_pixels_of_ten_crops():
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) + 1
    samples = Pictures([0])
    samples.image = lambda i: x
    one, two = Told(lambda x: np.zeros((len(x), CLASSES))), Told(lambda x: np.zeros((len(x), CLASSES)), dtype="float16")
    evaluate(one, {"half": two}, samples, PRE, crops=10)
    (seen,) = one.batches
    assert seen.shape == (10, 3, 2, 2)
    assert np.array_equal(seen[4], x.transpose(2, 0, 1))
    assert np.array_equal(seen[9], x[:, ::-1].transpose(2, 0, 1))
    assert np.array_equal(seen[0], np.pad(x[:1, :1], ((1, 0), (1, 0), (0, 0))).transpose(2, 0, 1))
    assert np.array_equal(two.batches[0], seen.astype(np.float16))


def test_it_is_probabilities_that_are_averaged_over_crops():
    # nine crops lean to class 1, one is beyond doubt for class 0: logits averaged say 0, probabilities say 1
    def answer(x):
        crops = np.zeros((len(x), CLASSES), np.float32)
        crops[:, 1] = 2.0
        crops[::10] = [100, 0, 0, 0]
        return crops

    report = evaluate(Told(answer), {}, Pictures([1, 1], [1, 1]), PRE, crops=10)
    assert report.top1 == 100.0
    assert answer(np.zeros(10))[:, 0].mean() > answer(np.zeros(10))[:, 1].mean()


def test_one_crop_ranks_logits_that_probabilities_could_not_tell_apart():
    rows = [[0, -5000, -3000, -4000], [0, -3000, -5000, -4000]]
    samples = Pictures([0, 1], [2, 1])
    wide = Told(lambda x: np.repeat(looked_up(rows)(x), 3, 1), classes=12)
    report = evaluate(wide, {}, Pictures([0, 1], [7, 11]), PRE, crops=1)
    # 12 classes: 0 three times, then -3000 three times; class 7 (image 0) ranks fifth, class 11 (image 1) ninth
    assert (report.top1, report.top5) == (0.0, 50.0)
    assert evaluate(Told(looked_up(rows)), {}, samples, PRE, crops=1).top1 == 0.0


@pytest.mark.parametrize("crops", [1, 10])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_not_finite_is_wrong_flipped_and_counted(bad, crops):
    def broken(x):
        out = one_hot([0, 1, 2])(x)
        out[-1, 3] = bad  # one value of the last crop of the last image
        return out

    samples = Pictures([0, 1, 2], [0, 1, 2])
    report = evaluate(Told(one_hot([0, 1, 2])), {"x": Told(broken)}, samples, PRE, crops=crops, max_batch=64)
    (leg,) = report.legs
    assert (report.top1, leg.top1, leg.top5, leg.non_finite) == (
        100.0,
        pytest.approx(200 / 3),
        pytest.approx(200 / 3),
        1,
    )
    assert leg.flips == (Flip(2, "picture 2", 2, 2, -1),)
    assert math.isnan(leg.logit_max_abs)
    assert math.isnan(leg.logit_sqnr_db)
    assert not passes(report)
    assert failures(report) == ("x answers NaN or infinity on 1 of 3 images",)


def test_a_reference_that_is_not_finite_is_found_too():
    def broken(x):
        return np.full((len(x), CLASSES), np.nan, np.float32)

    report = evaluate(Told(broken), {"x": Told(broken)}, Pictures([0, 1], [0, 0]), PRE, crops=1)
    assert (report.top1, report.non_finite, report.legs[0].agreement, report.legs[0].top1) == (0, 2, 0, 0)
    assert [(f.reference, f.candidate) for f in report.legs[0].flips] == [(-1, -1), (-1, -1)]
    assert failures(report, 0)[0] == "the original answers NaN or infinity on 2 of 2 images"


@pytest.mark.parametrize(("crops", "batch_images", "max_batch"), [(1, None, 64), (1, 3, 2), (10, None, 64), (10, 2, 7)])
def test_batches_do_not_change_the_report(crops, batch_images, max_batch):
    values = [i % CLASSES for i in range(11)]
    reference, candidate = Told(one_hot([0, 1, 2, 3])), Told(one_hot([0, 1, 3, 3], 5.0))
    samples = Pictures(values, [*values[:8], 0, 0, 0])
    how = {"crops": crops, "batch_images": batch_images, "max_batch": max_batch}
    report = evaluate(reference, {"x": candidate}, samples, PRE, **how)
    assert max(map(len, reference.batches + candidate.batches)) <= max_batch
    assert sum(map(len, reference.batches)) == sum(map(len, candidate.batches)) == 11 * crops
    alone = evaluate(Told(reference.answer), {"x": Told(candidate.answer)}, samples, PRE, crops=crops, batch_images=1)
    assert report == alone
    assert (report.top1, report.legs[0].top1) == (pytest.approx(900 / 11), pytest.approx(700 / 11))
    assert [flip.index for flip in report.legs[0].flips] == [2, 6, 10]


def test_the_default_batch_fills_the_profile():
    reference = Told(one_hot([0]))
    evaluate(reference, {}, Pictures([0] * 70), PRE, crops=10)
    assert {len(b) for b in reference.batches} == {60, 40}
    assert BATCH.hi == 64


def test_images_are_read_two_batches_ahead_at_most_and_in_another_thread():
    samples, seen = Pictures([0] * 40), []
    read = []
    image = samples.image
    samples.image = lambda i: (read.append(i), image(i))[1]

    def answer(x):
        seen.append(len(read))
        return np.zeros((len(x), CLASSES))

    evaluate(Told(answer), {}, samples, PRE, crops=1, batch_images=4)
    assert len(samples.threads) == 1
    assert threading.get_ident() not in samples.threads
    assert all(count <= 4 * (i + 2) for i, count in enumerate(seen))


def test_the_next_images_are_read_while_a_session_runs():
    samples, reading, running = Pictures([0] * 2), threading.Event(), threading.Event()
    image, met = samples.image, []

    def slow(i):
        if i == 1:  # neither goes on before the other has begun
            reading.set()
            met.append(running.wait(20))
        return image(i)

    def answer(x):
        running.set()
        met.append(reading.wait(20))
        return np.zeros((len(x), CLASSES))

    samples.image = slow
    evaluate(Told(answer), {}, samples, PRE, crops=1, batch_images=1)
    assert met == [True] * 3


def test_an_error_of_the_samples_comes_through():
    samples = Pictures([0] * 10)
    image = samples.image
    samples.image = lambda i: image(i) if i < 7 else np.zeros((5, 5, 3), np.uint8)
    with pytest.raises(SpecError, match="5 x 5 pixels"):
        evaluate(Told(one_hot([0])), {}, samples, PRE, crops=1, batch_images=2)


def test_progress_is_told_of_every_image():
    told = []

    @contextmanager
    def progress(what, total):
        told.append((what, total))
        yield told.append

    evaluate(Told(one_hot([0])), {}, Pictures([0] * 5), PRE, crops=1, batch_images=2, progress=progress)
    assert told == [("parity", 5), 2, 2, 1]


@pytest.mark.parametrize(
    ("samples", "candidate", "options", "error", "message"),
    [
        (Pictures([]), None, {}, SpecError, r"no images to compare on \(drawn\)"),
        (Pictures([0], [4]), None, {}, SpecError, "a label is 4, and the network's classes are 0 to 3"),
        (Pictures([0], [-1]), None, {}, SpecError, "a label is -1"),
        (Pictures([0], [1, 2]), None, {}, SpecError, r"1 images, and labels of shape \(2,\)"),
        (Pictures([0]), None, {"crops": 3}, SpecError, "3 crops"),
        (Pictures([0]), None, {"max_batch": 0}, SpecError, "0 crops a run"),
        (Pictures([0]), Told(one_hot([0]), classes=5), {}, SpecError, r"4 classes, and x with shape \(5,\)"),
        (Pictures([0]), Told(lambda x: np.zeros((1, 9))), {}, ToolError, r"x: output 'logits' has shape \(1, 9\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(samples, candidate, options, error, message):
    candidates = {} if candidate is None else {"x": candidate}
    with pytest.raises(error, match=message):
        evaluate(Told(one_hot([0])), candidates, samples, PRE, **{"crops": 1, **options})


def report_of(*legs, labelled=True):
    return ParityReport("some images", 1000, 10, labelled, 90.0, 99.0, legs)


def test_the_gate_holds_the_measured_drop_against_the_limit():
    at, above = Leg("at", drop=0.2, drop_low=-1.0, drop_high=3.0), Leg("above", drop=0.3)
    assert passes(report_of(at), 0.2)
    assert passes(report_of(Leg("better", drop=-0.4)), 0)
    assert failures(report_of(at, above), 0.2) == (
        "above loses 0.30 points of top-1 accuracy, and at most 0.2 may be lost",
    )
    assert passes(report_of(at, above))


@pytest.mark.parametrize("drop", [math.nan, None])
def test_an_unknown_drop_does_not_pass(drop):
    assert not passes(report_of(Leg("x", drop=drop)), 100)


def test_what_was_not_run_has_not_passed():
    ran, absent = Leg("cpu", drop=0.0), Leg("gpu", not_run="no GPU")
    assert failures(report_of(ran, absent), 1) == ("gpu was not run, so it has not passed: no GPU",)
    assert passes(report_of(ran, absent), 1, not_run_fails=False)
    assert failures(report_of(absent), 1, not_run_fails=False) == (
        "nothing was run beside the original, so nothing has passed",
    )
    assert passes(report_of(absent))


def test_a_limit_needs_labels_and_sense():
    with pytest.raises(SpecError, match=r"some images\) carry no labels\n.*leave --max-drop out"):
        passes(report_of(Leg("x", agreement=100.0), labelled=False), 1)
    for limit in (math.nan, math.inf, -1):
        with pytest.raises(SpecError, match="is no limit"):
            passes(report_of(Leg("x", drop=0.0)), limit)
