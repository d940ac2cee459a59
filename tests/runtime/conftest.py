from pathlib import Path

import pytest
from helpers import bundles

from dlcv_deploy.store import Store

CPU = ("openvino", "onnxruntime")


@pytest.fixture(scope="session")
def compiled(request, need):
    """The engine of a backend for a graph, ``models.net`` by default."""
    kept = Store(Path(request.config.cache.mkdir("engines")))

    def compiled_(backend, onnx=None):
        need(backend)
        return bundles.compiled(backend, kept, onnx)

    return compiled_


@pytest.fixture(scope="session", params=CPU)
def cpu_bundle(request, compiled, tmp_path_factory):
    """A bundle with one engine of each backend that runs on every CPU."""
    return bundles.bundle(tmp_path_factory.mktemp("cpu") / f"{request.param}.dlcv", compiled(request.param))


@pytest.fixture(scope="session")
def both(compiled, tmp_path_factory):
    """A bundle that holds both."""
    return bundles.bundle(tmp_path_factory.mktemp("both") / "net.dlcv", *map(compiled, CPU))
