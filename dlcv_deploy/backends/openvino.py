"""OpenVINO on CPUs: the engine is OpenVINO's own representation, as its ``benchmark_app`` reads it."""

from __future__ import annotations

import dataclasses as dc
import functools
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SpecError, ToolError
from ..isolate import isolated
from ..types import Ability, CompileOptions, Dim, Engine, TensorSpec
from . import optional
from .base import Array
from .blame import explained, refusal
from .session import CheckedSession, damaged, file_of, spec_of

name = "openvino"
FILES = ("model.xml", "model.bin")
_TELEMETRY = "openvino_telemetry"
EVIDENCE = "OpenVINO's execution graph on this CPU, after a run"
_SETTINGS = (
    "PERFORMANCE_HINT",
    "EXECUTION_MODE_HINT",
    "INFERENCE_PRECISION_HINT",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "SCHEDULING_CORE_TYPE",
)
"""What a compiled model says of itself that its speed depends on."""
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")
_alone = threading.RLock()
"""Held while the package is imported and its core is made: engines may be loaded in several threads at once."""
_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "int8"}


def ability() -> Ability:
    """See ``Backend``."""
    version = optional.version_of("openvino")
    return Ability(version, "", "") if version else optional.absent("openvino", "openvino")


def compile(onnx: bytes, options: CompileOptions) -> Engine:
    """See ``Backend``."""
    can = ability()
    optional.check_compiles(name, can)
    with tempfile.TemporaryDirectory(
        prefix="dlcv-deploy-"
    ) as room:  # here, so that it goes even if the child is killed
        answer = isolated(
            f"{__name__}:convert",
            {"batch": dc.astuple(options.batch), "room": room},
            {"model.onnx": onnx},
            what="OpenVINO",
            timeout_s=options.timeout_s,
        )
    return Engine(
        name, "CPU", can.version, answer.files, tuple(answer.value["notes"]), options.batch, streams=options.streams
    )


def load(engine: Engine) -> CheckedSession:
    """See ``Backend``."""
    optional.check_runs(name, ability())
    xml, weights = file_of(engine, FILES[0]), file_of(engine, FILES[1], may_be_empty=True)
    ov = _openvino()
    try:
        model = _core().read_model(xml, weights)
        inputs, outputs = _specs(model, engine.batch)  # not of what is compiled: casts melt there, and names with them
        compiled = _compiled(ov, model, engine.streams, engine.threads)
        settings = _settings(compiled)
    except ToolError:
        raise
    except RuntimeError as e:
        raise damaged(engine, _words(e), str(e)) from e
    requests = threading.local()  # a request serves one thread at a time

    def infer(arrays: list[Array]) -> list[Array]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        request = requests.own
        held = [np.require(array, requirements="W") for array in arrays]  # a tensor does not keep its array alive
        try:
            for i, array in enumerate(held):
                request.set_input_tensor(i, ov.Tensor(array, shared_memory=True))
            request.infer()
        except RuntimeError as e:
            raise refusal("OpenVINO", b"", str(e)) from e
        return [request.get_output_tensor(i).data.copy() for i in range(len(outputs))]

    return CheckedSession(inputs, outputs, engine.batch, infer, settings)


