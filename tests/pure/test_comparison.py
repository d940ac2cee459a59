"""Two reports beside each other: images one by one, latency as shares, limits that nothing absent keeps to."""

import dataclasses as dc
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.compare import compare, failures
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.latency.values import Latency, LatencyReport, Quantile, Ratio, Validity
from dlcv_deploy.parity.statistics import loss, percent
from dlcv_deploy.parity.values import Flip, Leg, ParityReport
from dlcv_deploy.report.changes import remarks
from dlcv_deploy.report.comparison import between, discordance
from dlcv_deploy.report.document import (
    REFERENCE,
    CompiledEngine,
    Environment,
    File,
    Report,
    Weights,
    plain,
    to_json,
)
from dlcv_deploy.report.terminal import comparison_table
from dlcv_deploy.types import Preprocess

NONE = -1
PRE = Preprocess(32, 32, "resize", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def leg_of(name, original, answers, labels):
    """A leg as it is measured: accuracy, loss and flips of answers against the original's."""
    images = len(answers)
    flips = tuple(
        Flip(i, f"{i}.png", label, one, other)
        for i, (one, other, label) in enumerate(zip(original, answers, labels, strict=True))
        if one != other or one == NONE
    )
    agreement = percent(images - len(flips), images)
    non_finite = sum(answer == NONE for answer in answers)
    if labels[0] < 0:
        return Leg(name, agreement=agreement, flips=flips, non_finite=non_finite)
    right = [[a == label for a, label in zip(side, labels, strict=True)] for side in (original, answers)]
    lost = sum(a and not b for a, b in zip(*right, strict=True))
    gained = sum(b and not a for a, b in zip(*right, strict=True))
    top1 = percent(sum(right[1]), images)
    return Leg(
        name, top1, 100.0, (loss(1, lost, gained, images),), agreement=agreement, flips=flips, non_finite=non_finite
    )


def parity_of(original, labels, *legs, source="photographs", **fields):
    labelled = labels[0] >= 0
    right = sum(a == label for a, label in zip(original, labels, strict=True))
    top1 = percent(right, len(labels)) if labelled else None
    top5 = 100.0 if labelled else None
    lost = sum(answer == NONE for answer in original)
    return ParityReport(source, len(labels), 1, labelled, top1, top5, legs, non_finite=lost, **fields)


def times_of(machine="a CPU", threads=2, **medians):
    """A latency report by session and batch: ``openvino_10=3.0``; PyTorch's are those of "torch"."""
    rows = []
    for key, ms in medians.items():
        session, batch = key.split("_")
        name = REFERENCE if session == "torch" else f"int8 on {session}"
        rows.append(Latency(name, int(batch), 100, ms, (Quantile(50.0, ms, ms, ms),)))
    return LatencyReport(machine, threads, tuple(rows))


def report_of(parity=(), latency=None, sizes=None, *, precision="int8", model="resnet20", weights="w", torch="2.9"):
    engines = tuple(
        CompiledEngine(name, "CPU", "1", (File("a", size, "0"), File("b", 1, "0")))
        for name, size in (sizes or {"openvino": 999}).items()
    )
    return Report(
        "0.1", "2026-01-01T00:00:00", model, Weights(weights, weights * 32, "MIT", "", True), PRE, precision, None, (),
        (), engines, (), None, tuple(parity), latency, Environment("3.12", "Linux", {"torch": torch}),
    )  # fmt: skip


def both(a, b, **limits):
    comparison = between(a, b, ("A", "B"))
    return comparison, failures(comparison, **limits)


LABELS = [0, 1, 2, 3, 0, 1, 2, 3]
ORIGINAL = [0, 1, 2, 3, 1, 2, 3, 0]
OLD = [0, 1, 2, 0, 0, 1, 3, 0]  # loses 3, gains 4 and 5
NEW = [1, 1, 3, 1, 0, 2, 3, 1]  # loses 0, 2, 3, gains 4; 3 and 7 wrong otherwise
OPENVINO = "int8 on openvino"
UNLIKE = "A and B were measured on different images, crops or averages"


def measured(answers, original=ORIGINAL, labels=LABELS, name=OPENVINO, **fields):
    return parity_of(original, labels, leg_of(name, original, answers, labels), **fields)


def test_images_are_compared_one_by_one():
    comparison, found = both(report_of([measured(OLD)]), report_of([measured(NEW)]), max_drop=37.5)
    (row,) = comparison.accuracy
    assert (row.engine, row.images, row.crops, row.unpaired, row.why) == (OPENVINO, 8, 1, "", "")
    assert (row.top1, row.drops) == ((62.5, 25.0), (-12.5, 25.0))
    assert (row.drop, row.differ, row.loss) == (37.5, 5, loss(1, 3, 0, 8))
    assert found == ()
    assert both(report_of([measured(OLD)]), report_of([measured(NEW)]), max_drop=37.4)[1] == (
        f"int8 on openvino, photographs, crops 1: 37.50 points of top-1 below A"
        f" (95 %: {row.loss.low:.2f} to {row.loss.high:.2f}), and at most 37.4 may be lost",
    )


ANSWERS = st.integers(NONE, 2)


@given(st.lists(st.tuples(ANSWERS, ANSWERS, ANSWERS, st.integers(0, 2)), min_size=1, max_size=40), st.booleans())
def test_flips_hold_all_that_differs(images, labelled):
    original, old, new, labels = map(list, zip(*images, strict=True))
    labels = labels if labelled else [-1] * len(labels)
    differ, lost, gained = discordance(
        *((p, p.legs[0]) for p in (measured(answers, original, labels) for answers in (old, new)))
    )
    pairs = list(zip(original, old, new, labels, strict=True))
    # where the original answers nothing and so do both, nothing differs but nothing agrees either
    assert differ == sum(a != b or a == NONE for _, a, b, _ in pairs)
    assert lost == sum(a == label != b for _, a, b, label in pairs if label >= 0)
    assert gained == sum(b == label != a for _, a, b, label in pairs if label >= 0)


def test_without_labels_there_is_no_accuracy_and_no_pass():
    sides = [report_of([measured(answers, labels=[-1] * 8)]) for answers in (OLD, NEW)]
    comparison, found = both(*sides, max_drop=100)
    assert (comparison.accuracy[0].differ, comparison.accuracy[0].drop, comparison.accuracy[0].loss) == (5, None, None)
    assert found == ("int8 on openvino: accuracy was not compared: the images carry no labels",)
    assert both(*sides)[1] == ()
    labelled = [dc.replace(side, parity=(*side.parity, measured(OLD))) for side in sides]
    assert both(*labelled, max_drop=0)[1] == ()


def leg_with(**fields):
    whole = measured(NEW)
    return dc.replace(whole, legs=(dc.replace(whole.legs[0], **fields),))


def flips_with(**fields):  # of image 3, which both flip
    return leg_with(
        flips=tuple(dc.replace(flip, **fields) if flip.index == 3 else flip for flip in measured(NEW).legs[0].flips)
    )


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (flips_with(reference=0), "image 3 (3.png) is not the same image, or the original answers it otherwise"),
        (flips_with(name="other.png"), "image 3 (3.png) is not the same image, or the original answers it otherwise"),
        (flips_with(label=2), "image 3 (3.png) is not the same image, or the original answers it otherwise"),
        (leg_with(flips=measured(NEW).legs[0].flips[1:]), "a report does not list all of its flips"),
        (dc.replace(measured(NEW), top1=62.5), "the original's accuracy is not the same in A and B"),
        (leg_with(top1=37.5), "flips and accuracies of the reports do not add up"),
    ],
)
def test_flips_that_do_not_belong_together_are_not_joined(spoilt, reason):
    comparison, _ = both(report_of([measured(OLD)]), report_of([spoilt]))
    (row,) = comparison.accuracy
    assert (row.unpaired, row.differ, row.loss) == (reason, None, None)
    assert row.drop == 62.5 - spoilt.legs[0].top1


