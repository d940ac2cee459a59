"""TensorRT and TensorRT for RTX have one Python API, so here is one builder, given the module to use.

Precision is in the graph: networks are strongly typed, and TF32 is off, so that fp32 means fp32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import SpecError, ToolError
from ..log import NativeLog, tensorrt_logger
from ..messages import Message
from ..plugin.library import FILE as PLUGIN
from ..types import Dim, TensorSpec
from . import _plugin
from .blame import cause, explained, refusal
from .session import spec_of

if TYPE_CHECKING:
    import tensorrt  # type: ignore[import-untyped, import-not-found, unused-ignore]

T = TypeVar("T")

ONNX, TIMING_CACHE = "model.onnx", "timing.cache"
STATED = "the Q/DQ graph that it was compiled from, for only a GPU could tell more"
_NOTES = 20
_MEANT = re.compile(r"Converting conv (weight|activation) scales to fp32")
"""Said of INT8 with FP16 in between (TensorRT for RTX 1.7), which changes no value."""
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class Trt(Protocol):
    """What is used of the module ``tensorrt`` or ``tensorrt_rtx``."""

    __name__: str
    ILogger: type[tensorrt.ILogger]
    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    Dims: type[tensorrt.Dims]
    Runtime: type[tensorrt.Runtime]
    TensorIOMode: type[tensorrt.TensorIOMode]
    LayerType: type[tensorrt.LayerType]

    def get_plugin_registry(self) -> Any: ...  # noqa: ANN401 - the stubs do not say; an IPluginRegistry


if TYPE_CHECKING:
    _MODULE: Trt = tensorrt

Configure = Callable[[Any, "tensorrt.IBuilderConfig"], str]
"""Sets what only one of the two has, given its module; returns the target in words."""


def version(text: str) -> tuple[int, ...]:
    """A version as numbers: ``10.13.0.35`` is (10, 13, 0, 35); what follows the numbers is left out."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def stated(onnx: bytes) -> dict[str, str]:
    """The type of each product by node name: int8 where both that it multiplies are dequantized, which is fused."""
    from onnx import load_model_from_string

    from ..graph.macs import products

    found = products(load_model_from_string(onnx))
    return {p.name: "int8" if p.int8_data and p.int8_weight else p.dtype for p in found}


