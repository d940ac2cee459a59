"""How a user says how to calibrate, and what the command line says back."""

import dataclasses as dc
import json

import pytest
from helpers.trials import study

from dlcv_deploy.calibration import choose
from dlcv_deploy.calibration.table import CalibrationTable

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

CALIBRATE = ("calibrate", "resnet20", "--weights", "random")


def read(path):
    return CalibrationTable.from_json(path.read_bytes())


def test_one_image_is_calibrated_on_with_a_warning_and_switches_change_a_quality(run, photos, tmp_path):
    table = tmp_path / "t.json"
    words = ["--quality", "fast", "--method", "max", "--no-pixels", "--no-sums", "--equalize"]
    done = run(*CALIBRATE, "--calib", photos, "--calib-count", 1, *words, "-o", table, "--json")
    assert done.code == 0, done.err
    said = "calibrated on 1 image: ranges of one say little; some hundred are usual"
    assert f"warning: {said}\n" in done.err
    assert said in done.value["warnings"]
    made = read(table)
    assert (made.method, made.images) == ("max", 1)
    assert made.corrections.pixels is None
    assert made.corrections.float_sums
    assert made.corrections.equalization
    assert not made.corrections.bias


@pytest.mark.slow
def test_trials_are_shown_and_stand_in_the_table(run, photos, tmp_path):
    table = tmp_path / "t.json"
    words = ["--quality", "fast", "--robustness", 2]
    done = run(*CALIBRATE, "--calib", photos, "--calib-count", 8, *words, "-o", table, "--json")
    assert done.code == 0, done.err
    assert "trials: Scored on 2 held out of: 8 of 40 images of the folder" in done.err
    assert "Calibrated on 2 random draws of 3 images" in done.err
    assert len(done.value["study"]["robustness"]["scores"]) == 2
    assert len(read(table).study.robustness.scores) == 2


def test_a_drop_that_nothing_in_int8_keeps_to_ends_with_1(run, photos, tmp_path, monkeypatch):
    found = study()
    curve = tuple(dc.replace(point, latency_ms=None) for point in found.mixed.curve)
    missed = dc.replace(found.mixed, reached=False, chosen=curve[0], curve=curve)
    monkeypatch.setattr(choose, "sensitivity", lambda *judged, **more: found.sensitivity)
    monkeypatch.setattr(choose, "mixed", lambda *judged, **more: missed)
    table = tmp_path / "t.json"
    words = ["--quality", "fast", "--max-drop", 0.1]
    done = run(*CALIBRATE, "--calib", photos, "--calib-count", 4, *words, "-o", table)
    assert done.code == 1
    assert "NOT REACHED: no mixture keeps to 0.1 points. The best, 100.00 % of the" in " ".join(done.err.split())
    said = "FAILED: no mixture of INT8 and floating point keeps to --max-drop; the best that was found is written\n"
    assert done.err.endswith(said)
    assert read(table).study.mixed == missed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quality", "best"], "--quality best says how to calibrate, and a calibration table is taken as it is"),
        (["--no-bias", "--sums"], "--no-bias, --sums says how to calibrate"),
        (["--tournament"], "--tournament says how to calibrate"),
        (["--max-drop", "nan"], "cannot lose at most nan points"),
        (["--robustness", "1"], "Invalid value for '--robustness'"),
        (["--quality", "good"], "Invalid value for '--quality'"),
    ],
)
def test_a_table_leaves_nothing_to_say(run, tmp_path, words, said):
    (tmp_path / "t.json").write_text(json.dumps({}))
    done = run("build", "resnet20", "--weights", "random", "--int8", "--calib", tmp_path / "t.json", *words)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize("words", [["--tournament"], ["--max-drop", "0.5"], ["--robustness", "3"]])
def test_a_cache_is_not_tried(run, tmp_path, words):
    done = run(*CALIBRATE, "--from-trt-cache", "r20.cache", "--calib", "random", *words, "-o", tmp_path / "t.json")
    assert done.code == 2
    assert f"{' '.join(words)} says how to calibrate, and the cache's ranges are taken as they are" in done.err
