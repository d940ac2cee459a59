"""What is ONNX Runtime's own: the engine is the graph, and CUDA only where it really is."""

import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import MissingBackend, ToolError
from dlcv_deploy.types import CompileOptions, Engine


@pytest.fixture(scope="module", autouse=True)
def _onnxruntime(need):
    need("onnxruntime")


def test_the_engine_is_the_graph():
    engine = backends.get("onnxruntime").compile(models.net(), CompileOptions())
    assert dict(engine.files) == {"model.onnx": models.net()}


def test_an_engine_for_cuda_is_refused_without_a_gpu(monkeypatch):
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "no driver")
    engine = Engine("onnxruntime", "CUDA", "1", {"model.onnx": models.net()})
    with pytest.raises(MissingBackend, match="made for CUDA, and ONNX Runtime has none here: no driver"):
        backends.get("onnxruntime").load(engine)


def test_cuda_takes_a_gpu_and_the_provider(monkeypatch):
    import onnxruntime

    module = backends.get("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "no driver")
    assert not module._has_cuda()
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "")
    assert module._has_cuda()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert not module._has_cuda()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_falling_back_to_the_cpu_is_an_error():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this package has CUDA")
    with pytest.raises(ToolError, match="fell back to CPUExecutionProvider"):
        backends.get("onnxruntime")._session(onnxruntime, models.net(), "CUDA")
