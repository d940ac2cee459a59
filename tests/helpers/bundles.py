"""Small bundles that an engine really runs, without PyTorch: ``models.net`` on images of 8 x 8 pixels."""

import dataclasses as dc

from dlcv_deploy import backends
from dlcv_deploy.bundle import Manifest, write
from dlcv_deploy.digest import digest
from dlcv_deploy.types import CompileOptions, Dim, Engine, Preprocess, TensorSpec

from . import models

LABELS = ("ant", "bee", "cat", "dog", "elk")
PREPROCESS = Preprocess(8, 10, "resize", (0.5, 0.25, 0.1), (0.2, 0.25, 0.3))
BATCH = Dim(1, 2, 8)
MANIFEST = Manifest(
    model="net",
    precision="fp32",
    weights="",
    weights_sha256="ab" * 32,
    trained=True,
    preprocess=PREPROCESS,
    inputs=(TensorSpec("x", (3, 8, 8)),),
    outputs=(TensorSpec("y", (5,)),),
    classes=5,
    engines={},
    build_key="k",
    tool_version="0.1.0",
)

UNREAD = dc.replace(
    MANIFEST,
    model="résumé",
    precision="int8",
    preprocess=Preprocess(32, 40, "pad", (0.5, 0.25, 0.1), (0.2, 0.2, 0.2)),
    inputs=(TensorSpec("input", (3, 32, 32)),),
    outputs=(TensorSpec("logits", (10,)),),
    classes=10,
    contract=("decode", "scale"),
)
"""Of a bundle whose engines nobody runs."""


def compiled(backend, kept, onnx=None):
    """The engine of a backend for a graph; kept on disk until the graph or the backend changes."""
    onnx, module = onnx or models.net(), backends.get(backend)
    version = module.ability().version
    key = digest(onnx=onnx, backend=backend, version=version, batch=BATCH)
    files = kept.get("engine", key)
    if files is None:
        files = dict(module.compile(onnx, CompileOptions(batch=BATCH)).files)
        kept.put("engine", key, files)
    return Engine(backend, "CPU", version, files, (), BATCH)


def bundle(path, *engines, batch=None, labels=LABELS, **manifest):
    """A bundle of these engines, for other batches, or with other words in its manifest."""
    engines = tuple(engine if batch is None else dc.replace(engine, batch=batch) for engine in engines)
    files = {"model.onnx": models.net(), "labels.txt": "".join(f"{label}\n" for label in labels).encode()}
    return write(path, dc.replace(MANIFEST, **manifest), engines, files, replace=True).path
