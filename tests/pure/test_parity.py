"""Evaluation, on sessions whose every answer is known."""

import base64
import dataclasses as dc
import io
import math
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from dlcv_deploy.errors import ArtifactError, SpecError, ToolError
from dlcv_deploy.latency.measure import cores
from dlcv_deploy.parity.answers import Candidate, Kept
from dlcv_deploy.parity.evaluate import evaluate
from dlcv_deploy.parity.gate import failures, passes
from dlcv_deploy.parity.statistics import loss, verdicts
from dlcv_deploy.parity.thumbnails import SHOWN, thumbnail
from dlcv_deploy.parity.values import ClassCount, Flip, Leg, Step
from dlcv_deploy.store import Store
from dlcv_deploy.types import BATCH, Preprocess, TensorSpec

PRE = Preprocess(2, 4, "pad", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # the input is the pixel's value
CLASSES = 4


class Told:
    """A session that answers each crop as ``answer`` says, and remembers the batches it was given."""

    def __init__(self, answer, classes=CLASSES, dtype="float32"):
        self.inputs = (TensorSpec("image", (3, 2, 2), dtype), TensorSpec("unused", (1,)))
        self.outputs = (TensorSpec("logits", (classes,)),)
        self.answer, self.batches = answer, []

    def run(self, feeds):
        assert list(feeds) == ["image"]
        x = feeds["image"]
        assert x.dtype == self.inputs[0].dtype
        self.batches.append(x.copy())
        return {"logits": self.answer(x)}

    def close(self):
        pass


class Pictures:
    """Image ``i`` is ``values[i]`` in every pixel and channel."""

    source, rotated = "drawn", 3

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

    def digest_of(self, i):
        return f"grey {self.values[i]}"


def beside(**sessions):
    """Each a step further than the one before it."""
    found, previous = {}, ""
    for name, session in sessions.items():
        found[name] = Candidate(session, previous, f"identity of {name}")
        previous = name
    return found


def looked_up(rows):
    """Answers by the brightest pixel of a crop, which a black border leaves alone."""
    table = np.array(rows, np.float32)
    return lambda x: table[x.max((1, 2, 3)).astype(int)]


def one_hot(classes, by=8.0):
    return looked_up(by * np.eye(CLASSES)[list(classes)])


def bare(flips):
    """Without the pictures."""
    return tuple(dc.replace(flip, thumbnail="") for flip in flips)


SURE = 1 - 1 / math.exp(8)  # of the best class over the next, as a share of the best's probability
MARGIN = SURE / (1 + 3 / math.exp(8))


def test_every_figure_by_hand():
    #            image 0  1  2  3  4
    reference = Told(one_hot([0, 1, 2, 3, 0]))  # right on 0, 1, 2, 3
    candidate = Told(one_hot([0, 2, 2, 0, 1]))  # right on 0, 2, 4: flips 1, 3, 4; loses 1, 3; gains 4
    samples = Pictures(range(5), [0, 1, 2, 3, 1])
    report = evaluate(reference, beside(int8=candidate, gpu="no GPU"), samples, PRE, crops=1, margin=2.5)
    assert (report.source, report.images, report.crops, report.labelled) == ("drawn", 5, 1, True)
    assert (report.top1, report.top5, report.non_finite) == (80.0, 100.0, 0)
    assert (report.average, report.margin, report.rotated) == ("softmax", 2.5, 3)
    leg, absent = report.legs
    assert (leg.name, leg.top1, leg.top5, leg.drop, leg.agreement) == ("int8", 60.0, 100.0, 20.0, 40.0)
    assert leg.losses == (loss(1, 2, 1, 5), loss(5, 0, 0, 5))
    assert leg.verdicts == (*verdicts(80.0, leg.losses[0], 5, 2.5), *verdicts(100.0, leg.losses[1], 5, 2.5))
    margins = pytest.approx(MARGIN), pytest.approx(MARGIN)
    assert bare(leg.flips) == (
        Flip(1, "picture 1", 1, 1, 2, *margins),
        Flip(3, "picture 3", 3, 3, 0, *margins),
        Flip(4, "picture 4", 1, 0, 1, *margins),
    )
    assert [flip.change for flip in leg.flips] == ["right to wrong", "right to wrong", "wrong to right"]
    assert leg.logit_max_abs == 8
    assert leg.logit_sqnr_db == pytest.approx(10 * math.log10(5 * 64 / (3 * 128)))
    assert leg.cosine == 0.4  # two answers are the same, three at right angles
    assert leg.step == Step("PyTorch fp32", 20.0, 3, 0.4, leg.logit_sqnr_db, 8.0)
    assert leg.classes == (
        ClassCount(0, 1, 1, 1, 0, 0),
        ClassCount(1, 2, 1, 1, 1, 1),
        ClassCount(2, 1, 1, 1, 0, 0),
        ClassCount(3, 1, 1, 0, 1, 0),
    )
    assert absent == Leg("gpu", not_run="no GPU")


def test_classes_are_those_that_have_images():
    report = evaluate(Told(one_hot([0, 1])), beside(x=Told(one_hot([0, 0]))), Pictures([0, 1], [3, 1]), PRE, crops=1)
    assert report.legs[0].classes == (ClassCount(1, 1, 1, 0, 1, 0), ClassCount(3, 1, 0, 0, 0, 0))


def test_top5_has_a_loss_of_its_own():
    rows = np.arange(7, 0, -1.0)[None].repeat(2, 0)  # class 5 ranks sixth
    other = rows.copy()
    other[1, 5] = 10
    ask = {"crops": 1}
    one, two = Told(looked_up(rows), classes=7), Told(looked_up(other), classes=7)
    (leg,) = evaluate(one, beside(x=two), Pictures([0, 1, 1], [0, 5, 0]), PRE, **ask).legs
    assert [(k.k, k.lost, k.gained) for k in leg.losses] == [(1, 1, 1), (5, 0, 1)]
    assert (leg.top1, leg.top5) == (pytest.approx(200 / 3), 100)


def test_each_step_is_held_against_the_one_before_it():
    graph = Told(one_hot([0, 1, 2, 0]))  # loses image 3
    half = Told(one_hot([0, 1, 3, 0]))  # and 2
    engine = Told(one_hot([0, 1, 3, 3], 16.0))  # gains 3 back, at twice the logits
    candidates = {
        "fp32": Candidate(graph),
        "fp16": Candidate(half, "fp32"),
        "absent": Candidate("not here", "fp16"),
        "engine": Candidate(engine, "absent"),
    }
    report = evaluate(Told(one_hot([0, 1, 2, 3])), candidates, Pictures(range(4), [0, 1, 2, 3]), PRE, crops=1)
    one, two, absent, three = report.legs
    assert [leg.drop for leg in (one, two, three)] == [25.0, 50.0, 25.0]
    assert one.step == Step("PyTorch fp32", 25.0, 1, 0.75, pytest.approx(10 * math.log10(4 / 2)), 8.0)
    assert two.step == Step("fp32", 25.0, 1, 0.75, pytest.approx(10 * math.log10(4 / 2)), 8.0)
    noise = 3 * 64 + 64 + 256  # three logits doubled, one moved
    assert three.step == Step("fp16", -25.0, 1, 0.75, pytest.approx(10 * math.log10(4 * 64 / noise)), 16.0)
    assert absent.step is None


def test_a_step_from_what_could_not_run_is_one_from_the_original():
    candidates = {"fp32": Candidate("no ONNX Runtime"), "x": Candidate(Told(one_hot([1])), "fp32")}
    report = evaluate(Told(one_hot([0])), candidates, Pictures([0], [0]), PRE, crops=1)
    assert report.legs[1].step.previous == "PyTorch fp32"
    assert report.legs[1].step.drop == report.legs[1].drop == 100


def test_without_labels_there_is_agreement_only():
    samples = Pictures(range(3))
    report = evaluate(Told(one_hot([0, 1, 2])), beside(x=Told(one_hot([0, 1, 3]))), samples, PRE, crops=1)
    assert (report.labelled, report.top1, report.top5) == (False, None, None)
    (leg,) = report.legs
    assert (leg.top1, leg.top5, leg.drop, leg.losses, leg.verdicts, leg.classes) == (None, None, None, (), (), ())
    assert leg.agreement == pytest.approx(200 / 3)
    (flip,) = bare(leg.flips)
    assert (flip.index, flip.label, flip.reference, flip.candidate, flip.change) == (2, -1, 2, 3, "changed")
    assert leg.step == Step("PyTorch fp32", None, 1, leg.cosine, leg.logit_sqnr_db, 8.0)


@pytest.mark.parametrize("labels", [None, [2]])
def test_one_image(labels):
    report = evaluate(Told(one_hot([2])), beside(x=Told(one_hot([2]))), Pictures([0], labels), PRE)
    assert (report.images, report.legs[0].agreement, report.legs[0].cosine) == (1, 100, 1)
    assert report.legs[0].drop == (None if labels is None else 0)
    assert all(verdict.outcome == "not shown" for verdict in report.legs[0].verdicts)


def test_all_sessions_see_the_same_pixels_of_ten_crops():
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) + 1
    samples = Pictures([0])
    samples.image = lambda i: x
    one, two = Told(lambda x: np.zeros((len(x), CLASSES))), Told(lambda x: np.zeros((len(x), CLASSES)), dtype="float16")
    evaluate(one, beside(half=two), samples, PRE, crops=10)
    (seen,) = one.batches
    assert seen.shape == (10, 3, 2, 2)
    assert np.array_equal(seen[4], x.transpose(2, 0, 1))
    assert np.array_equal(seen[9], x[:, ::-1].transpose(2, 0, 1))
    assert np.array_equal(seen[0], np.pad(x[:1, :1], ((1, 0), (1, 0), (0, 0))).transpose(2, 0, 1))
    assert np.array_equal(two.batches[0], seen.astype(np.float16))


