"""`dlcv-deploy triton`, as a shell sees it."""

import json

import pytest

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb


def test_a_repository_is_written(run, bundle, tmp_path):
    done = run("triton", bundle, tmp_path / "models", "--instances", "2", "--max-batch", "16", "--queue-delay", "100")
    assert (done.code, done.out) == (0, "copy  onnxruntime  version 1\n"), done.err
    assert f"how to serve it  {tmp_path / 'models' / 'README.md'}" in done.err
    config = text_format.Parse((tmp_path / "models" / "copy" / "config.pbtxt").read_text(), pb.ModelConfig())
    assert (config.name, config.max_batch_size, config.instance_group[0].count) == ("copy", 16, 2)
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    again = run("triton", bundle, tmp_path / "models")
    assert again.code == 5
    assert again.err.startswith(f"error: {tmp_path / 'models' / 'copy'} exists\n  fix: --version N")


def test_pixels_and_ten_crops_as_json(run, bundle, tmp_path):
    done = run("triton", bundle, tmp_path / "models", "--input", "uint8", "--ten-crop", "--name", "ten", "--json")
    assert done.code == 0, done.err
    (model,) = done.value["models"]
    assert done.value["repository"] == str(tmp_path / "models")
    assert model == json.loads((tmp_path / "models" / "ten" / "contract.json").read_text())
    assert model["signature"]["inputs"] == [{"name": "pixels", "type": "TYPE_UINT8", "dims": [40, 40, 3]}]
    assert model["signature"]["outputs"] == [{"name": "probabilities", "type": "TYPE_FP32", "dims": [10]}]
    assert model["signature"]["max_batch_size"] == 6
    check = model["versions"]["1"]["check"]
    assert check["images"] == 16
    assert check["greatest_difference"] <= check["tolerance"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "tensorrt_rtx"], 2, "Triton's TensorRT backend does not load engines of TensorRT for RTX"),
        (["--input", "int8"], 2, "'int8' is not one of 'float32', 'uint8'"),
        (["--instances", "0"], 2, "0 is not in the range x>=1"),
        (["--max-batch", "65"], 2, "a batch of 65 was asked for, and the engine takes 64"),
    ],
)
def test_bad_requests(run, bundle, tmp_path, words, code, message):
    done = run("triton", bundle, tmp_path / "models", *words)
    assert done.code == code
    assert message in done.err
    assert not (tmp_path / "models").exists()


def test_the_repository_is_not_forgotten(run, bundle):
    done = run("triton", bundle, bundle)
    assert done.code == 2
    assert "is a bundle\n  fix: name the repository last: triton BUNDLE... REPO" in done.err
    assert run("triton", bundle).code == 2


def test_where_it_cannot_be_written(run, bundle, tmp_path):
    (tmp_path / "file").write_text("")
    for path, code, message in (
        (tmp_path / "none" / "models", 5, "fix: its folder does not exist"),
        (tmp_path / "file", 2, "is a file"),
    ):
        done = run("triton", bundle, path)
        assert done.code == code
        assert message in done.err