def build(
    trt: Trt,
    tool: str,
    request: Mapping[str, Any],
    files: Mapping[str, bytes],
    *,
    engine_file: str,
    configure: Configure,
    flags: int = 0,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Build an engine, in the child process.

    Args:
        trt: The module.
        tool: Its name in errors.
        request: ``batch`` as lo, opt, hi and ``workspace_bytes``.
        files: ``model.onnx``; ``timing.cache`` where one is to be used (it may be empty); ``libdlcv_lrn.so`` where the
            graph has nodes of that plugin.
        engine_file: The name of the result.
        configure: See ``Configure``.
        flags: Of the network definition.

    Returns:
        ``target`` and ``notes``; the engine, and the timing cache where one was given.

    Raises:
        SpecError: The graph cannot take these batch sizes.
        ToolError: The parser or the builder refused, and names the node; or a plugin did not become a plugin layer.
    """
    onnx, batch, log = files[ONNX], Dim(*request["batch"]), NativeLog(tool)
    logger = tensorrt_logger(trt, log)
    try:
        builder = trt.Builder(logger)
    except TypeError as e:  # pybind11: the factory returned a null pointer
        errors = log.take_errors()
        found = cause(tool, errors) or Message("", "it does not say why", "check the driver and the GPU")
        raise ToolError(f"{tool} gave no builder: {found.what}", fix=found.fix, log=errors) from e
    network = given(builder.create_network(flags), f"{tool} gave no network", log)
    if PLUGIN in files:
        _plugin.register(trt, tool, files[PLUGIN], log)
    _parse(trt, tool, network, onnx, logger, log)
    if PLUGIN in files:
        _plugin.check_layers(trt, tool, network, _plugin.nodes(onnx), log)
    config = given(builder.create_builder_config(), f"{tool} gave no builder configuration", log)
    target = configure(trt, config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace_bytes"])
    config.clear_flag(trt.BuilderFlag.TF32)
    if TIMING_CACHE in files:
        cache = given(config.create_timing_cache(files[TIMING_CACHE]), f"{tool} cannot read the timing cache", log)
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            raise ToolError(
                f"{tool} refused the timing cache", fix="delete it: it is another GPU's", log=log.take_errors()
            )
    _profile(trt, tool, builder, network, config, batch, log)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise refusal(tool, onnx, log.take_errors() or "it returned no engine and said nothing")
    made = {engine_file: bytes(plan)}
    if TIMING_CACHE in files:
        cache = given(config.get_timing_cache(), f"{tool} gave no timing cache back", log)
        made[TIMING_CACHE] = bytes(cache.serialize())
    notes = [text for text in log.warnings if not _MEANT.search(text)]
    return {"target": target, "notes": notes[:_NOTES]}, made


def _parse(
    trt: Trt,
    tool: str,
    network: tensorrt.INetworkDefinition,
    onnx: bytes,
    logger: tensorrt.ILogger,
    log: NativeLog,
) -> None:
    """Read the graph into the network; every error of the parser goes into one of ours."""
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        nodes, words, errors = dict[str, None](), dict[str, None](), log.take_errors()
        for i in range(parser.num_errors):
            error: tensorrt.ParserError = parser.get_error(i)
            where = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the graph"
            lines = [
                line for line in error.desc().splitlines() if "catchCudaError" not in line
            ]  # no GPU: said each time
            nodes[where] = words[f"{error.code().name}: {'; '.join(lines[:2])}"] = None
        beyond = "the operator or its attributes are beyond this tool, unless the graph is damaged; try another target"
        told = explained(tool, "; ".join(words) or "it does not say why", "\n".join([*words, errors]), fix=beyond)
        raise ToolError(f"{tool} refused {', '.join(nodes) or 'the graph'}: {told.what}", fix=told.fix, log=errors)
    if network.num_outputs == 0:
        raise ToolError(f"{tool} refused the graph: it has no outputs", fix="the ONNX file is empty or damaged")
    log.take_errors()


def _profile(
    trt: Trt,
    tool: str,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    batch: Dim,
    log: NativeLog,
) -> None:
    """Let every input take ``batch``; a graph whose batch is fixed needs no profile."""
    profile = given(builder.create_optimization_profile(), f"{tool} gave no optimization profile", log)
    dynamic = False
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = sizes(tensor.shape)
        spec = spec_of(tensor.name, shape, dtype_of(tensor.name, tensor.dtype), batch)
        if shape[0] is None:
            dynamic = True
            lo, opt, hi = (trt.Dims([size, *spec.shape]) for size in (batch.lo, batch.opt, batch.hi))
            profile.set_shape(tensor.name, lo, opt, hi)
    if dynamic and config.add_optimization_profile(profile) < 0:
        errors = log.take_errors()
        found = cause(tool, errors) or Message("", errors.partition("\n")[0])
        why = f": {found.what}" if found.what else ""
        raise ToolError(
            f"{tool} refused the batch sizes {batch.lo}:{batch.opt}:{batch.hi}{why}", fix=found.fix, log=errors
        )


def given(value: T | None, what: str, log: NativeLog) -> T:
    """A native object; TensorRT returns None in place of an error."""
    if value is None:
        errors = log.take_errors()
        told = explained(log.name, errors.splitlines()[-1] if errors else "it returned None", errors)
        raise ToolError(f"{what}: {told.what}", fix=told.fix, log=errors)
    return value


def sizes(dims: tensorrt.Dims) -> list[int | None]:
    """A shape, with None for what is free."""
    return [None if dims[i] < 0 else dims[i] for i in range(len(dims))]


def dtype_of(name: str, dtype: tensorrt.DataType) -> str:
    """NumPy's name of a data type."""
    if dtype.name not in _DTYPES:
        raise SpecError(f"tensor {name!r} is {dtype.name}, which NumPy has not", fix="cast it to float32 in the graph")
    return _DTYPES[dtype.name]


def describe(trt: Trt, plan: tensorrt.ICudaEngine) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], Dim]:
    """Inputs, outputs and the batch sizes that all inputs take (the first profile's)."""
    names = [plan.get_tensor_name(i) for i in range(plan.num_io_tensors)]
    inputs = [name for name in names if plan.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    shapes = {name: sizes(plan.get_tensor_shape(name)) for name in names}
    bounds = []
    for name in inputs:
        fixed = shapes[name][0]
        profile = [shape[0] for shape in plan.get_tensor_profile_shape(name, 0)] if fixed is None else [fixed] * 3
        bounds.append(profile)
    batch = Dim(max(b[0] for b in bounds), max(b[1] for b in bounds), min(b[2] for b in bounds))

    def spec(name: str) -> TensorSpec:
        return spec_of(name, shapes[name], dtype_of(name, plan.get_tensor_dtype(name)), batch)

    return tuple(map(spec, inputs)), tuple(spec(name) for name in names if name not in inputs), batch