def leaning(x):
    """Nine crops lean to class 1, one is beyond doubt for class 0: logits averaged say 0, probabilities say 1."""
    crops = np.zeros((len(x), CLASSES), np.float32)
    crops[:, 1] = 2.0
    crops[::10] = [100, 0, 0, 0]
    return crops


@pytest.mark.parametrize(("average", "top1"), [("softmax", 100.0), ("logits", 0.0)])
def test_probabilities_are_averaged_over_crops_or_logits_where_asked(average, top1):
    report = evaluate(Told(leaning), {}, Pictures([1, 1], [1, 1]), PRE, crops=10, average=average)
    assert (report.top1, report.average) == (top1, average)


def test_margins_are_of_the_averaged_answer():
    rest = math.exp(2) / (math.exp(2) + 3), 1 / (math.exp(2) + 3)
    sure = Told(one_hot([3]))
    ask = {"x": Candidate(sure)}, Pictures([0]), PRE
    (flip,) = evaluate(Told(leaning), *ask, crops=10).legs[0].flips
    assert flip.margin_before == pytest.approx(0.9 * rest[0] - (0.1 + 0.9 * rest[1]))
    assert flip.margin_after == pytest.approx(MARGIN)
    (flip,) = evaluate(Told(leaning), *ask, crops=10, average="logits").legs[0].flips
    logits = np.exp([10, 1.8, 0, 0])
    assert flip.margin_before == pytest.approx((logits[0] - logits[1]) / logits.sum())


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
    report = evaluate(Told(one_hot([0, 1, 2])), beside(x=Told(broken)), samples, PRE, crops=crops, max_batch=64)
    (leg,) = report.legs
    assert (report.top1, leg.top1, leg.top5, leg.non_finite) == (
        100.0,
        pytest.approx(200 / 3),
        pytest.approx(200 / 3),
        1,
    )
    (flip,) = leg.flips
    assert (flip.index, flip.reference, flip.candidate, flip.change) == (2, 2, -1, "right to wrong")
    assert flip.margin_before == pytest.approx(MARGIN)
    assert flip.margin_after is None
    assert math.isnan(leg.cosine)
    assert (leg.step.drop, leg.step.flips) == (pytest.approx(100 / 3), 1)
    assert math.isnan(leg.logit_max_abs)
    assert math.isnan(leg.logit_sqnr_db)
    assert not passes(report)
    assert failures(report) == ("x answers NaN or infinity on 1 of 3 images",)


