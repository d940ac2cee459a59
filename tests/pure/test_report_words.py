"""Figures and phrases, and what a report says first."""

import dataclasses as dc
import math

import pytest
from helpers.reports import GRAPH, NO_GPU, OPENVINO, RTX, bare, consistency, full, latency, row, verdicts

from dlcv_deploy.latency.values import Latency, Validity
from dlcv_deploy.parity.values import Leg
from dlcv_deploy.report import engines, summary, words
from dlcv_deploy.report.document import Calibration, Lrn, engine_name, environment, from_json, to_json
from dlcv_deploy.report.markdown import markdown
from dlcv_deploy.report.terminal import table
from dlcv_deploy.types import LeftAlone


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0949, 2, "0.09"),
        (-0.001, 2, "0.00"),
        (None, 2, "-"),
        (math.nan, 2, "-"),
        (-math.inf, 2, "-"),
        (1234.5, 1, "1,234.5"),
    ],
)
def test_numbers(value, digits, text):
    assert words.number(value, digits) == text


def test_other_figures():
    times = [words.milliseconds(v) for v in (0.5, 9.9996, 56.123, 318.44, None, math.inf)]
    assert times == ["0.500", "10.000", "56.12", "318.4", "-", "-"]
    sizes = [words.size(v) for v in (1, 1023, 1024, 5 << 20, 3 << 30, None)]
    assert sizes == ["1 byte", "1,023 bytes", "1.0 KiB", "5.0 MiB", "3.0 GiB", "-"]
    assert (words.plural(1, "crop"), words.plural(10_000, "image")) == ("1 crop", "10,000 images")
    assert [words.significant(v) for v in (1234.5, 0.00012345, math.inf)] == ["1.23e+03", "0.000123", "-"]
    assert [words.p_value(v) for v in (1.0, 0.04321, 9e-5, math.nan, None)] == [
        "1.0000",
        "0.0432",
        "< 0.0001",
        "-",
        "-",
    ]
    assert [words.decibels(*v) for v in ((27.04, 0.5), (math.inf, 0.0), (None, 0.0), (None, None))] == [
        "27.0",
        "equal",
        "equal",
        "-",
    ]
    assert [words.tally(v) for v in (1234, None)] == ["1,234", "-"]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.05, 0.25, "-0.05 to 0.25"),
        (1.0, math.inf, "1.00 or more"),
        (1.0, math.nan, "1.00 or more"),
        (math.nan, 1.0, "-"),
    ],
)
def test_intervals(low, high, text):
    assert words.interval(low, high) == text
    assert words.milliseconds_interval(100.0, math.inf) == "100.0 or more"
    assert words.milliseconds_interval(0.0, math.inf) == words.milliseconds_interval(0.0, math.nan) == "-"


def test_names_keep_to_their_line_and_cannot_command_a_terminal():
    assert words.one_line("a\nb\t c\x1b[31m\u202e\udcff") == "a b c?[31m??"
    assert [words.sentence(text) for text in ("so.", "so", "so!")] == ["so.", "so.", "so!"]


def test_the_headlines():
    assert summary.headlines(dc.replace(full(), latency=dc.replace(latency(), validity=Validity()))) == (
        "INT8 on openvino: 91.20 % vs 91.30 % top-1, drop 0.10 points (95 % -0.05 to 0.25), shown to lose less than"
        " 0.50 points, 12 of 10,000 images flipped, 8.1x faster (7.96 to 8.25) at batch 1.",
        f"INT8 on tensorrt_rtx: compiled, not run: {NO_GPU}.",
    )
    assert summary.headlines(full())[0].endswith("at batch 1 (NOT TRUSTWORTHY).")
    assert engine_name("int8", "openvino") == OPENVINO


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("shown", "shown to lose less than 0.50 points"),
        ("not shown", "not shown to lose less than 0.50 points"),
        ("shown worse", "SHOWN TO LOSE MORE than 0.50 points"),
    ],
)
def test_a_headline_has_the_verdict_on_the_margin(outcome, said):
    measured = full().parity[0]
    legs = tuple(dc.replace(leg, verdicts=verdicts(outcome)[::-1]) for leg in measured.legs)
    assert f" {said}," in summary.headlines(dc.replace(full(), parity=(dc.replace(measured, legs=legs),)))[0]


def test_a_headline_without_labels_claims_no_accuracy():
    report = dc.replace(full(), parity=full().parity[1:], latency=None)
    assert summary.headlines(report)[0] == (
        "INT8 on openvino: accuracy not measured (no labels), 98.44 % agree with the original, 1 of 64 images flipped."
    )
    assert summary.headlines(dc.replace(report, parity=()))[0] == "INT8 on openvino: parity not measured."