def test_other_weights_leave_the_measured_difference():
    comparison, found = both(report_of([measured(OLD)]), report_of([measured(NEW)], weights="v"), max_drop=30)
    (row,) = comparison.accuracy
    assert (row.drop, row.loss, row.unpaired) == (37.5, None, "the originals are other networks or have other weights")
    assert found == (
        "int8 on openvino, photographs, crops 1: 37.50 points of top-1 below A, and at most 30 may be lost",
    )
    assert "the weights are not the same: w in A, v in B" in comparison.notes


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ([], [measured(NEW)], "A measured no parity"),
        ([measured(OLD)], [], "B measured no parity"),
        ([measured(OLD)], [measured(NEW, source="others")], UNLIKE),
        ([measured(OLD)], [measured(NEW, average="logits")], UNLIKE),
        ([measured(OLD)], [measured(NEW, name="int8 on another")], "B did not run it"),
        ([dc.replace(measured(OLD), legs=(Leg(OPENVINO, not_run="no"),))], [measured(NEW)], "A did not run it"),
    ],
)  # fmt: skip
def test_what_a_limit_needs_and_is_not_there_is_a_failure(a, b, reason):
    comparison, found = both(report_of(a), report_of(b), max_drop=100)
    assert comparison.accuracy[0].why == reason
    assert found == (f"int8 on openvino: accuracy was not compared: {reason}",)


