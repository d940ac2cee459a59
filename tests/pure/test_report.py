"""Reports: every figure on every page, goldens of the whole, JSON both ways, and nothing invented."""

import dataclasses as dc
import itertools
import json
import math
import os
from pathlib import Path

import pytest
from helpers.trials import study

from dlcv_deploy.errors import ArtifactError
from dlcv_deploy.report import words
from dlcv_deploy.report.document import (
    SCHEMA,
    Calibration,
    CompiledEngine,
    Environment,
    File,
    Lrn,
    Report,
    Weights,
    engine_name,
    environment,
    from_json,
    plain,
    to_json,
)
from dlcv_deploy.report.markdown import markdown
from dlcv_deploy.report.terminal import WIDTH, latency_table, parity_table, table
from dlcv_deploy.types import (
    Flip,
    Latency,
    LatencyReport,
    LeftAlone,
    Leg,
    NotInt8,
    OutputError,
    ParityReport,
    PrecisionAudit,
    Preprocess,
    StageTime,
)

GOLDEN = Path(__file__).parents[1] / "golden"
PYTORCH, OPENVINO, RTX = "PyTorch fp32", "int8 on openvino", "int8 on tensorrt_rtx"
NO_GPU = "running needs an NVIDIA GPU, and this machine has none"


def flips(count):
    return tuple(Flip(7 * i, f"test/{7 * i:05}", i % 10, i % 10, (i + 1) % 10) for i in range(count))


