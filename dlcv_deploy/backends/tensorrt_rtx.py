"""TensorRT for RTX: compiles on any machine, for GPUs named by architecture; running takes one of them."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ..errors import SpecError, ToolError
from ..isolate import isolated
from ..plugin.library import FILE as PLUGIN
from ..types import Ability, CompileOptions, Engine
from . import _cuda, _plugin, optional
from ._trt import STATED, stated
from .session import CheckedSession

name = "tensorrt_rtx"
FILE = "model.rtx.engine"
TOOL = "TensorRT for RTX"
EVIDENCE = STATED
EXTRA = "rtx"
_DEFAULT_TARGET = "SM 8.0 and later"  # "CPU-Only AOT and TensorRT-RTX Engines", section "Compute Capability"


def ability() -> Ability:
    """See ``Backend``."""
    version = optional.version_of("tensorrt_rtx")
    if not version:
        return optional.absent("tensorrt_rtx", EXTRA)
    return Ability(version, "", _cuda.no_gpu() or _cuda.no_binding())


def compile(onnx: bytes, options: CompileOptions) -> Engine:
    """See ``Backend``."""
    can = ability()
    optional.check_compiles(name, can)
    files, library, env = {"model.onnx": onnx}, None, dict[str, str]()
    with ExitStack() as stack:
        if options.plugin:  # built against any TensorRT's headers
            library = _plugin.served(options.plugin, major=None, sm=options.sm)
            files[PLUGIN] = library.data
            env = stack.enter_context(_plugin.parser_path())
        answer = isolated(
            f"{__name__}:build",
            {"batch": dc.astuple(options.batch), "workspace_bytes": options.workspace_bytes, "sm": options.sm},
            files,
            what=TOOL,
            timeout_s=options.timeout_s,
            env=env,
        )
    notes = list(answer.value["notes"])
    if options.timing_cache:
        notes.append("the timing cache was not used: TensorRT for RTX has none")
    made = Engine(name, answer.value["target"], can.version, answer.files, tuple(notes), options.batch)
    return made if library is None else _plugin.calling(made, library)


def runs_in(engine: Engine, onnx: bytes) -> Mapping[str, str]:
    """See ``Audited``."""
    return stated(onnx)


def load(engine: Engine) -> CheckedSession:
    """See ``Backend``."""
    can = ability()
    optional.check_runs(name, can)
    from ._trt_session import DeviceSession

    trt = optional.module("tensorrt_rtx", extra=EXTRA)

    def context(plan: Any) -> Any:  # noqa: ANN401 - the API beyond what the stubs know
        how = plan.create_runtime_config()
        strategies = trt.CudaGraphStrategy
        how.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if engine.cuda_graphs else strategies.DISABLED
        return plan.create_execution_context(how)

    return DeviceSession(trt, engine, FILE, can.version, _cuda.device(engine.device), context=context)


def build(request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Build an engine in the child process, for the architectures in ``request["sm"]``."""
    from . import _trt

    def configure(trt: Any, config: Any) -> str:  # noqa: ANN401 - the API beyond what the stubs know
        known = {int(key[2:]): value for key, value in trt.ComputeCapability.__members__.items() if key[:2] == "SM"}
        sm = sorted(set(request["sm"]))
        if unknown := [n for n in sm if n not in known]:
            raise SpecError(
                f"{TOOL} does not compile for SM {unknown[0]}", fix=f"use some of {', '.join(map(str, sorted(known)))}"
            )
        config.num_compute_capabilities = len(sm)
        for i, n in enumerate(sm):
            if not config.set_compute_capability(known[n], i):
                raise ToolError(f"{TOOL} refused SM {n} beside {sm}", fix="build for one architecture at a time")
        return f"SM {', '.join(f'{n / 10:.1f}' for n in sm)}" if sm else _DEFAULT_TARGET

    trt = optional.module("tensorrt_rtx", extra=EXTRA)
    return _trt.build(trt, TOOL, request, files, engine_file=FILE, configure=configure)