def test_nan_in_the_new_one_never_passes():
    nan = [*NEW[:-1], NONE]
    _, found = both(report_of([measured(OLD)]), report_of([measured(nan)]))
    assert found == ("in B int8 on openvino answers NaN or infinity on 1 of 8 images",)


def row_of(a, b, **fields):
    return between(report_of(latency=a), report_of(latency=b, **fields), ("A", "B")).latency[0]


def test_latency_is_a_share_of_pytorchs():
    row = row_of(times_of(torch_1=10.0, openvino_1=2.0), times_of(torch_1=20.0, openvino_1=3.0))
    assert (row.batch, row.p50_ms, row.shares) == (1, (2.0, 3.0), (0.2, 0.15))
    assert (row.basis, row.ratio, row.low) == ("share of PyTorch's", pytest.approx(0.75), None)


@pytest.mark.parametrize(
    ("machine", "threads", "fields", "basis"),
    [
        ("a CPU", 2, {"torch": "2.10"}, "milliseconds"),
        ("a CPU", 2, {"model": "resnet32"}, "milliseconds"),
        ("a CPU", 4, {}, "none"),
        ("another", 2, {}, "share of PyTorch's"),
        ("another", 2, {"torch": "2.10"}, "none"),
    ],
)
def test_what_times_are_compared_on(machine, threads, fields, basis):
    a, b = times_of(torch_1=10.0, openvino_1=2.0), times_of(machine, threads, torch_1=20.0, openvino_1=3.0)
    row = row_of(a, b, **fields)
    ratio = {"milliseconds": 1.5, "share of PyTorch's": 0.75, "none": None}[basis]
    assert (row.basis, row.ratio) == (basis, None if ratio is None else pytest.approx(ratio))
    found = both(report_of(latency=a), report_of(latency=b, **fields), max_latency_ratio=2)[1]
    assert bool(found) == (basis == "none")


def test_a_pytorch_of_unknown_version_is_not_the_same():
    times = [times_of(name, torch_1=10.0, openvino_1=2.0) for name in ("a CPU", "another")]
    a, b = (report_of(latency=side, torch=None) for side in times)
    assert between(a, b, ("A", "B")).latency[0].basis == "none"


def test_without_pytorchs_row_milliseconds_are_compared_on_one_machine():
    assert row_of(times_of(openvino_1=2.0), times_of(torch_1=9.0, openvino_1=3.0)).basis == "milliseconds"
    assert row_of(times_of(openvino_1=2.0), times_of("another", torch_1=9.0, openvino_1=3.0)).basis == "none"


def test_the_interval_of_a_ratio_of_two_runs():
    def run(own):
        times = times_of(torch_1=10.0, openvino_1=own)
        speed = 10 / own
        return dc.replace(times, ratios=(Ratio(OPENVINO, REFERENCE, 1, speed, speed / 1.03, speed * 1.03),))

    row = row_of(run(2.0), run(3.0))
    assert row.ratio == pytest.approx(1.5)
    wide = 1.03 ** math.sqrt(2)
    assert (row.low, row.high) == (pytest.approx(1.5 / wide), pytest.approx(1.5 * wide))