def convert(request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a graph, compile it once to prove that it can be, and return it in OpenVINO's representation."""
    ov = _openvino()
    onnx = files["model.onnx"]
    try:
        model = _core().read_model(_guarded(onnx))
        _name_ports(model, onnx)
        _specs(model, Dim(*request["batch"]))
        _compiled(ov, model)
        ov.save_model(model, Path(request["room"]) / FILES[0], compress_to_fp16=False)
    except ToolError:
        raise
    except RuntimeError as e:
        raise refusal("OpenVINO", onnx, str(e)) from e
    notes = []
    if _carries_fp16(ov, model) and _precision(ov, model) != "f16":
        notes.append("this CPU has no fp16 arithmetic: OpenVINO computes the fp16 graph in fp32 on it")
    return {"notes": notes}, {file: (Path(request["room"]) / file).read_bytes() for file in FILES}


def runs_in(engine: Engine, onnx: bytes) -> Mapping[str, str]:
    """See ``Audited``."""
    from onnx import load_model_from_string

    from ..graph.macs import PRODUCTS

    files = {FILES[0]: file_of(engine, FILES[0]), FILES[1]: file_of(engine, FILES[1], may_be_empty=True)}
    timeout_s = CompileOptions().timeout_s
    request = {"batch": dc.astuple(engine.batch)}
    layers = isolated(f"{__name__}:executed", request, files, what="OpenVINO", timeout_s=timeout_s).value["layers"]
    graph = load_model_from_string(onnx).graph
    found: dict[str, str] = {}
    for node in (node for node in graph.node if node.op_type in PRODUCTS):
        own = {node.name or node.output[0], node.output[0]}
        computed = {dtype for names, dtype in layers if own.intersection(names)}
        if len(computed) == 1:
            found[node.name or node.output[0]] = computed.pop()
    return found


def executed(request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The products that OpenVINO executes and their types, in the child process, after zeros went through.

    What it calls the runtime precision is that of the layer, which for a layer of int8 weights and float32 data is
    int8, though a float32 kernel computes it (2026.4). So a product is in int8 where both tensors that it multiplies
    are, and the kernel's name, which is known once it has run, says so too.
    """
    ov = _openvino()
    try:
        model = _core().read_model(files[FILES[0]], files[FILES[1]])
        compiled = _compiled(ov, model)
        batch = Dim(*request["batch"])
        feeds = [np.zeros((batch.lo, *spec.shape), spec.dtype) for spec in _specs(model, batch)[0]]
        compiled.create_infer_request().infer(feeds)
    except RuntimeError as e:
        told = explained(name, _words(e), str(e), fix="build for another target")
        raise ToolError(f"OpenVINO does not run its own engine: {told.what}", fix=told.fix, log=str(e)) from e
    layers = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = {key: str(getattr(value, "value", value)) for key, value in op.get_rt_info().items()}
        if info["layerType"] not in _PRODUCTS:
            continue
        types = [op.input(i).get_element_type().get_type_name() for i in (0, 1)]
        kernel = info["primitiveType"].rpartition("_")[2].lower()
        kinds = {_DTYPES.get(kind, kind) for kind in (*types, kernel)}
        wide = sorted(kinds - {"int8"}) or ["int8"]
        names = [name.partition("/")[0] for name in info["originalLayersNames"].split(",")]
        layers.append((names, wide[0]))
    return {"layers": layers}, {}


def _guarded(onnx: bytes) -> bytes:
    """The graph as OpenVINO computes it right; what is no graph is its own to refuse."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    from onnx import load_model_from_string

    from ..graph.guard import guard_concat

    try:
        guarded: bytes = guard_concat(load_model_from_string(onnx)).SerializeToString()
    except (DecodeError, SpecError):
        return onnx
    return guarded


def _compiled(ov: Any, model: Any, streams: int = 1, threads: int = 0) -> Any:  # noqa: ANN401 - an untyped package
    """Compile for latency, in the precision the graph is written in and no other.

    OpenVINO's default on CPUs with bf16 is bf16 whatever the graph says, and a hint that the CPU cannot follow falls
    back to that default in silence: so ask for what it has, and check.
    """
    wanted = _precision(ov, model)
    how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": wanted}
    if streams > 1:
        how["NUM_STREAMS"] = str(streams)
    if threads:
        how["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = _core().compile_model(model, "CPU", how)
    got = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if got != wanted:
        raise ToolError(f"OpenVINO would compute in {got}, though {wanted} was asked for", fix="use another target")
    return compiled


def _settings(compiled: Any) -> dict[str, str]:  # noqa: ANN401 - as above
    """Values as the enumerations' own names; a version that has not one of the properties leaves it out."""
    found = {key: compiled.get_property(key) for key in _SETTINGS if key in _known()}
    return {
        key: value.to_string() if hasattr(value, "to_string") else str(getattr(value, "name", value))
        for key, value in found.items()
    }


@functools.cache
def _known() -> frozenset[str]:
    """Names of the CPU's properties; asked for once, since each list of strings is never freed (2026.4)."""
    return frozenset(_core().get_property("CPU", "SUPPORTED_PROPERTIES"))


def _precision(ov: Any, model: Any) -> str:  # noqa: ANN401 - as above
    native = "FP16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "f16" if native and _carries_fp16(ov, model) else "f32"


def _carries_fp16(ov: Any, model: Any) -> bool:  # noqa: ANN401 - as above
    return any(port.get_element_type() == ov.Type.f16 for node in model.get_ops() for port in node.outputs())


def _specs(model: Any, batch: Dim) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:  # noqa: ANN401 - as above
    def spec(port: Any) -> TensorSpec:  # noqa: ANN401 - as above
        shape = port.get_partial_shape()
        sizes = None if shape.rank.is_dynamic else [None if d.is_dynamic else d.get_length() for d in shape]
        return spec_of(port.get_any_name(), sizes, port.get_element_type().to_dtype().name, batch)

    return tuple(map(spec, model.inputs)), tuple(map(spec, model.outputs))


def _name_ports(model: Any, onnx: bytes) -> None:  # noqa: ANN401 - as above
    """Give each input and output the name it has in the graph; OpenVINO's own reader loses some of them.

    It drops operators that do nothing in inference (Identity, Dropout), and may keep the name behind them instead.
    """
    from onnx import load_model_from_string

    graph = load_model_from_string(onnx).graph
    held = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in held]
    for ports, names in ((model.inputs, inputs), (model.outputs, [value.name for value in graph.output])):
        if len(ports) != len(names):
            raise ToolError(
                f"OpenVINO keeps {len(ports)} of the tensors {', '.join(names)}",
                fix="export the network without the inputs that it does not use",
            )
        for port, own in zip(ports, names, strict=True):
            port.get_tensor().set_names({own})


def _openvino() -> Any:  # noqa: ANN401 - as above
    """The package, without its telemetry.

    Importing it otherwise reports to Google Analytics from a forked process and leaves an identity in the home
    folder. Without the package ``openvino_telemetry`` it uses a stub of its own, which does nothing.
    """
    with _alone, _without(_TELEMETRY):
        return optional.module("openvino", extra=name)


def _core() -> Any:  # noqa: ANN401 - as above
    """The one core of this process, which stays until it ends.

    Each core brings a stack for signal handlers (2026.4), and puts back the one before when it goes, which may have
    gone already: the next signal then kills the process.
    """
    with _alone:  # a cache alone makes two where two threads ask for the first
        return _made()


@functools.cache
def _made() -> Any:  # noqa: ANN401 - as above
    """A core, once the package's tables of types are there.

    It makes each at its first use, where two threads that come at once wait for each other for good (2026.4): one
    holds the table and wants Python's lock, the other the reverse.
    """
    ov = _openvino()
    ov.Type(ov.Tensor(np.zeros(1, np.float32), shared_memory=True).data.dtype).to_dtype()
    return ov.Core()


@contextmanager
def _without(module: str) -> Iterator[None]:
    """As if a module were not installed."""
    held = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own way to say so
    try:
        yield
    finally:
        if held is None:
            del sys.modules[module]
        else:
            sys.modules[module] = held


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