def test_a_reference_that_is_not_finite_is_found_too():
    def broken(x):
        return np.full((len(x), CLASSES), np.nan, np.float32)

    report = evaluate(Told(broken), beside(x=Told(broken)), Pictures([0, 1], [0, 0]), PRE, crops=1)
    assert (report.top1, report.non_finite, report.legs[0].agreement, report.legs[0].top1) == (0, 2, 0, 0)
    assert [(f.reference, f.candidate) for f in report.legs[0].flips] == [(-1, -1), (-1, -1)]
    assert [(f.margin_before, f.margin_after) for f in report.legs[0].flips] == [(None, None)] * 2
    assert failures(report, 0)[0] == "the original answers NaN or infinity on 2 of 2 images"


@pytest.mark.parametrize(("crops", "batch_images", "max_batch"), [(1, None, 64), (1, 3, 2), (10, None, 64), (10, 2, 7)])
def test_batches_do_not_change_the_report(crops, batch_images, max_batch):
    values = [i % CLASSES for i in range(11)]
    reference, candidate = Told(one_hot([0, 1, 2, 3])), Told(one_hot([0, 1, 3, 3], 5.0))
    samples = Pictures(values, [*values[:8], 0, 0, 0])
    how = {"crops": crops, "batch_images": batch_images, "max_batch": max_batch}
    report = evaluate(reference, beside(x=candidate), samples, PRE, **how)
    assert max(map(len, reference.batches + candidate.batches)) <= max_batch
    assert sum(map(len, reference.batches)) == sum(map(len, candidate.batches)) == 11 * crops
    alone = evaluate(
        Told(reference.answer), beside(x=Told(candidate.answer)), samples, PRE, crops=crops, batch_images=1
    )
    assert report == alone
    assert (report.top1, report.legs[0].top1) == (pytest.approx(900 / 11), pytest.approx(700 / 11))
    assert [flip.index for flip in report.legs[0].flips] == [2, 6, 10]


