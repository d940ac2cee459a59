import pytest

from dlcv_deploy.stages import Stages, code_version
from dlcv_deploy.store import Store


def run(store, **inputs):
    said, made = [], []
    stages = Stages(store, said.append)
    files = stages.run("export", lambda: made.append(1) or {"model.onnx": b"x"}, **inputs)
    return files, bool(made), said, stages.times


def test_a_stage_runs_once_for_the_same_inputs(tmp_path):
    store = Store(tmp_path)
    first, made, said, _ = run(store, weights="w")
    assert made
    assert "reused" not in said[0]
    second, made, said, times = run(store, weights="w")
    assert not made
    assert said[0].split() == ["export", "reused"]
    assert dict(first) == dict(second) == {"model.onnx": b"x"}
    assert times[0].reused
    assert times[0].name == "export"


def test_other_inputs_are_another_stage(tmp_path):
    store = Store(tmp_path)
    run(store, weights="w")
    assert run(store, weights="v")[1]
    assert run(store, weights="w", more=1)[1]


def test_targets_of_one_stage_do_not_mix(tmp_path):
    stages = Stages(Store(tmp_path), lambda line: None)
    stages.run("compile openvino", lambda: {"a": b"1"}, graph="g")
    assert stages.run("compile onnxruntime", lambda: {"a": b"2"}, graph="g") == {"a": b"2"}


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    stages = Stages(Store(tmp_path), lambda line: None)
    with pytest.raises(ZeroDivisionError):
        stages.run("export", lambda: 1 / 0, graph="g")
    assert stages.times == []
    assert stages.run("export", lambda: {"a": b"1"}, graph="g") == {"a": b"1"}


def test_the_code_is_part_of_every_key():
    assert len(code_version()) == 64