def test_limits_on_latency_and_size():
    a = report_of(latency=times_of(openvino_1=2.0, openvino_8=8.0), sizes={"openvino": 999})
    b = report_of(latency=times_of(openvino_1=2.2, openvino_8=7.0), sizes={"openvino": 1199})
    assert both(a, b, max_latency_ratio=1.11, max_size_ratio=1.2)[1] == ()
    assert both(a, b, max_latency_ratio=1.09, max_size_ratio=1.19)[1] == (
        "int8 on openvino, batch 1: 1.100 times A's latency (milliseconds), and at most 1.09 is allowed",
        "int8 on openvino: 1.200 times A's size, and at most 1.19 is allowed",
    )
    empty = report_of(sizes={"openvino": -1})
    assert both(empty, b, max_size_ratio=9)[1] == ("int8 on openvino: size was not compared: A's files are empty",)
    assert both(a, report_of(), max_latency_ratio=9)[1] == (
        "int8 on openvino: latency was not compared: B measured no latency",
    )
    other = report_of(latency=times_of(openvino_2=1.0))
    assert both(a, other, max_latency_ratio=9)[1] == (
        "int8 on openvino: latency was not compared: no batch size was timed in both",
    )


def test_engines_belong_together_by_backend_and_alone():
    def engines(a, b, **fields):
        made = [report_of(sizes=dict.fromkeys(names, 1), precision=p) for names, p in ((a, "int8"), (b, "fp16"))]
        return between(*made, ("A", "B"), **fields)

    assert engines(["openvino"], ["openvino"]).engines == ("int8 on openvino -> fp16 on openvino",)
    assert engines(["openvino"], ["onnxruntime"]).engines == ("int8 on openvino -> fp16 on onnxruntime",)
    several = engines(["openvino", "tensorrt"], ["onnxruntime", "openvino"])
    assert several.engines == ("int8 on openvino -> fp16 on openvino",)
    assert several.lacking == ("int8 on tensorrt",)
    assert several.notes == ("only B has onnxruntime",)
    assert failures(several) == ()
    assert failures(several, max_size_ratio=1) == ("only A has int8 on tensorrt, so B has not kept to any limit there",)
    assert engines(["openvino", "tensorrt"], ["openvino"], only=("openvino",)).lacking == ()


def test_nothing_in_common_passes_nothing():
    a, b = report_of(sizes={"x": 1, "y": 1}), report_of(sizes={"z": 1})
    assert both(a, b, max_drop=1)[1] == (
        "only A has int8 on x, so B has not kept to any limit there",
        "only A has int8 on y, so B has not kept to any limit there",
        "there is no engine that A and B both have",
    )


@pytest.mark.parametrize("limit", [math.nan, math.inf, -1])
def test_limits_that_are_none(limit):
    with pytest.raises(SpecError, match=r"--max-size-ratio .* is no limit"):
        both(report_of(), report_of(), max_size_ratio=limit)


def test_what_a_reader_must_know():
    doubtful = dc.replace(times_of("another", 4, openvino_1=1.0), validity=Validity(("another process ran", "hot")))
    a = report_of([measured(OLD)], times_of(openvino_1=1.0))
    comparison = between(a, report_of([measured(NEW)], doubtful, model="resnet32"), ("A", "B"))
    assert remarks(comparison) == (
        "accuracy on photographs",
        "A is of resnet20, B of resnet32",
        "timed on two machines, a CPU and another: milliseconds do not compare, and the ratio is of what each engine"
        " gains over PyTorch on its own",
        "timed on 2 threads in A and 4 in B: latency does not compare",
        "the latency of B is not to be trusted: another process ran (and 1 more)",
        "int8 on openvino: images are not compared one by one: the originals are other networks or have other weights",
        "int8 on openvino: latency is not compared: not the same machine and threads, nor the same original on the"
        " same PyTorch",
    )


def test_reports_are_read_from_files(tmp_path):
    for name, answers in (("a", OLD), ("b", NEW)):
        report = report_of([measured(answers)], times_of(torch_1=9.0, openvino_1=2.0))
        (tmp_path / f"{name}.json").write_text(to_json(report))
    comparison = compare(tmp_path / "a.json", tmp_path / "b.json", targets=("openvino",))
    assert plain(comparison)["accuracy"][0]["loss"]["lost"] == 3
    text = comparison_table(comparison)
    for word in ("37.50", "62.50", "25.00", "0.222", "1,000 bytes"):
        assert word in text
    with pytest.raises(SpecError, match=r"an engine for tensorrt\n.*choose from openvino"):
        compare(tmp_path / "a.json", tmp_path / "b.json", targets=("tensorrt",))
    with pytest.raises(ArtifactError, match=r"cannot read .*nothing\.json"):
        compare(tmp_path / "nothing.json", tmp_path / "b.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match=r"cannot read .*b\.json"):
        compare(tmp_path / "a.json", tmp_path / "b.json")
