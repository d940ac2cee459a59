"""INT8 asked and not delivered is an error, which names the layers; unless it is allowed, and then the report tells."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


@pytest.fixture
def words(photos):
    return ["build", "resnet20", "--int8", "--weights", "random", "--calib", photos, "--calib-count", "16"]


def test_less_in_int8_than_was_asked_for_is_refused(run, built, words, tmp_path):
    result = run(*words, "--target", "onnxruntime", "-o", tmp_path / "b.dlcv")
    assert result.code == 4
    assert "error: onnxruntime runs 0.0 % of the multiply-adds in INT8" in result.err
    assert "not in INT8: layer1.0.conv1 (Conv, 5.8 %, float32)" in result.err
    assert "and 15 more" in result.err
    assert "fix: leave onnxruntime out (--target openvino runs such graphs in INT8 on CPUs), or --allow-p" in result.err
    assert "parity" not in result.err, "it is refused before it is measured"
    assert not (tmp_path / "b.dlcv").exists()


def test_a_bundle_that_was_allowed_is_refused_to_who_does_not_allow_it(run, built, words):
    result = run(*words, "--target", "onnxruntime", "-o", built[0])
    assert result.code == 4
    assert "onnxruntime runs 0.0 % of the multiply-adds in INT8" in result.err
    assert json.loads((built[0] / "report.json").read_text()) == built[1]


def test_the_report_tells_what_is_not_in_int8(built):
    (engine,) = built[1]["engines"]
    assert engine["audit"]["int8_share"] == 0
    assert engine["audit"]["total_multiply_adds"] == 40_551_040  # as models/cost.py counts them
    assert len(engine["audit"]["not_int8"]) == 20
    assert "## What really runs in INT8" in (built[0] / "report.md").read_text()


def test_it_is_for_int8(run, tmp_path):
    result = run("build", "resnet20", "--fp16", "--allow-partial", "--weights", "random", "-o", tmp_path / "b")
    assert result.code == 2
    assert "--allow-partial is for INT8" in result.err
