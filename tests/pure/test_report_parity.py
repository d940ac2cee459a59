"""What a report says of parity: losses, verdicts, steps, flips, classes, layers, consistency."""

import dataclasses as dc
import math

import pytest
from helpers.reports import GRAPH, NO_GPU, ONNX, OPENVINO, PYTORCH, bare, consistency, drift, flips, full, one, ten

from dlcv_deploy.parity.values import ClassCount, Drift, Flip, LayerError, Leg, Loss, OutputError, Verdict
from dlcv_deploy.report import flips as changed
from dlcv_deploy.report import layers, parity
from dlcv_deploy.report.document import from_json, to_json
from dlcv_deploy.report.markdown import markdown
from dlcv_deploy.report.terminal import parity_table


def test_equal_logits_are_called_equal_before_and_after_json():
    for report in (full(), from_json(to_json(full()))):
        row = parity.parity_rows(report.parity[1])[1]
        assert row[-2:] == ("0", "equal")


def test_losses_at_top_1_and_top_5_with_interval_and_mcnemar():
    rows = parity.loss_rows(ten())
    assert [row[:2] for row in rows] == [(name, k) for name in (ONNX, GRAPH, OPENVINO) for k in ("top-1", "top-5")]
    assert rows[2] == (GRAPH, "top-1", "0.09", "-0.06 to 0.24", "32", "23", "0.2807")
    assert parity.loss_rows(one()) == ()


def test_verdicts_by_name_with_what_is_provable():
    rows = parity.verdict_rows(ten())
    assert rows[0] == (GRAPH, "margin 0.5", "top-1", "0.50", "shown", "met", "0.14", "1,254")
    assert rows[6] == (OPENVINO, "MLPerf 99.9 %", "top-1", "0.09", "not shown", "not met", "0.14", "22,345")
    none = dc.replace(ten().legs[1], verdicts=(Verdict("margin 0.5", 1, 0.5, "shown", True, math.nan, 0),))
    assert parity.verdict_rows(dc.replace(ten(), legs=(none,)))[0][-2:] == ("-", "-")


def test_the_chief_verdict_is_that_on_the_stated_margin_at_top_1():
    leg = ten().legs[1]
    assert parity.chief_verdict(ten(), dc.replace(leg, verdicts=leg.verdicts[::-1])) == leg.verdicts[0]
    assert parity.chief_verdict(dc.replace(ten(), margin=1.0), leg) == leg.verdicts[0]
    assert parity.chief_verdict(ten(), dc.replace(leg, verdicts=leg.verdicts[3:])) is None


def test_the_sentences_of_the_gate_are_on_both_pages():
    said = parity.verdict_lines(ten())
    assert said[1] == f"{GRAPH}: shown: loses at most 0.24 points of top-1 (95 %), margin 0.5"
    for line in said:
        assert line in " ".join(parity_table(ten()).split())
        assert line in markdown(full())
    assert parity.verdict_lines(one()) == ()


@pytest.mark.parametrize(
    "broken",
    [
        dc.replace(ten(), images=0),
        dc.replace(ten(), images=10),
        dc.replace(ten(), margin=math.nan),
        dc.replace(ten(), top1=None),
        dc.replace(ten(), legs=(dc.replace(ten().legs[1], losses=(Loss(1, 0.1, math.nan, 1.0, 1, 0, 1.0),)),)),
    ],
)
def test_nothing_is_concluded_from_figures_that_are_missing(broken):
    assert parity.verdict_lines(broken) == ()


def test_the_way_from_the_original_to_the_engine():
    assert parity.step_rows(ten()) == (
        (PYTORCH, "-", "91.30", "-", "-", "-", "-", "-"),
        (ONNX, PYTORCH, "91.30", "0.00", "0", "1.000000", "1.5e-05", "118.2"),
        (GRAPH, ONNX, "91.21", "0.09", "60", "0.998764", "0.812", "27.0"),
        (OPENVINO, GRAPH, "91.20", "0.01", "21", "0.999912", "0.25", "38.5"),
    )
    assert parity.step_rows(one()) == ()


def test_ignored_orientations_and_averaged_logits_are_said():
    assert parity.parity_note(ten()) == ("The EXIF orientation of 3 images was ignored, as the papers' pipelines do.")
    assert parity.parity_note(dc.replace(one(), rotated=1)) == (
        "Accuracy was not measured: the images carry no labels. Agreement and flips only."
        " The EXIF orientation of 1 image was ignored, as the papers' pipelines do."
    )
    averaged = dc.replace(ten(), average="logits")
    assert parity.parity_title(averaged) == "CIFAR-10 test, 10,000 images, 10 crops, logits averaged"
    assert parity.parity_title(dc.replace(averaged, crops=1)) == "CIFAR-10 test, 10,000 images, 1 crop"


def test_outputs_besides_the_logits_have_their_own_table():
    found = one()
    assert parity.output_rows(found)[2] == (OPENVINO, "features", "0.998123", "0.993457", "6.12", "11.2", "95.31")
    assert parity.output_rows(found)[1][2:] == ("1.000000", "1.000000", "0", "0", "-")
    assert "for vectors, among 11 images at least, here 64." in parity.output_note(found)
    assert parity.output_note(ten()) == ""
    assert parity.output_rows(ten()) == ()
    assert "among 11 images at least." in parity.output_note(bare().parity[0])


