"""TensorRT for RTX builds engines without a GPU, for the architectures it is told, and says so."""

import dataclasses as dc
import logging

import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import MissingBackend, SpecError, ToolError
from dlcv_deploy.types import CompileOptions, Dim

OPTIONS = CompileOptions(batch=Dim(1, 4, 8), sm=(86, 89))
ENGINE = "model.rtx.engine"


@pytest.fixture(scope="module")
def rtx(need):
    need("tensorrt_rtx")
    return backends.get("tensorrt_rtx")


@pytest.mark.parametrize("build", [models.net, models.net_fp16, models.net_int8], ids=["fp32", "fp16", "int8"])
def test_it_builds_for_two_architectures(rtx, build):
    engine = rtx.compile(build(), OPTIONS)
    assert (engine.backend, engine.target, list(engine.files)) == ("tensorrt_rtx", "SM 8.6, 8.9", [ENGINE])
    assert len(engine.files[ENGINE]) > 10_000
    if _cuda.no_gpu():
        with pytest.raises(MissingBackend, match=r"tensorrt_rtx cannot run here: .*NVIDIA driver"):
            rtx.load(engine)


@pytest.mark.parametrize(
    ("sm", "target"),
    [((), "SM 8.0 and later"), ((120, 75, 120), "SM 7.5, 12.0"), ((121,), "SM 12.1")],
)
def test_the_target_is_told_in_words(rtx, sm, target):
    assert rtx.compile(models.shifted(), dc.replace(OPTIONS, sm=sm)).target == target


def test_what_one_architecture_lacks_is_named_with_its_node(rtx):
    with pytest.raises(ToolError, match=r"refused node 'fc' \(Gemm\): .*SM75.*FP32 GEMM is not supported"):
        rtx.compile(models.linear(), dc.replace(OPTIONS, sm=(75, 86)))


@pytest.mark.parametrize("sm", [(87,), (86, 90), (1,)])
def test_an_unknown_architecture_lists_the_known(rtx, sm):
    with pytest.raises(SpecError, match=rf"compile for SM {sm[-1]}\n  fix: use some of 75, 80, 86, 89, 120, 121"):
        rtx.compile(models.linear(), dc.replace(OPTIONS, sm=sm))


def test_a_builder_that_returns_nothing_is_an_error_with_its_log(rtx):
    with pytest.raises(ToolError, match="workspace memory greater than 0") as e:
        rtx.compile(models.net(), dc.replace(OPTIONS, workspace_bytes=0))
    assert "maxScratchSize" in e.value.log


def test_the_parsers_code_is_named(rtx):
    words = r"refused node 'odd' \(Frobnicate\): the graph has an operator .* \(INVALID_NODE: .*Plugin not found"
    with pytest.raises(ToolError, match=words):
        rtx.compile(models.unknown_operator(), OPTIONS)


def test_a_timing_cache_is_not_silently_dropped(rtx, tmp_path):
    engine = rtx.compile(models.linear(), dc.replace(OPTIONS, timing_cache=str(tmp_path / "cache")))
    assert engine.notes == ("the timing cache was not used: TensorRT for RTX has none",)
    assert list(tmp_path.iterdir()) == []


def test_its_words_go_to_logging_and_errors_are_kept(rtx, caplog):
    from dlcv_deploy.log import NativeLog, tensorrt_logger

    trt = pytest.importorskip("tensorrt_rtx")
    log = NativeLog("trt")
    logger = tensorrt_logger(trt, log)
    with caplog.at_level(logging.DEBUG, "dlcv_deploy.trt"):
        builder = trt.Builder(logger)
        network = builder.create_network(0)  # a parser does not keep its network alive
        parser = trt.OnnxParser(network, logger)
        assert not parser.parse(b"junk")
    assert "Failed to parse the ONNX model" in log.errors[0]
    assert any("Failed to parse" in record.message for record in caplog.records)
    assert log.take_errors()
    assert log.errors == []