def test_a_headline_quotes_the_run_in_which_the_engine_ran():
    labelled, drawn = full().parity
    absent = dc.replace(labelled, legs=(Leg(OPENVINO, not_run="busy"),))
    assert "98.44 % agree" in summary.headlines(dc.replace(full(), parity=(absent, drawn)))[0]


def test_the_headline_says_that_answers_are_no_numbers():
    assert "1 of 1 image flipped, NaN or infinity on 1 of them." in summary.headlines(bare())[0]


def test_banners_are_loud_on_both_pages():
    report = bare()
    loud = ["RANDOM WEIGHTS", "RANDOM CALIBRATION", "NOT A NUMBER", "NOT A NUMBER"]
    assert [b.split(":")[0] for b in summary.banners(report)] == loud
    assert "int8 on openvino or the original answers NaN or infinity in features on 1" in summary.banners(report)[3]
    for page in (markdown, table):
        for banner in ("RANDOM WEIGHTS", "RANDOM CALIBRATION", "NOT A NUMBER"):
            assert banner in page(report)
            assert banner not in page(full())
    original = dc.replace(full().parity[0], non_finite=3)
    assert summary.banners(dc.replace(full(), parity=(original,))) == (
        "NOT A NUMBER: the original answers NaN or infinity on 3 of 10,000 images (CIFAR-10 test, 10 crops).",
    )


def test_an_engine_that_contradicts_itself_is_a_banner():
    assert summary.banners(full()) == ()
    assert summary.banners(dc.replace(full(), consistency=consistency(passed=False))) == (
        "INCONSISTENT: int8 on openvino does not agree with itself: permuted rows.",
    )


TIMES = {"native": 2, "plugin": 1}
LEFT = LeftAlone("lrn_3", "LRN", "its window of 4 channels has no centre")


def race(name, batch, p50_ms):
    return row(name, batch, 50, p50_ms, p50_ms, p50_ms)


@pytest.mark.parametrize(
    ("lrn", "said"),
    [
        (None, ()),
        (
            Lrn("plugin", ("lrn_1+max_pool_1", "lrn_2"), (LEFT,)),
            (
                "LRN by the plugin's CUDA kernels: 2 nodes (lrn_1+max_pool_1, lrn_2)",
                "LRN lrn_3 is left to TensorRT: its window of 4 channels has no centre",
            ),
        ),
        (
            Lrn("native", race=(race("native", 1, 0.5), race("plugin", 1, 0.75), Latency("native", 10, not_run="no"))),
            (
                "LRN by TensorRT's own layer, the faster of both",
                "race at batch 1, p50: native 0.500 ms, plugin 0.750 ms",
            ),
        ),
        (
            Lrn("plugin", ("lrn_1",), (), tuple(race(n, b, t * b) for b in (1, 10) for n, t in TIMES.items())),
            (
                "LRN by the plugin's CUDA kernels: 1 node (lrn_1), the faster of both",
                "race at batch 1, p50: native 2.000 ms, plugin 1.000 ms",
                "race at batch 10, p50: native 20.00 ms, plugin 10.00 ms",
            ),
        ),
    ],
    ids=["not asked", "plugin", "native won", "plugin won"],
)  # fmt: skip
def test_which_lrn_an_engine_uses_is_said_on_both_pages(lrn, said):
    engine = dc.replace(full().engines[1], lrn=lrn)
    report = dc.replace(full(), engines=(engine,))
    assert engines.lrn_lines(engine) == said
    for line in said:
        assert f"- tensorrt_rtx: {line}".replace("*", "\\*") in markdown(report)
        assert line in " ".join(table(report).split())
    assert engines.lrn_lines(from_json(to_json(report)).engines[0]) == said


def test_ranges_of_another_tools_cache_were_set_on_no_images():
    adopted = Calibration("trt-cache", "scales of the TensorRT cache a.cache", 0, False, "cd" * 32)
    assert words.calibrated(adopted) == "trt-cache (scales of the TensorRT cache a.cache)"
    assert words.calibrated(Calibration("mse", "photos", 1, False, "")) == "mse, on 1 image (photos)"
    assert words.calibrated(Calibration("max", "noise", 9, True, "")) == "max, on random numbers (noise)"


def test_environment_names_what_is_installed():
    found = environment(("numpy", "no-such-package"))
    assert list(found.packages) == ["numpy"]
    assert found.python
    assert found.os


def test_legs_of_the_sample_are_named_as_engines_are():
    assert [leg.name for leg in full().parity[0].legs][1:] == [GRAPH, OPENVINO, RTX]
