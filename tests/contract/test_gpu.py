"""What only a GPU can show; the suite in test_backends.py runs there too, on both TensorRTs."""

import dataclasses as dc

import numpy as np
import pytest
from helpers import models
from onnx import load_model_from_string

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.graph.half import to_half
from dlcv_deploy.graph.lrn import lower_lrn
from dlcv_deploy.graph.qdq import quantize
from dlcv_deploy.types import CompileOptions, Dim, ExportedModel

pytestmark = pytest.mark.gpu
OPTIONS = CompileOptions(batch=Dim(1, 4, 8))


@pytest.fixture(params=["tensorrt_rtx", "tensorrt"])
def trt(request, need):
    need(request.param)
    backend = backends.get(request.param)
    if reason := backend.ability().no_run:
        pytest.skip(f"needs gpu: {reason}")
    return backend


def test_times_are_positive_and_add_up_to_less_than_the_call(trt):
    import time

    feeds = {"x": models.images(8)}
    with trt.load(trt.compile(models.net(), OPTIONS)) as session:
        for _ in range(3):
            session.run(feeds)
        start = time.perf_counter()
        timing = session.run_timed(feeds)
        wall_ms = (time.perf_counter() - start) * 1e3
    parts = (timing.h2d_ms, timing.compute_ms, timing.d2h_ms)
    assert min(parts) > 0
    assert sum(parts) <= wall_ms + 0.1
    assert 0 < timing.enqueue_ms <= wall_ms


def test_fp32_means_fp32(trt):
    """TF32 has ten bits of fraction and errs a hundred times more than this."""
    feeds = {"x": models.images(8)}
    with trt.load(trt.compile(models.net(), OPTIONS)) as session:
        got = session.run(feeds)["y"]
    np.testing.assert_allclose(got, models.reference(models.net(), feeds)["y"], rtol=5e-6, atol=5e-6)


def test_an_engine_for_another_gpu_is_refused(trt):
    here = _cuda.capability()
    other = next(sm for sm in (120, 89, 86) if sm // 10 != here // 10)
    options = dc.replace(OPTIONS, sm=(other,))
    if trt.name == "tensorrt":
        with pytest.raises(SpecError, match=rf"compiles for the GPU it runs on, SM {here}, and not for SM {other}"):
            trt.compile(models.net(), options)
        return
    with pytest.raises(ArtifactError, match=rf"compiled for SM {other / 10:.1f}, and this GPU is SM {here / 10:.1f}"):
        trt.load(trt.compile(models.net(), options))


def test_a_timing_cache_comes_back(need, tmp_path):
    need("tensorrt")
    backend, path = backends.get("tensorrt"), tmp_path / "timing.cache"
    options = dc.replace(OPTIONS, timing_cache=str(path))
    path.write_bytes(backend.compile(models.net(), options).files["timing.cache"])
    assert path.stat().st_size > 0
    engine = backend.compile(models.net(), options)
    assert set(engine.files) == {"model.engine", "timing.cache"}
    path.write_bytes(b"junk")
    with pytest.raises(Exception, match="timing cache"):
        backend.compile(models.net(), options)


def lowered(onnx):
    """A graph with the plugin's nodes in the place of LRN."""
    return lower_lrn(load_model_from_string(onnx)).model.SerializeToString()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3), ("int8", 0.05)])
def test_the_plugin_answers_like_tensorrts_own_lrn(trt, plugin_library, precision, tolerance):
    """In INT8 the last LRN is in floating point, and what another rounding does to a value before it is one step."""
    onnx = models.lrn_net()
    if precision == "fp16":
        onnx = to_half(load_model_from_string(onnx))[0].SerializeToString()
    if precision == "int8":
        exported = ExportedModel("net", onnx, (), (), "")
        onnx = quantize(exported, {"x": 4.0, "c": 5.0, "l": 3.0, "p": 3.0}, through_lrn=True).model.onnx
    feeds, options = {"x": models.images(8)}, dc.replace(OPTIONS, plugin=plugin_library.data)
    with trt.load(trt.compile(onnx, OPTIONS)) as own, trt.load(trt.compile(lowered(onnx), options)) as ours:
        expected, got = own.run(feeds)["y"], ours.run(feeds)["y"]
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def test_an_engine_runs_with_its_library_and_not_without(trt, plugin_library):
    engine = trt.compile(lowered(models.lrn_net()), dc.replace(OPTIONS, plugin=plugin_library.data))
    answers = []
    for _ in range(2):  # the library stays in the process, and serves again
        with trt.load(engine) as session:
            answers.append(session.run({"x": models.images(4)})["y"])
    np.testing.assert_array_equal(*answers)
    files = {name: data for name, data in engine.files.items() if name != "libdlcv_lrn.so"}
    with pytest.raises(ArtifactError, match=r"file libdlcv_lrn\.so is missing"):
        trt.load(dc.replace(engine, files=files))


def test_many_sessions_leave_no_memory_behind(trt):
    cudart = pytest.importorskip("cuda.bindings.runtime")
    engine = trt.compile(models.net(), OPTIONS)
    left = []
    for _ in range(12):
        with trt.load(engine) as session:
            session.run({"x": models.images(4)})
        left.append(cudart.cudaMemGetInfo()[1])
    assert left[-1] >= left[2]  # the first sessions load kernels, which stay
