"""TensorRT 10 and 11: compiles for the GPU that it runs on, and runs there."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingBackend, SpecError, ToolError
from ..isolate import isolated
from ..plugin.library import FILE as PLUGIN
from ..types import Ability, CompileOptions, Engine
from . import _cuda, _plugin, optional
from ._trt import STATED, stated
from ._trt import version as numbers
from .session import CheckedSession

if TYPE_CHECKING:
    from ._trt import Trt

name = "tensorrt"
FILE = "model.engine"
TOOL = "TensorRT"
EVIDENCE = STATED
EXTRA = "gpu"
_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_OLDEST, _ALWAYS_TYPED = (10,), (11,)


def ability() -> Ability:
    """See ``Backend``."""
    version = optional.version_of("tensorrt", *_DISTRIBUTIONS)
    if not version:
        return optional.absent("tensorrt", EXTRA)
    if reason := _cuda.no_gpu():
        return Ability(version, f"TensorRT compiles on the GPU: {reason}", reason)
    try:  # only now: the wheel on PyPI installs without the libraries, and then does not import
        optional.module("tensorrt", extra=EXTRA)
        device = f"SM {_cuda.capability() / 10:.1f}"
    except (MissingBackend, ToolError) as e:
        return Ability(version, e.what, e.what)
    return Ability(version, "", _cuda.no_binding(), device)


def compile(onnx: bytes, options: CompileOptions) -> Engine:
    """Compile for the first GPU.

    With ``options.timing_cache``, the engine has one more file, ``timing.cache``: what is to be kept in its place.
    """
    can = ability()
    optional.check_compiles(name, can)
    sm = _cuda.capability()
    if set(options.sm) - {sm}:
        raise SpecError(
            f"TensorRT compiles for the GPU it runs on, SM {sm}, and not for SM {', '.join(map(str, options.sm))}",
            fix="leave --sm out, or use --target tensorrt_rtx",
        )
    files, library = {"model.onnx": onnx}, None
    if options.plugin:
        library = _plugin.served(options.plugin, major=_major(can.version), sm=(sm,))
        files[PLUGIN] = library.data
    if options.timing_cache:
        files["timing.cache"] = _read_or_empty(Path(options.timing_cache))
    answer = isolated(
        f"{__name__}:build",
        {"batch": dc.astuple(options.batch), "workspace_bytes": options.workspace_bytes, "sm": sm},
        files,
        what=TOOL,
        timeout_s=options.timeout_s,
    )
    made = Engine(name, answer.value["target"], can.version, answer.files, tuple(answer.value["notes"]), options.batch)
    return made if library is None else _plugin.calling(made, library)


def runs_in(engine: Engine, onnx: bytes) -> Mapping[str, str]:
    """See ``Audited``."""
    return stated(onnx)


def load(engine: Engine) -> CheckedSession:
    """See ``Backend``."""
    can = ability()
    optional.check_runs(name, can)
    from ._trt_session import DeviceSession

    trt = optional.module("tensorrt", extra=EXTRA)
    return DeviceSession(trt, engine, FILE, can.version, _cuda.device(engine.device), major=_major(can.version))


def build(request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Build an engine in the child process, for the GPU whose architecture is ``request["sm"]``."""
    from . import _trt

    trt: Trt = optional.module("tensorrt", extra=EXTRA)
    installed = _trt.version(str(getattr(trt, "__version__", "")))
    if installed < _OLDEST:
        raise MissingBackend(
            f"TensorRT {'.'.join(map(str, installed))} is too old", fix=f"pip install 'dlcv-deploy[{EXTRA}]'"
        )
    target = f"SM {request['sm'] / 10:.1f}"
    flags = network_flags(trt, installed)
    return _trt.build(trt, TOOL, request, files, engine_file=FILE, configure=lambda *_: target, flags=flags)


def _major(version: str) -> int | None:
    """The first number of a version; None where it is not known."""
    return next(iter(numbers(version)), None)


def _read_or_empty(path: Path) -> bytes:
    """A file's content; nothing where it is yet to be made."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as e:
        raise SpecError(f"the timing cache {path} cannot be read: {e.strerror}", fix="name another file") from e


def network_flags(trt: Trt, installed: tuple[int, ...]) -> int:
    """Strong typing has to be asked for before TensorRT 11, where there is nothing else."""
    if installed >= _ALWAYS_TYPED:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