def test_the_default_batch_fills_the_profile():
    reference = Told(one_hot([0]))
    evaluate(reference, {}, Pictures([0] * 70), PRE, crops=10)
    assert {len(b) for b in reference.batches} == {60, 40}
    assert BATCH.hi == 64


def test_images_are_read_a_batch_a_core_ahead_at_most_and_in_other_threads():
    samples, seen = Pictures([0] * 80), []
    read = []
    image = samples.image
    samples.image = lambda i: (read.append(i), image(i))[1]

    def answer(x):
        seen.append(len(read))
        return np.zeros((len(x), CLASSES))

    evaluate(Told(answer), {}, samples, PRE, crops=1, batch_images=4)
    assert threading.get_ident() not in samples.threads
    assert len(samples.threads) <= min(cores(), 16)
    assert all(count <= 4 * (i + 1 + min(cores(), 16)) for i, count in enumerate(seen))


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


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    from PIL import Image

    from dlcv_deploy.calibration.samples import open_samples

    for name in "abc":
        Image.new("RGB", (2, 2)).save(tmp_path / f"{name}.png")
    samples = open_samples(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    with pytest.raises(ArtifactError, match=r"image b\.png cannot be read"):
        evaluate(Told(one_hot([0])), {}, samples, PRE, crops=1, batch_images=1)


def test_progress_is_told_of_every_image():
    told = []

    @contextmanager
    def progress(what, total, unit=""):
        told.append((what, total, unit))
        yield told.append

    evaluate(Told(one_hot([0])), {}, Pictures([0] * 5), PRE, crops=1, batch_images=2, progress=progress)
    assert told == [("parity", 5, "images"), 2, 2, 1]


@pytest.mark.parametrize(
    ("samples", "candidate", "options", "error", "message"),
    [
        (Pictures([]), None, {}, SpecError, r"no images to compare on \(drawn\)"),
        (Pictures([0], [4]), None, {}, SpecError, "a label is 4, and the network's classes are 0 to 3"),
        (Pictures([0], [-1]), None, {}, SpecError, "a label is -1"),
        (Pictures([0], [1, 2]), None, {}, SpecError, r"1 images, and labels of shape \(2,\)"),
        (Pictures([0]), None, {"crops": 3}, SpecError, "3 crops"),
        (Pictures([0]), None, {"max_batch": 0}, SpecError, "0 crops a run"),
        (Pictures([0]), None, {"margin": 0}, SpecError, "margin of 0 points cannot be shown"),
        (Pictures([0]), None, {"margin": math.nan}, SpecError, "margin of nan points"),
        (Pictures([0]), Told(one_hot([0]), classes=5), {}, SpecError, r"4 classes, and x with shape \(5,\)"),
        (Pictures([0]), Told(lambda x: np.zeros((1, 9))), {}, ToolError, r"x: output 'logits' has shape \(1, 9\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(samples, candidate, options, error, message):
    candidates = {} if candidate is None else beside(x=candidate)
    with pytest.raises(error, match=message):
        evaluate(Told(one_hot([0])), candidates, samples, PRE, **{"crops": 1, **options})


# Thumbnails


def picture(flip):
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(flip.thumbnail)))


def test_what_went_from_right_to_wrong_has_thumbnails_first():
    values = [0] * 30 + [1] * 30  # class 0 was right and goes, class 1 was wrong and is found
    samples = Pictures(values, values)
    (leg,) = evaluate(Told(one_hot([0, 2])), beside(x=Told(one_hot([3, 1]))), samples, PRE, crops=1).legs
    shown = [flip.index for flip in leg.flips if flip.thumbnail]
    assert [flip.index for flip in leg.flips] == list(range(60))
    assert (SHOWN, shown) == (32, list(range(32)))
    samples = Pictures(values[::-1], values[::-1])
    (leg,) = evaluate(Told(one_hot([0, 2])), beside(x=Told(one_hot([3, 1]))), samples, PRE, crops=1).legs
    assert [flip.index for flip in leg.flips if flip.thumbnail] == [0, 1, *range(30, 60)]
    assert np.array_equal(np.asarray(picture(leg.flips[0])), samples.image(0))


def test_a_thumbnail_is_small():
    for shape, size in (((500, 250, 3), (48, 96)), ((250, 500, 3), (96, 48))):
        flip = Flip(0, "", 0, 0, 1, thumbnail=thumbnail(np.full(shape, 7, np.uint8)))
        assert (picture(flip).format, picture(flip).size) == ("JPEG", size)
    assert len(thumbnail(np.random.default_rng(0).integers(0, 256, (999, 999, 3), np.uint8))) < 12_000  # noise


# Answers kept


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr("dlcv_deploy.parity.feed._CHUNK_IMAGES", 4)
    return Kept(Store(tmp_path), "the original's identity")


SESSIONS = (one_hot([0, 1, 2, 3] * 3), one_hot([0, 1, 3, 3] * 3, 5.0))
MANY = Pictures(range(11), [i % 3 for i in range(11)])


def asked(session):
    return sum(map(len, session.batches))


@pytest.mark.parametrize("crops", [1, 10])
def test_what_was_answered_is_not_asked_again(kept, crops):
    ask = {"crops": crops, "batch_images": 2, "kept": kept}
    first = evaluate(Told(SESSIONS[0]), beside(x=Told(SESSIONS[1])), MANY, PRE, **ask)
    assert first == evaluate(Told(SESSIONS[0]), beside(x=Told(SESSIONS[1])), MANY, PRE, **{**ask, "kept": None})
    again, other = Told(SESSIONS[0]), Told(SESSIONS[1])
    MANY.threads.clear()
    assert evaluate(again, beside(x=other), MANY, PRE, **ask) == first
    assert asked(again) == asked(other) == 0
    assert len(MANY.threads) == 1  # flips' thumbnails alone, in this one
    named = evaluate(again, beside(x=other), MANY, PRE, **ask, average="logits")
    assert (named.average, asked(again)) == ("logits", 0)


def test_a_second_engine_does_not_run_the_reference(kept):
    ask = {"crops": 1, "kept": kept}
    evaluate(Told(SESSIONS[0]), beside(x=Told(SESSIONS[1])), MANY, PRE, **ask)
    reference, second = Told(SESSIONS[0]), Told(SESSIONS[0])
    report = evaluate(reference, beside(second=second), MANY, PRE, **ask)
    assert (asked(reference), asked(second), report.legs[0].agreement) == (0, 11, 100)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ToolError])
