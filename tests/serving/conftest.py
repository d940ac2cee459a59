"""Bundles of a tiny network, compiled once, and what Triton reads of a repository."""

import dataclasses as dc
from pathlib import Path

import pytest
from helpers import bundles, models

from dlcv_deploy import backends
from dlcv_deploy.bundle import write
from dlcv_deploy.digest import digest
from dlcv_deploy.parity.contract import steps
from dlcv_deploy.pixels import golden
from dlcv_deploy.store import Store
from dlcv_deploy.types import CompileOptions, Dim, Engine

BATCH = Dim(1, 10, 32)
NETS = {"fp32": models.net, "int8": models.net_int8}


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """What the tests of this folder compile is compiled once."""
    return Store(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def engine(request, need):
    """An engine of ``net`` by a backend; kept on disk until the graph or the backend changes."""
    kept = Store(Path(request.config.cache.mkdir("triton")))

    def make(backend, precision):
        need(backend)
        module, onnx = backends.get(backend), NETS[precision]()
        version = module.ability().version
        key = digest(onnx=onnx, backend=backend, version=version)
        files = kept.get("engine", key)
        if files is None:
            files = dict(module.compile(onnx, CompileOptions(batch=BATCH)).files)
            kept.put("engine", key, files)
        return Engine(backend, "CPU", version, files, (), BATCH)

    return make


@pytest.fixture
def bundle(need, engine, tmp_path):
    """A bundle of ``net`` at a precision, with these engines."""
    need("onnxruntime")

    def make(precision="fp32", targets=("onnxruntime",), name="net.dlcv", more=(), **changes):
        pre = changes.get("preprocess", bundles.PREPROCESS)
        with backends.get("onnxruntime").load(engine("onnxruntime", precision)) as session:
            files = golden(session, pre)
        files |= {"model.onnx": NETS[precision](), "labels.txt": "".join(f"{n}\n" for n in bundles.LABELS).encode()}
        manifest = dc.replace(bundles.MANIFEST, precision=precision, contract=steps(pre), **changes)
        engines = (*(engine(target, precision) for target in targets), *more)
        return write(tmp_path / name, manifest, engines, files, replace=True).path

    return make
