"""A backend like TensorRT's without a GPU: ONNX's reference runs the graph, the host's kernels its plugin nodes.

Its plugin's library is that of the kernels compiled for the host. It shows that code which builds, keeps, reloads and
compares engines with the plugin is right; of TensorRT it shows nothing.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import load_model_from_string
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from dlcv_deploy.backends.base import Timing
from dlcv_deploy.backends.session import CheckedSession, file_of, spec_of
from dlcv_deploy.plugin import reference
from dlcv_deploy.plugin.formats import FORMATS
from dlcv_deploy.plugin.host import HostKernels
from dlcv_deploy.plugin.library import FILE, OPS
from dlcv_deploy.types import Ability, Engine, PluginNeed

name = "host_trt"
FORMS = {"float32": "fp32 linear", "float16": "fp16 kHWC8", "int8": "int8 kCHW32"}


def ability():
    return Ability("1.0", "", "")


def compile(onnx, options):
    plugin = PluginNeed(FILE, "0" * 64, "10.14.1", (75,), OPS) if options.plugin else None
    files = {"model.onnx": onnx, **({FILE: options.plugin} if options.plugin else {})}
    return Engine(name, "nowhere", "1.0", files, (), options.batch, plugin)


def load(engine):
    operators = [LRN, *(_operators(file_of(engine, FILE)) if engine.plugin else ())]
    proto = load_model_from_string(file_of(engine, "model.onnx"))
    for opset in proto.opset_import:  # the reference knows DequantizeLinear from 19 on
        opset.version = max(opset.version, 1 if opset.domain else 19)
    evaluator = ReferenceEvaluator(proto, new_ops=operators)
    inputs, outputs = (tuple(map(_spec(engine), values)) for values in (proto.graph.input, proto.graph.output))
    return _Session(evaluator, inputs, outputs, engine.batch)


class _Session(CheckedSession):
    def __init__(self, evaluator, inputs, outputs, batch):
        names = [spec.name for spec in inputs]
        super().__init__(
            inputs, outputs, batch, lambda arrays: evaluator.run(None, dict(zip(names, arrays, strict=True)))
        )

    def run_timed(self, feeds):
        self.run(feeds)
        return Timing(0.25, 1.0, 0.25, 0.5)


def _spec(engine):
    def spec(value):
        shape = [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        return spec_of(value.name, shape or [None], "float32", engine.batch)

    return spec


def _operators(library):
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{os.getpid()}.so"
        path.write_bytes(library)
        kernels = HostKernels(path)

    def run(x, pool, **attributes):
        scales = tuple(attributes.pop(f"{end}_scale", None) or 0.0 for end in ("input", "output"))
        form = FORMATS[FORMS[x.dtype.name]]
        return (np.ascontiguousarray(kernels.run(x, form, **attributes, scales=scales, pool=pool)[0]),)

    class DlcvLRN(OpRun):
        op_domain = "dlcv"

        def _run(self, x, **attributes):
            return run(x, None, **attributes)

    class DlcvLRNMaxPool(OpRun):
        op_domain = "dlcv"

        def _run(self, x, kernel_shape=None, strides=None, pads=None, **attributes):
            return run(x, (*kernel_shape, *strides, *pads), **attributes)

    return [DlcvLRN, DlcvLRNMaxPool]


class LRN(OpRun):
    """The reference's own goes through as many channels as there are images (onnx 1.23)."""

    op_domain = ""

    def _run(self, x, alpha=1e-4, beta=0.75, bias=1.0, size=None):
        return (reference.lrn(x, size, alpha, beta, bias).astype(x.dtype),)