def full():
    ten = ParityReport(
        "CIFAR-10 test",
        10_000,
        10,
        True,
        91.3,
        99.71,
        (
            Leg("int8 graph on onnxruntime", 91.21, 99.7, 0.09, -0.06, 0.24, 99.4, flips(60), 0.8125, 27.04),
            Leg(OPENVINO, 91.2, 99.7, 0.1, -0.05, 0.25, 99.88, flips(12), 0.75, 27.31),
            Leg(RTX, not_run=NO_GPU),
        ),
    )
    one = ParityReport(
        "drawn images",
        64,
        1,
        False,
        None,
        None,
        (
            Leg(
                "int8 graph on onnxruntime",
                agreement=100.0,
                logit_max_abs=0.0,
                logit_sqnr_db=math.inf,
                outputs=(
                    OutputError("features", 0.99912345, 0.9954321, 4.1867, 9.5432, 96.5625, 64),
                    OutputError("c5", 1.0, 1.0, 0.0, 0.0),
                ),
            ),
            Leg(
                OPENVINO,
                agreement=98.4375,
                flips=(Flip(3, "drawn 3", -1, 1, 2),),
                logit_max_abs=1.5,
                logit_sqnr_db=20,
                outputs=(
                    OutputError("features", 0.99812345, 0.9934567, 6.12345, 11.2, 95.3125, 64),
                    OutputError("c5", 0.99712345, 0.99, 7.5, 12.34567),
                ),
            ),
            Leg(RTX, not_run=NO_GPU),
        ),
    )
    latency = LatencyReport(
        "Some CPU @ 2.0GHz (AVX512-VNNI, AMX-INT8)",
        2,
        (
            Latency(PYTORCH, 1, 640, 4.2, 4.0512, 4.5, 6.25, 238.1),
            Latency(OPENVINO, 1, 4210, 0.51, 0.5, 0.55, 0.75, 1960.8),
            Latency(RTX, 1, not_run=NO_GPU),
            Latency(PYTORCH, 10, 64, 20.5, 20.0, 22.5, 125.0, 487.8),
            Latency(OPENVINO, 10, 1100, 2.5, 2.5, 2.6, 3.0, 4000.0),
            Latency(RTX, 10, not_run=NO_GPU),
        ),
    )
    return Report(
        tool_version="0.1.0",
        created="2026-11-21T22:30:00Z",
        model="resnet20",
        weights=Weights("bundled", "ab" * 32, "Apache-2.0", "91.30 % on the CIFAR-10 test images", True),
        preprocess=Preprocess(32, 40, "pad", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        precision="int8",
        calibration=Calibration("mse", "CIFAR-10 training images, seed 0", 128, False, "cd" * 32),
        quantized=tuple(f"node_{i}" for i in range(22)),
        left_alone=(LeftAlone("node_pool", "ReduceMean", "not a product: nothing to gain in INT8"),),
        engines=(
            CompiledEngine(
                "openvino", "CPU", "2026.4.0", (File("openvino/model.xml", 123_456, "01" * 32),), audit=audit()
            ),
            CompiledEngine(
                "tensorrt_rtx", "SM 8.6, 8.9", "1.7.1", (File("rtx/e.bin", 1 << 20, "23" * 32),), ("no timing cache",)
            ),
        ),
        stages=(StageTime("export", 4.2, True), StageTime("calibrate", 12.34, False)),
        peak_memory_bytes=900 << 20,
        parity=(ten, one),
        latency=latency,
        environment=Environment("3.11.7", "Linux-6.1-x86_64", {"torch": "2.13.0", "onnx": "1.23.0"}),
        warnings=("2 images could not be read and were left out",),
        quantization=study(),
    )


def audit():
    """ResNet-20 with its last layer left in floating point on request, and one more that the runtime dequantizes."""
    asked = NotInt8("gemm_1", "linear", "Gemm", 640, "float32", "it was to stay in floating point", asked=True)
    missed = NotInt8(
        "conv_1", "conv1", "Conv", 442_368, "float32", "the graph has it in INT8, and openvino dequantizes it"
    )
    shares = 1 - 443_008 / 40_551_040, 1 - 640 / 40_551_040
    return PrecisionAudit("openvino", *shares, 40_551_040, (missed, asked), "OpenVINO's execution graph")


def bare():
    """Random weights and random calibration, an engine that answers NaN, and next to nothing measured."""
    features = OutputError("features", math.nan, math.nan, math.nan, math.nan, non_finite=1)
    nan = Leg(
        OPENVINO,
        agreement=0.0,
        flips=(Flip(0, "drawn 0", -1, 1, -1),),
        non_finite=1,
        logit_max_abs=math.nan,
        outputs=(features,),
    )
    return dc.replace(
        full(),
        weights=Weights("random, seed 0", "ef" * 32, "", "", False),
        calibration=Calibration("max", "standard normal, seed 0", 128, True, "cd" * 32),
        quantized=(),
        left_alone=(),
        engines=(dc.replace(full().engines[0], audit=None),),
        stages=(),
        peak_memory_bytes=None,
        parity=(ParityReport("drawn images", 1, 1, False, None, None, (nan,)),),
        latency=None,
        warnings=(),
        quantization=None,
    )


CASES = {"full": full, "bare": bare}
PAGES = {"md": markdown, "txt": lambda report: table(report) + "\n"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("case", CASES)
def test_golden(case, page):
    file = GOLDEN / f"report-{case}.{page}"
    found = PAGES[page](CASES[case]())
    if os.environ.get("DLCV_UPDATE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8"), "set DLCV_UPDATE_GOLDEN=1 to accept, and review the diff"


def test_the_headlines():
    assert words.headlines(full()) == (
        "INT8 on openvino: 91.20 % vs 91.30 % top-1, drop 0.10 points (95 % -0.05 to 0.25),"
        " 12 of 10,000 images flipped, 8.1x faster at batch 1.",
        f"INT8 on tensorrt_rtx: compiled, not run: {NO_GPU}.",
    )
    assert engine_name("int8", "openvino") == OPENVINO


def test_a_headline_without_labels_claims_no_accuracy():
    report = dc.replace(full(), parity=full().parity[1:], latency=None)
    assert words.headlines(report)[0] == (
        "INT8 on openvino: accuracy not measured (no labels), 98.44 % agree with the original, 1 of 64 images flipped."
    )
    assert words.headlines(dc.replace(report, parity=()))[0] == "INT8 on openvino: parity not measured."


def test_a_headline_quotes_the_run_in_which_the_engine_ran():
    labelled, drawn = full().parity
    absent = dc.replace(labelled, legs=(Leg(OPENVINO, not_run="busy"),))
    assert "98.44 % agree" in words.headlines(dc.replace(full(), parity=(absent, drawn)))[0]


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(8.06, "8.1x faster"), (1.05, "1.1x faster"), (1.0, "as fast"), (0.96, "as fast"), (0.5, "2.0x slower")],
)
def test_speed_in_words(ratio, said):
    assert words.ratio_in_words(ratio) == said


