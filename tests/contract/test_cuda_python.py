"""CUDA through cuda-python, on a make-believe driver: contexts, other libraries' memory, and names that exist."""

import inspect
import re
from types import SimpleNamespace

import pytest

from dlcv_deploy.backends import _cuda_python
from dlcv_deploy.errors import SpecError, ToolError

runtime = pytest.importorskip("cuda.bindings.runtime")
driver = pytest.importorskip("cuda.bindings.driver")


class FakeRuntime:
    def __init__(self, devices=2):
        self.said, self.devices, self.about = [], devices, SimpleNamespace(type=runtime.cudaMemoryType(2), device=1)

    def __getattr__(self, name):
        known = getattr(runtime, name)
        if not callable(known) or isinstance(known, type):
            return known

        def call(*args):
            self.said.append((name, *args))
            answers = {"cudaGetDeviceCount": self.devices, "cudaPointerGetAttributes": self.about}
            return (runtime.cudaError_t.cudaSuccess, answers[name]) if name in answers else (runtime.cudaError_t(0),)

        return call


class FakeDriver:
    CUpointer_attribute = driver.CUpointer_attribute

    def __init__(self):
        self.stack, self.error, self.context_of = ["the application's"], driver.CUresult.CUDA_SUCCESS, 71
        self.cuDeviceGet = lambda index: (0, index)
        self.cuDevicePrimaryCtxRetain = lambda device: (self.error, 70 + device)
        self.cuCtxPopCurrent = lambda: (0, self.stack.pop())
        self.cuPointerGetAttribute = lambda attribute, memory: (0, self.context_of)

    def cuCtxPushCurrent(self, context):
        self.stack.append(context)
        return (0,)


@pytest.fixture
def cuda():
    return _cuda_python.CudaPython(FakeRuntime(), FakeDriver(), 1)


def test_the_primary_context_is_the_threads_for_as_long_as_it_takes(cuda):
    stack = cuda._driver.stack
    with cuda.current():
        assert stack == ["the application's", 71]
        with cuda.current():
            pass
        assert stack == ["the application's", 71]
    assert stack == ["the application's"]
    with pytest.raises(KeyError), cuda.current():
        raise KeyError
    assert stack == ["the application's"]


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(SpecError, match="there is no GPU 2: CUDA sees 2\n  fix: name one from 0 to 1"):
        _cuda_python.CudaPython(FakeRuntime(), FakeDriver(), 2)


def test_the_drivers_errors_are_named():
    broken = FakeDriver()
    broken.error = driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    with pytest.raises(ToolError, match="cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY"):
        _cuda_python.CudaPython(FakeRuntime(), broken)


def test_what_is_asked_of_streams_and_memory(cuda):
    cuda._rt.said.clear()
    cuda.after(7, 8)
    cuda.copy(256, 512, 99, 7)
    cuda.release(256, 8)
    assert cuda._rt.said == [
        ("cudaStreamWaitEvent", 7, 8, 0),
        ("cudaMemcpyAsync", 256, 512, 99, runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice, 7),
        ("cudaDeviceSynchronize",),  # before: others' streams may still read it
        ("cudaFree", 256),
        ("cudaEventDestroy", 8),
    ]


@pytest.mark.parametrize(
    ("kind", "device", "context", "why"),
    [
        (2, 1, 71, ""),
        (2, 1, 0, ""),  # of a pool, which belongs to no context
        (2, 1, None, ""),
        (3, 0, 71, ""),  # managed memory moves
        (1, 0, 71, ""),  # pinned memory of the host
        (0, -2, 0, "is not in a GPU's memory"),
        (2, 0, 70, "lies on GPU 0, and the engine on GPU 1"),
        (2, 1, 99, "belongs to another CUDA context"),
    ],
)
def test_whose_memory_it_is(cuda, kind, device, context, why):
    cuda._rt.about = SimpleNamespace(type=runtime.cudaMemoryType(kind), device=device)
    cuda._driver.context_of = context
    found, fix = cuda.foreign(4096)
    assert found == why
    assert bool(fix) == bool(why)


def test_every_name_is_cudas():
    source = inspect.getsource(_cuda_python)
    for module, names in ((runtime, r"\b(?:_rt|rt|cudart)\.(\w+)"), (driver, r"\b(?:_driver|driver)\.(cu\w+|CU\w+)")):
        found = set(re.findall(names, source))
        assert len(found) > 4
        assert [name for name in found if not hasattr(module, name)] == []


def test_integers_are_streams_and_events():
    """Others' streams come as integers; without a driver the calls fail only after they took them."""
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("with a GPU, these numbers are no handles")
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    for code, *_ in (
        runtime.cudaStreamWaitEvent(1, 1, 0),
        runtime.cudaEventRecord(1, 2),
        runtime.cudaMemcpyAsync(256, 512, 0, kind, 1),
        runtime.cudaPointerGetAttributes(256),
    ):
        assert int(code) != 0