def test_a_vector_longer_than_others_is_kept_of_fewer_images():
    outputs = tuple(OutputError(name, 1.0, 1.0, 0.0, 0.0, 100.0, of) for name, of in (("a", 4096), ("b", 10_000)))
    found = dc.replace(ten(), legs=(Leg(OPENVINO, outputs=outputs),))
    assert "at least, here up to 10,000." in parity.output_note(found)


def test_flips_by_kind_with_their_margins():
    leg = ten().legs[2]
    assert changed.flips_line(ten(), leg) == (
        "12 of 10,000 images flipped: 9 right to wrong, 2 wrong to right, 1 wrong to wrong"
    )
    assert changed.flips_line(one(), one().legs[1]) == "1 of 64 images flipped"
    assert changed.kind_rows(ten())[3:] == (
        (OPENVINO, "right to wrong", "9", "0.156", "0.031"),
        (OPENVINO, "wrong to right", "2", "0.219", "0.047"),
        (OPENVINO, "wrong to wrong", "1", "0.219", "0.109"),
    )
    assert changed.kind_rows(one()) == ((OPENVINO, "changed", "1", "0.250", "0.125"),)
    assert changed.kind_rows(bare().parity[0]) == ((OPENVINO, "changed", "1", "-", "-"),)
    assert changed.flip_row(leg.flips[3]) == ("21", "test/00021", "3", "4", "3", "wrong to right", "0.094", "0.047")
    assert changed.flip_row(Flip(0, "a", -1, 1, -1)) == ("0", "a", "-", "1", "NaN", "changed", "-", "-")


def test_the_worst_flips_come_first():
    found = changed.worst_first(
        (
            Flip(0, "a", 1, 2, 3, 0.9),
            Flip(1, "b", 1, 1, 3, None),
            Flip(2, "c", 1, 1, 3, 0.2),
            Flip(3, "d", 1, 2, 1, 0.9),
            Flip(4, "e", 1, 1, 2, 0.8),
            Flip(5, "f", 1, 1, 2, math.nan),
        )
    )
    assert [flip.index for flip in found] == [4, 2, 1, 5, 3, 0]


def test_the_worst_classes():
    leg = ten().legs[2]
    assert changed.class_rows(leg) == (
        (OPENVINO, "2", "1,000", "90.00", "89.40", "6", "0"),
        (OPENVINO, "3", "1,000", "85.00", "84.90", "1", "0"),
    )
    assert changed.class_rows(leg, 1) == changed.class_rows(leg)[:1]
    assert changed.worst_class_line(leg) == "worst class: 2, 0.60 points of 1,000 images"
    few = dc.replace(leg, classes=(*leg.classes, ClassCount(11, 4, 4, 3, 1, 0)))
    assert changed.worst_class_line(few) == "worst class: 11, 25.00 points of 4 images"
    assert changed.worst_class_line(one().legs[1]) == ""


def test_twenty_flips_are_shown_and_the_rest_counted():
    leg = dc.replace(ten().legs[2], flips=tuple(dc.replace(f, margin_before=1 - f.index / 1e4) for f in flips(21)))
    text = markdown(dc.replace(full(), parity=(dc.replace(ten(), legs=(leg,)),)))
    assert text.count("| test/") == 20
    assert "test/00105" not in text  # the last that was wrong before too
    assert "The worst 20 of 21; all are in `report.json`." in text
    assert "The worst" not in markdown(full())


def test_the_layer_that_falls_out_of_line_is_named():
    assert layers.drift_line(drift()) == (
        "int8 graph, 11 layers on 64 images: the farthest from fp32 is layer1.4.conv1 (conv_4) at 18.2 dB; the first"
        " layer that falls out of line is layer1.4.conv1 (18.2 dB)."
    )
    assert layers.drift_line(dc.replace(drift(), outlier="")).endswith("at 18.2 dB; no layer falls out of line.")
    assert layers.drift_line(Drift("fp16 graph", 8, ())) == "fp16 graph, 0 layers on 8 images: nothing was compared."
    rows = layers.drift_rows(drift(), 3)
    assert rows[0] == ("int8 graph", "layer1.4.conv1 (conv_4) (out of line)", "Conv", "18.2", "0.992500")
    assert [row[1].split(".")[1] for row in rows] == ["4", "10", "9"]


def test_an_outlier_that_is_not_among_the_worst_is_shown_all_the_same():
    rows = layers.drift_rows(dc.replace(drift(), outlier="layer1.0.conv1"), 2)
    assert [row[1] for row in rows][2] == "layer1.0.conv1 (conv_0) (out of line)"


def test_a_layer_that_is_no_number_is_the_farthest():
    broken = LayerError("c", "c", "Conv", math.nan, math.nan)
    found = dc.replace(drift(), layers=(*drift().layers, broken), outlier="")
    assert layers.worst_layers(found)[0] is broken
    assert "the farthest from fp32 is c at an unknown SQNR" in layers.drift_line(found)


def test_consistency_in_a_line_where_all_passed_and_failures_first():
    alone = f"int8 on tensorrt_rtx: not run: {NO_GPU}"
    assert layers.consistency_lines(consistency()) == (
        "int8 on openvino: agrees with itself in 2 checks; not tried: several threads (this backend has one stream)",
        alone,
    )
    assert layers.consistency_lines(consistency(passed=False)[::-1]) == (
        "int8 on openvino: FAILED permuted rows: 3 of 64 rows differ by up to 0.5",
        alone,
    )
    rows = layers.check_rows(consistency(passed=False))
    assert [row[2] for row in rows] == ["FAILED", "not tried", "passed"]
