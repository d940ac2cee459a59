"""Engines on the arrays of the libraries that share a real GPU's memory."""

import numpy as np
import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import SpecError
from dlcv_deploy.runtime.on_device import run_on_device
from dlcv_deploy.types import CompileOptions, Dim

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["tensorrt_rtx", "tensorrt"])
def session(request, need):
    need(request.param)
    backend = backends.get(request.param)
    if reason := backend.ability().no_run:
        pytest.skip(f"needs gpu: {reason}")
    with backend.load(backend.compile(models.net(), CompileOptions(batch=Dim(1, 4, 8)))) as session:
        yield session


def expected(session, x):
    """From the host, in pieces of the largest batch."""
    return np.concatenate([session.run({"x": x[i : i + 8]})["y"] for i in range(0, len(x), 8)])


def test_our_own_arrays(session):
    x = models.images(20)
    gpu = session.shared
    from dlcv_deploy.runtime.device_array import reserve

    _, made = reserve(gpu, {"x": (x.shape, "float32")}, None)
    with gpu.current():
        gpu.to_device(made["x"].address, x.reshape(-1).view(np.uint8), 1)
        gpu.wait(1)
    got = run_on_device(session, made["x"], None)["y"]
    np.testing.assert_array_equal(got.numpy(), expected(session, x))


def test_torch(session):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    x = models.images(20)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        tensor = torch.from_numpy(x).pin_memory().cuda(non_blocking=True)
        for _ in range(20):
            tensor = tensor + 0
            got = torch.from_dlpack(run_on_device(session, tensor, stream)["y"])
            tensor.mul_(2).div_(2)
        answer = (got + 0).cpu().numpy()
    np.testing.assert_array_equal(answer, expected(session, x))
    got = torch.as_tensor(run_on_device(session, tensor, None)["y"], device="cuda")  # the CUDA Array Interface
    np.testing.assert_array_equal(got.cpu().numpy(), expected(session, x))
    with pytest.raises(SpecError, match="row by row"):
        run_on_device(session, tensor.transpose(2, 3), None)


def test_cupy(session):
    cupy = pytest.importorskip("cupy")
    x = models.images(20)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        array = cupy.asarray(x)
        got = cupy.from_dlpack(run_on_device(session, array, stream)["y"])
        np.testing.assert_array_equal(cupy.asnumpy(got), expected(session, x))
    got = cupy.asarray(run_on_device(session, array, None)["y"])
    np.testing.assert_array_equal(cupy.asnumpy(got), expected(session, x))


def test_pycuda(session):
    pytest.importorskip("pycuda.driver")
    import pycuda.autoprimaryctx
    import pycuda.driver
    from pycuda import gpuarray

    x, stream = models.images(20), pycuda.driver.Stream()
    array = gpuarray.to_gpu_async(x, stream=stream)
    answer = run_on_device(session, array, stream)["y"]
    got = gpuarray.GPUArray(answer.shape, answer.dtype, gpudata=answer.address)
    np.testing.assert_array_equal(got.get_async(stream=stream), expected(session, x))
    stream.synchronize()


def test_memory_of_answers_is_given_back(session):
    cudart, x = pytest.importorskip("cuda.bindings.runtime"), models.images(8)
    _cuda.device()
    from dlcv_deploy.runtime.device_array import reserve

    _, made = reserve(session.shared, {"x": (x.shape, "float32")}, None)
    left = []
    for _ in range(200):
        run_on_device(session, made["x"], None)
        left.append(cudart.cudaMemGetInfo()[1])
    assert left[-1] >= left[10]
