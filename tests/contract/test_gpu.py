"""What only a GPU can show; the suite in test_backends.py runs there too, on both TensorRTs."""

import dataclasses as dc

import numpy as np
import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.types import CompileOptions, Dim

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


def test_many_sessions_leave_no_memory_behind(trt):
    cudart = pytest.importorskip("cuda.bindings.runtime")
    engine = trt.compile(models.net(), OPTIONS)
    left = []
    for _ in range(12):
        with trt.load(engine) as session:
            session.run({"x": models.images(4)})
        left.append(cudart.cudaMemGetInfo()[1])
    assert left[-1] >= left[2]  # the first sessions load kernels, which stay