def test_speed_compares_p50_at_the_same_batch_size():
    latency = full().latency
    assert words.speedup(latency, latency.rows[1]) == 4.0512 / 0.5
    assert words.speedup(latency, latency.rows[4]) == 8.0
    assert words.speedup(latency, latency.rows[2]) is None
    assert words.speedup(dc.replace(latency, rows=latency.rows[1:3]), latency.rows[1]) is None


@pytest.mark.parametrize(("p90_ms", "said"), [(3.0, False), (3.01, True)])
def test_a_disturbed_run_is_said_to_be_one(p90_ms, said):
    report = LatencyReport("a CPU", 2, (Latency(PYTORCH, 1, 100, 2.5, 2.0, p90_ms, 4.0, 400.0), Latency(RTX, 1)))
    assert ("UNSTEADY" in latency_table(report)) is said


def test_banners_are_loud_on_both_pages():
    report = bare()
    loud = ["RANDOM WEIGHTS", "RANDOM CALIBRATION", "NOT A NUMBER", "NOT A NUMBER"]
    assert [b.split(":")[0] for b in words.banners(report)] == loud
    assert "int8 on openvino or the original answers NaN or infinity in features on 1" in words.banners(report)[3]
    for page in PAGES.values():
        for banner in ("RANDOM WEIGHTS", "RANDOM CALIBRATION", "NOT A NUMBER"):
            assert banner in page(report)
            assert banner not in page(full())
    original = dc.replace(full().parity[0], non_finite=3)
    assert words.banners(dc.replace(full(), parity=(original,))) == (
        "NOT A NUMBER: the original answers NaN or infinity on 3 of 10,000 images (CIFAR-10 test, 10 crops).",
    )


@pytest.mark.parametrize("page", PAGES.values())
def test_what_was_not_measured_is_said_and_not_invented(page):
    text = page(dc.replace(full(), parity=(), latency=None, peak_memory_bytes=None))
    assert text.count("- (not measured)") == 3
    assert "nan" not in page(bare())
    assert "None" not in page(bare())
    assert "the images carry no labels" in page(bare())


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.0949, 2, "0.09"), (-0.001, 2, "0.00"), (None, 2, "-"), (math.nan, 2, "-"), (1234.5, 1, "1,234.5")],
)
def test_numbers(value, digits, text):
    assert words.number(value, digits) == text


def test_other_figures():
    assert [words.milliseconds(v) for v in (0.5, 9.9996, 56.123, 318.44, None)] == [
        "0.500",
        "10.000",
        "56.12",
        "318.4",
        "-",
    ]
    assert [words.size(v) for v in (1, 1023, 1024, 5 << 20, 3 << 30, None)] == [
        "1 byte",
        "1,023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "-",
    ]
    assert (words.plural(1, "crop"), words.plural(10_000, "image")) == ("1 crop", "10,000 images")


def test_equal_logits_are_called_equal_before_and_after_json():
    for report in (full(), from_json(to_json(full()))):
        row = words.parity_rows(report.parity[1])[1]
        assert row[-2:] == ("0", "equal")


def test_twenty_flips_are_shown_and_the_rest_counted():
    leg = dc.replace(full().parity[0].legs[1], flips=flips(21))
    text = markdown(dc.replace(full(), parity=(dc.replace(full().parity[0], legs=(leg,)),)))
    assert "| 133 | test/00133 |" in text
    assert "test/00140" not in text
    assert "The first 20 of 21; all are in `report.json`." in text
    assert "The first" not in markdown(full())


