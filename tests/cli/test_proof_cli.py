"""What images prove, and what changed from one bundle to the next, as exit codes."""

import json
import shutil

import pytest

from dlcv_deploy.parity import statistics


@pytest.fixture
def validate(built, run, photos):
    return lambda *words: run("validate", built[0], "--data", photos, "--crops", "1", *words)


def test_a_margin_is_shown(validate):
    result = validate("--margin", "100")
    assert result.code == 0, result.err
    assert result.out.endswith("\nshown: every engine loses less than 100 points of top-1 (95 %)\n")


def test_a_margin_that_40_images_cannot_show(validate):
    result = validate("--margin", "0.01")
    assert result.code == 6
    assert "\nnot shown: that every engine loses less than 0.01 points of top-1 (95 %)\n" in result.out
    assert "With 40 images the smallest provable loss is" in result.out
    value = validate("--margin", "0.01", "--json").value
    assert (value["margin"], value["verdict"]["outcome"], value["failures"]) == (0.01, "not shown", [])
    assert len(value["verdict"]["sentences"]) == len(value["legs"]) + 1


def test_a_margin_shown_worse(validate, monkeypatch):
    monkeypatch.setattr(statistics, "paired_interval", lambda lost, gained, images: (7.0, 9.0))
    result = validate("--margin", "6.9")
    assert result.code == 1
    assert "\nshown worse: an engine answers NaN or infinity, or loses more than 6.9 points" in result.out
    assert validate("--margin", "9.1").code == 0


def test_without_a_margin_images_are_reported_on_and_nothing_fails(validate):
    result = validate("--json")
    assert result.code == 0
    assert (result.value["margin"], result.value["verdict"]["outcome"]) == (0.5, None)


@pytest.mark.parametrize("margin", ["0", "-1", "101", "x"])
def test_margins_that_are_none(validate, margin):
    assert validate("--margin", margin).code == 2


def test_a_bundle_compared_with_itself_passes(built, run):
    limits = ["--max-drop", "0", "--max-size-ratio", "1", "--max-latency-ratio", "1"]
    result = run("compare", built[0], built[0] / "report.json", *limits)
    assert result.code == 0, result.out
    assert result.out.endswith("\npassed: B keeps to all limits\n")
    value = run("compare", built[0], built[0], "--json").value
    assert value["engines"] == ["int8 on onnxruntime"]
    assert {row["ratio"] for row in value["latency"]} == {1.0}
    assert {row["differ"] for row in value["accuracy"]} == {0}


def test_a_larger_engine_fails(built, run, tmp_path):
    report = json.loads((built[0] / "report.json").read_text())
    report["engines"][0]["files"][0]["size_bytes"] *= 2
    (tmp_path / "b.json").write_text(json.dumps(report))
    words = ["compare", built[0], tmp_path / "b.json", "--max-size-ratio"]
    assert run(*words, "2").code == 0
    result = run(*words, "1.5", "--json")
    assert result.code == 1
    assert result.value["failures"] == ["int8 on onnxruntime: 2.000 times A's size, and at most 1.5 is allowed"]


def test_what_cannot_be_compared(built, run, tmp_path):
    altered = tmp_path / "altered.dlcv"
    shutil.copytree(built[0], altered)
    (altered / "labels.txt").write_text("other\n")
    assert run("compare", built[0], altered).code == 5
    assert run("compare", built[0], tmp_path / "nothing").code == 5
    assert run("compare", built[0], built[0], "--target", "tensorrt").code == 2
