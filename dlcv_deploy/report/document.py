"""The report of a build as one frozen value, and as JSON with a versioned schema."""

from __future__ import annotations

import dataclasses as dc
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from ..errors import ArtifactError, SpecError
from ..latency.values import Latency, LatencyReport
from ..parity.values import Consistency, Drift, ParityReport
from ..study import QuantizationStudy
from ..types import LeftAlone, Precision, PrecisionAudit, Preprocess, StageTime

SCHEMA = 2
REFERENCE = "PyTorch fp32"
"""What the original is called in reports."""


@dc.dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights are from; ``accuracy`` is what their source claims, in words. Not trained means random."""

    source: str
    sha256: str
    licence: str
    accuracy: str
    trained: bool


@dc.dataclass(frozen=True, slots=True)
class Calibration:
    """What the INT8 scales were taken from: a method, and ``images`` images, or random numbers."""

    method: str
    source: str
    images: int
    random: bool
    table_sha256: str


@dc.dataclass(frozen=True, slots=True)
class File:
    """A file of the bundle."""

    name: str
    size_bytes: int
    sha256: str


LrnChoice = Literal["native", "plugin"]


@dc.dataclass(frozen=True, slots=True)
class Lrn:
    """Which local response normalization an engine uses, where that was asked for: TensorRT's own, or the plugin.

    ``lowered`` are the nodes that the plugin computes, ``left_alone`` those that it could not take. ``race`` has the
    times of both, where the faster was to be kept.
    """

    choice: LrnChoice
    lowered: tuple[str, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    race: tuple[Latency, ...] = ()


@dc.dataclass(frozen=True, slots=True)
class CompiledEngine:
    """What a backend compiled, for what, and the files it is in."""

    backend: str
    target: str
    version: str
    files: tuple[File, ...]
    notes: tuple[str, ...] = ()
    lrn: Lrn | None = None
    audit: PrecisionAudit | None = None


@dc.dataclass(frozen=True, slots=True)
class Environment:
    """Where it was built: Python's version, the operating system, and the packages that did the work."""

    python: str
    os: str
    packages: Mapping[str, str]


@dc.dataclass(frozen=True, slots=True)
class Report:
    """All that a build did and measured; what was not done or not measured is ``None`` or empty.

    ``created`` is UTC, ISO 8601. ``quantized`` are the nodes that compute in INT8, ``left_alone`` those that do not
    though they could have. ``drift`` has an entry for each graph below fp32, ``consistency`` one for each engine that
    ran; ``commands`` repeat the build and what was measured.
    """

    tool_version: str
    created: str
    model: str
    weights: Weights
    preprocess: Preprocess
    precision: Precision
    calibration: Calibration | None
    quantized: tuple[str, ...]
    left_alone: tuple[LeftAlone, ...]
    engines: tuple[CompiledEngine, ...]
    stages: tuple[StageTime, ...]
    peak_memory_bytes: int | None
    parity: tuple[ParityReport, ...]
    latency: LatencyReport | None
    environment: Environment
    warnings: tuple[str, ...] = ()
    quantization: QuantizationStudy | None = None
    drift: tuple[Drift, ...] = ()
    consistency: tuple[Consistency, ...] = ()
    commands: tuple[str, ...] = ()


def engine_name(precision: str, backend: str) -> str:
    """What an engine is called in legs and latency rows; a report finds its figures by this name."""
    return f"{precision} on {backend}"


def environment(packages: tuple[str, ...]) -> Environment:
    """This Python, this operating system, and the versions of those of ``packages`` that are installed."""
    import platform
    from importlib import metadata

    installed = {name: list(metadata.distributions(name=name)) for name in packages}
    versions = {name: found[0].version for name, found in installed.items() if found}
    return Environment(platform.python_version(), platform.platform(), versions)


def plain(value: object) -> Any:  # noqa: ANN401
    """A value as JSON knows it: dataclasses as objects, tuples as arrays, NaN and infinities as null.

    Bytes of a file's name that are no UTF-8, which Python keeps as lone surrogates, become escapes.
    """
    if dc.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dc.fields(value)}
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(report: Report) -> str:
    """A report as JSON: fields in the order of their declaration, the schema's version first.

    What was not measured is null. So are NaN and infinity, which JSON does not have; ``non_finite`` counts their cause.
    """
    return json.dumps({"schema": SCHEMA, **plain(report)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """The report that ``to_json`` wrote; a null where a number must be reads as NaN.

    Raises:
        ArtifactError: not JSON, another schema version, or a field that is missing, unknown or of another type.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as e:
        raise ArtifactError(f"the report is not JSON ({e})", fix="build again") from e
    if not isinstance(value, dict) or "schema" not in value:
        raise ArtifactError("the report names no schema version", fix="give a report.json of dlcv-deploy")
    schema = value.pop("schema")
    if schema != SCHEMA:
        raise ArtifactError(
            f"the report has schema version {schema!r}, and this dlcv-deploy reads {SCHEMA}",
            fix="read it with the dlcv-deploy that wrote it, or build again",
        )
    return typing.cast(Report, read(Report, value, "report"))


def read(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    """``value`` as the type ``kind`` wants it; the types are those of the dataclasses above and in ``types``."""
    if dc.is_dataclass(kind) and isinstance(kind, type):
        return _read_fields(kind, value, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):  # only "X | None" is used
        return None if value is None else read(args[0], value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is Mapping and isinstance(value, dict):
        return {key: read(args[1], part, f"{where}.{key}") for key, part in value.items()}
    if origin is Literal and value in args:
        return value
    if kind is float and value is None:
        return math.nan
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise ArtifactError(f"{where} of the report is {_short(value)}, which it cannot be", fix="build again")


def _read_fields(kind: type, value: Any, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        raise ArtifactError(f"{where} of the report is {_short(value)}, which it cannot be", fix="build again")
    kinds = typing.get_type_hints(kind)
    names = [field.name for field in dc.fields(kind)]
    for problem, fields in (
        ("lacks", [name for name in names if name not in value]),
        ("holds unknown", [name for name in value if name not in names]),
    ):
        if fields:
            raise ArtifactError(
                f"{where} {problem} {', '.join(fields)}", fix="the report was cut or edited: build again"
            )
    try:
        return kind(**{name: read(kinds[name], value[name], f"{where}.{name}") for name in value})
    except SpecError as e:
        raise ArtifactError(f"{where} of the report cannot be: {e.what}", fix="build again") from e


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