def test_a_run_that_was_cut_off_goes_on_in_the_chunk_where_it_ended(kept, stop):
    def breaking(x):
        if asked(broken) > 7:  # in the second chunk, of images 4 to 7
            raise stop("stopped")
        return SESSIONS[1](x)

    broken = Told(breaking)
    ask = {"crops": 1, "batch_images": 2, "kept": kept}
    with pytest.raises(stop):
        evaluate(Told(SESSIONS[0]), beside(x=broken), MANY, PRE, **ask)
    reference, candidate = Told(SESSIONS[0]), Told(SESSIONS[1])
    report = evaluate(reference, beside(x=candidate), MANY, PRE, **ask)
    assert asked(reference) == asked(candidate) == 7
    assert report == evaluate(Told(SESSIONS[0]), beside(x=Told(SESSIONS[1])), MANY, PRE, **{**ask, "kept": None})


@pytest.mark.parametrize(
    "other",
    [
        {"pre": dc.replace(PRE, mean=(0.5, 0.0, 0.0))},
        {"crops": 10},
        {"batch_images": 1},
        {"samples": Pictures(range(1, 12))},
        {"kept": "another identity"},
    ],
)
def test_answers_to_something_else_are_not_taken(kept, other):
    ask = {"pre": PRE, "crops": 1, "batch_images": 2, "samples": Pictures(range(11)), "kept": kept}
    evaluate(Told(one_hot([0] * 11)), {}, **ask)
    session = Told(lambda x: np.zeros((len(x), CLASSES)))
    if "kept" in other:
        other = {"kept": dc.replace(kept, original=other["kept"])}
    evaluate(session, {}, **{**ask, **other})
    assert asked(session) == 11 * {**ask, **other}["crops"]


def test_without_an_identity_nothing_is_kept(kept):
    for _ in range(2):
        session = Told(SESSIONS[1])
        evaluate(Told(SESSIONS[0]), {"x": Candidate(session)}, MANY, PRE, crops=1, kept=kept)
        assert asked(session) == 11


def test_answers_that_are_not_finite_are_not_kept(kept):
    def broken(x):
        return np.where(np.arange(len(x))[:, None] == 1, np.nan, SESSIONS[1](x))

    for engine in (Told(broken), Told(SESSIONS[1])):
        report = evaluate(Told(SESSIONS[0]), beside(x=engine), MANY, PRE, crops=1, batch_images=4, kept=kept)
        assert asked(engine) == 11
        assert passes(report) is (engine.answer is SESSIONS[1])
