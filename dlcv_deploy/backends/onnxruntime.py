"""ONNX Runtime: the engine is the graph itself; compiling it proves that a session can be made of it."""

from __future__ import annotations

import dataclasses as dc
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MissingBackend, ToolError
from ..isolate import isolated
from ..latency.measure import cores
from ..types import Ability, CompileOptions, Dim, Engine, TensorSpec
from . import _cuda, optional
from .base import Array
from .blame import refusal
from .session import CheckedSession, damaged, file_of, spec_of

name = "onnxruntime"
FILE = "model.onnx"
CPU, CUDA = "CPU", "CUDA"
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_LOG_ERRORS_ONLY = 3
EVIDENCE = "the graph that ONNX Runtime made of it to run"
_INTEGER = ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul")
_RENAMED = re.compile(r"(_token_\d+)+$")


def ability() -> Ability:
    """See ``Backend``."""
    version = optional.version_of("onnxruntime", "onnxruntime", "onnxruntime-gpu")
    return Ability(version, "", "") if version else optional.absent("onnxruntime", "onnxruntime")


def compile(onnx: bytes, options: CompileOptions) -> Engine:
    """See ``Backend``."""
    can = ability()
    optional.check_compiles(name, can)
    answer = isolated(
        f"{__name__}:prove",
        {"batch": dc.astuple(options.batch)},
        {FILE: onnx},
        what="ONNX Runtime",
        timeout_s=options.timeout_s,
    )
    return Engine(name, answer.value["target"], can.version, {FILE: onnx}, (), options.batch, streams=options.streams)


def load(engine: Engine) -> CheckedSession:
    """See ``Backend``."""
    optional.check_runs(name, ability())
    onnx = file_of(engine, FILE)
    if engine.target == CUDA and not _has_cuda():
        raise MissingBackend(
            f"this engine was made for CUDA, and ONNX Runtime has none here: {_cuda.no_gpu() or 'not this package'}",
            fix="install onnxruntime-gpu on a machine with an NVIDIA GPU, or build for this machine",
        )
    ort = optional.module("onnxruntime", extra=name)
    try:
        native = _session(ort, onnx, engine.target, engine.streams, engine.threads)
    except _errors(ort) as e:
        raise damaged(engine, str(e)) from e
    inputs, outputs = _specs(native, engine.batch)
    feeds, fetches = [spec.name for spec in inputs], [spec.name for spec in outputs]

    def infer(arrays: list[Array]) -> list[Array]:
        try:
            found: list[Array] = native.run(fetches, dict(zip(feeds, arrays, strict=True)))
        except _errors(ort) as e:
            raise refusal("ONNX Runtime", b"", str(e)) from e  # it names the node; the graph may be let go
        return found

    return CheckedSession(inputs, outputs, engine.batch, infer, _settings(native))


def prove(request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Make a session in the child process; says for what it was made."""
    ort = optional.module("onnxruntime", extra=name)
    target = CUDA if _has_cuda() else CPU
    try:
        native = _session(ort, files[FILE], target)
    except _errors(ort) as e:
        raise refusal("ONNX Runtime", files[FILE], str(e)) from e
    _specs(native, Dim(*request["batch"]))
    return {"target": target}, {}


def runs_in(engine: Engine, onnx: bytes) -> Mapping[str, str]:
    """See ``Audited``."""
    with tempfile.TemporaryDirectory(prefix="dlcv-deploy-") as room:
        request = {"target": engine.target, "room": room}
        answer = isolated(
            f"{__name__}:optimized",
            request,
            {FILE: file_of(engine, FILE)},
            what="ONNX Runtime",
            timeout_s=CompileOptions().timeout_s,
        )
    found: Mapping[str, str] = answer.value["runs_in"]
    return found


def optimized(request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The type of each product in the graph that ONNX Runtime runs, in the child process.

    A product is in int8 where an operator on integers stands for it, which keeps the int8 weight or the name. Whatever
    else became of it is computed in the type that its graph has.
    """
    from onnx import load, load_model_from_string

    from ..graph.macs import products

    ort = optional.module("onnxruntime", extra=name)
    path = Path(request["room"]) / FILE
    try:
        _session(ort, files[FILE], request["target"], keep_at=str(path))
    except _errors(ort) as e:
        raise refusal("ONNX Runtime", files[FILE], str(e)) from e
    integer = [node for node in load(path).graph.node if node.op_type in _INTEGER]
    names = {_RENAMED.sub("", node.name) for node in integer}
    read = {tensor for node in integer for tensor in node.input if tensor}
    found = products(load_model_from_string(files[FILE]))
    return {"runs_in": {p.name: "int8" if p.name in names or p.int8_weight in read else p.dtype for p in found}}, {}


def _has_cuda() -> bool:
    """Whether the CUDA provider is installed and has a GPU; the package lists it without one, too."""
    if _cuda.no_gpu():
        return False
    return "CUDAExecutionProvider" in optional.module("onnxruntime", extra=name).get_available_providers()


def _session(
    ort: Any,  # noqa: ANN401 - an untyped package
    onnx: bytes,
    target: str,
    streams: int = 1,
    threads: int = 0,
    *,
    keep_at: str = "",
) -> Any:  # noqa: ANN401 - as above
    """A native session; TF32 is off, since precision lives in the graph. The graph it runs is kept at a path."""
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    if threads or streams > 1:
        options.intra_op_num_threads = threads or max(1, cores() // streams)
    options.log_severity_level = _LOG_ERRORS_ONLY
    if keep_at:
        options.optimized_model_filepath = keep_at
    cuda = [("CUDAExecutionProvider", {"use_tf32": "0"})] if target == CUDA else []
    native = ort.InferenceSession(onnx, options, providers=[*cuda, "CPUExecutionProvider"])
    native.disable_fallback()
    native._model_bytes = None  # kept for the fallback alone, and as large as all weights
    first = native.get_providers()[0]
    if target == CUDA and first != "CUDAExecutionProvider":
        raise ToolError(
            f"ONNX Runtime fell back to {first}, though it has the CUDA provider and a GPU",
            fix="see its log: CUDA or cuDNN libraries are missing, or do not match onnxruntime-gpu",
        )
    return native


def _settings(native: Any) -> dict[str, str]:  # noqa: ANN401 - as above
    """What the session was told. 0 threads are as many as there are physical cores; their waiting is a busy one."""
    told = native.get_session_options()
    return {
        "intra_op_num_threads": str(told.intra_op_num_threads),
        "inter_op_num_threads": str(told.inter_op_num_threads),
        "execution_mode": told.execution_mode.name,
        "graph_optimization_level": told.graph_optimization_level.name,
        "session.intra_op.allow_spinning": "1 (its default)",
        "providers": ", ".join(native.get_providers()),
    }


def _specs(native: Any, batch: Dim) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:  # noqa: ANN401 - as above
    def spec(tensor: Any) -> TensorSpec:  # noqa: ANN401 - as above
        shape = [size if isinstance(size, int) else None for size in tensor.shape]
        kind = _DTYPES.get(tensor.type, tensor.type.removeprefix("tensor(").removesuffix(")"))
        return spec_of(tensor.name, shape, kind, batch)

    return tuple(map(spec, native.get_inputs())), tuple(map(spec, native.get_outputs()))


def _errors(ort: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - as above
    """ONNX Runtime's exceptions, which share no class of their own."""
    state = ort.capi.onnxruntime_pybind11_state
    found = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*found, RuntimeError)