def test_names_cannot_break_the_page():
    nasty = "a|b\n# c `d` <e> *f* [g](h)"
    leg = dc.replace(full().parity[0].legs[1], flips=(Flip(0, nasty, 0, 0, 1),))
    text = markdown(dc.replace(full(), parity=(dc.replace(full().parity[0], legs=(leg,)),)))
    assert r"| 0 | a\|b # c \`d\` \<e> \*f\* \[g](h) | 0 | 0 | 1 |" in text


def test_every_table_row_has_as_many_cells_as_its_head():
    for report in (full(), bare()):
        counts = [
            len(line.replace("\\|", "").split("|")) if line.startswith("|") else 0
            for line in markdown(report).splitlines()
        ]
        assert all(a == b for a, b in itertools.pairwise(counts) if a and b)
        assert 0 < max(counts) == 2 + len(words.PARITY_HEAD)


def test_the_headline_says_that_answers_are_no_numbers():
    assert "1 of 1 image flipped, NaN or infinity on 1 of them." in words.headlines(bare())[0]


def test_the_terminal_page_keeps_to_its_width():
    long = dc.replace(
        full().parity[0],
        source="a folder with a very long name " * 5,
        legs=(
            Leg("x" * 80, 100.0, 100.0, -100.0, -100.0, -100.0, 100.0, flips(12) * 1000, 1e-10, -123.4),
            Leg("y", not_run="because " * 40),
        ),
    )
    report = dc.replace(full(), parity=(long,), model="m" * 300, warnings=("w " * 200,))
    lines = table(report).splitlines()
    assert max(map(len, lines)) <= WIDTH == 100
    assert not [line for line in lines if line != line.rstrip()]
    assert parity_table(long) in table(report)
    assert latency_table(report.latency) in table(report)


def test_columns_line_up():
    head, *rows = parity_table(full().parity[0]).splitlines()[1:5]
    for column, name in ((1, "top-1 %"), (5, "flips")):
        assert all(row[: head.index(name) + len(name)].endswith(words.parity_rows(full().parity[0])[i][column])
                   for i, row in enumerate(rows[:3]))  # fmt: skip


def test_json_comes_back_equal():
    report = dc.replace(full(), parity=full().parity[:1])
    assert from_json(to_json(report)) == report
    assert to_json(from_json(to_json(bare()))) == to_json(bare())


def test_outputs_besides_the_logits_have_their_own_table():
    parity = full().parity[1]
    assert words.output_rows(parity)[2] == (OPENVINO, "features", "0.998123", "0.993457", "6.12", "11.2", "95.31")
    assert words.output_rows(parity)[1][2:] == ("1.000000", "1.000000", "0", "0", "-")
    assert "for vectors, among 11 images at least, here 64." in words.output_note(parity)
    assert words.output_note(full().parity[0]) == ""
    assert words.output_rows(full().parity[0]) == ()
    assert "among 11 images at least." in words.output_note(bare().parity[0])


def test_a_vector_longer_than_others_is_kept_of_fewer_images():
    outputs = tuple(OutputError(name, 1.0, 1.0, 0.0, 0.0, 100.0, of) for name, of in (("a", 4096), ("b", 10_000)))
    assert "at least, here up to 10,000." in words.output_note(
        dc.replace(full().parity[0], legs=(Leg(OPENVINO, outputs=outputs),))
    )


TIMES = {"native": 2, "plugin": 1}
LEFT = LeftAlone("lrn_3", "LRN", "its window of 4 channels has no centre")


def race(name, batch, p50_ms):
    return Latency(name, batch, 50, p50_ms, p50_ms, p50_ms, p50_ms, 1e3 * batch / p50_ms)


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
    assert words.lrn_lines(engine) == said
    for line in said:
        assert f"- tensorrt_rtx: {line}".replace("*", "\\*") in markdown(report)
        assert line in " ".join(table(report).split())
    assert from_json(to_json(report)).engines == (engine,)


def test_a_report_of_an_earlier_version_is_read():
    value = json.loads(to_json(full()))
    for parity in value["parity"]:
        for leg in parity["legs"]:
            del leg["outputs"]
    for engine in value["engines"]:
        del engine["lrn"], engine["audit"]
    del value["quantization"]
    report = from_json(json.dumps(value))
    assert report.quantization is None
    assert all(leg.outputs == () for parity in report.parity for leg in parity.legs)
    assert report.parity[0] == full().parity[0]
    assert report.engines == tuple(dc.replace(engine, audit=None) for engine in full().engines)


def test_json_is_stable_strict_and_starts_with_its_schema():
    text = to_json(full())
    assert text == to_json(full())
    value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(value)[:2] == ["schema", "tool_version"]
    assert value["schema"] == SCHEMA == 1
    assert list(value)[1:] == [field.name for field in dc.fields(Report)]
    assert value["parity"][1]["legs"][0]["logit_sqnr_db"] is None  # infinity
    assert json.loads(to_json(bare()))["parity"][0]["legs"][0]["logit_max_abs"] is None  # NaN


def test_plain_is_what_json_knows():
    assert plain((1, math.inf, {"a": StageTime("s", math.nan, False)})) == [
        1,
        None,
        {"a": {"name": "s", "seconds": None, "reused": False}},
    ]


def test_a_null_number_reads_as_nan():
    report = from_json(to_json(dc.replace(full(), stages=(StageTime("s", math.inf, False),))))
    assert math.isnan(report.stages[0].seconds)


def edited(change):
    value = json.loads(to_json(full()))
    change(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "names no schema"),
        ("{}", "names no schema"),
        (edited(lambda v: v.update(schema=2)), "schema version 2, and this dlcv-deploy reads 1"),
        (edited(lambda v: v.pop("model")), "report lacks model"),
        (edited(lambda v: [v.pop("model"), v.pop("weights")]), "report lacks model, weights"),
        (edited(lambda v: v["weights"].pop("licence")), "report.weights lacks licence"),
        (edited(lambda v: v["parity"][0]["legs"][1].pop("top1")), r"report.parity\[0\].legs\[1\] lacks top1"),
        (edited(lambda v: v.update(more=1)), "report holds unknown more"),
        (edited(lambda v: v.update(model=3)), "report.model of the report is 3"),
        (edited(lambda v: v.update(precision="int4")), 'report.precision of the report is "int4"'),
        (edited(lambda v: v.update(weights=[])), r"report.weights of the report is \[\]"),
        (edited(lambda v: v.update(stages={})), "report.stages of the report is {}"),
        (edited(lambda v: v["weights"].update(trained=1)), "report.weights.trained of the report is 1"),
        (edited(lambda v: v["calibration"].update(images=True)), "report.calibration.images of the report is true"),
        (edited(lambda v: v["stages"][0].update(seconds="1")), r'report.stages\[0\].seconds of the report is "1"'),
        (edited(lambda v: v["preprocess"].update(mean=[0, 0])), r"report.preprocess.mean of the report is \[0, 0\]"),
        (edited(lambda v: v["preprocess"].update(std=[0, 1, 1])), "report.preprocess of the report cannot be: mean"),
        (edited(lambda v: v["environment"]["packages"].update(torch=2)), "report.environment.packages.torch .* is 2"),
    ],
)
def test_another_or_damaged_report_is_refused(text, message):
    with pytest.raises(ArtifactError, match=message):
        from_json(text)


def test_environment_names_what_is_installed():
    found = environment(("numpy", "no-such-package"))
    assert list(found.packages) == ["numpy"]
    assert found.python
    assert found.os


def test_ranges_of_another_tools_cache_were_set_on_no_images():
    adopted = Calibration("trt-cache", "scales of the TensorRT cache a.cache", 0, False, "cd" * 32)
    assert words.calibrated(adopted) == "trt-cache (scales of the TensorRT cache a.cache)"
    assert words.calibrated(Calibration("mse", "photos", 1, False, "")) == "mse, on 1 image (photos)"
    assert words.calibrated(Calibration("max", "noise", 9, True, "")) == "max, on random numbers (noise)"
