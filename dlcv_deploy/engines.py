"""From an exported graph to engines: at the precision asked for, and by every backend that was named."""

from __future__ import annotations

import dataclasses as dc
import json
from pathlib import Path
from typing import TYPE_CHECKING

from . import backends
from .atomic import write_whole
from .digest import sha256
from .report import document
from .spec import BuildSpec
from .stages import Stages
from .types import CompileOptions, Corrections, Engine, ExportedModel, LeftAlone, PluginNeed

if TYPE_CHECKING:
    from .calibration.table import CalibrationTable

TENSORRT = ("tensorrt", "tensorrt_rtx")
"""The backends that compute in FP16 what is not in INT8, and that take plugins."""
TIMING_CACHE = "timing.cache"
"""TensorRT's measurements of its kernels, kept from build to build."""
ABOUT = "about.json"
"""Beside an engine's files in the store: what it was compiled for, and with."""


@dc.dataclass(frozen=True, slots=True)
class Lowered:
    """The graph at the precision asked for, and what was and was not changed in it."""

    model: ExportedModel
    quantized: tuple[str, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()


@dc.dataclass(frozen=True, slots=True)
class Compiled:
    """What a build compiled: the portable graph, an engine for each target, and which LRN those of TensorRT use.

    ``lrn`` is by backend, and has no entry for those that nothing was asked of. ``graphs`` are what each backend's
    engine was compiled from.
    """

    lowered: Lowered
    engines: tuple[Engine, ...]
    lrn: dict[str, document.Lrn] = dc.field(default_factory=dict)
    graphs: dict[str, bytes] = dc.field(default_factory=dict, repr=False)


def lower(
    model: ExportedModel,
    spec: BuildSpec,
    table: CalibrationTable | None,
    stages: Stages,
    *,
    through_lrn: bool = False,
) -> Lowered:
    """The exported graph at the precision asked for; with ``through_lrn``, in INT8 around LRN too."""
    if spec.precision == "fp32":
        return Lowered(model)
    amax, made = ({}, Corrections()) if table is None else (dict(table.amax), table.corrections)
    through = through_lrn and spec.precision == "int8"

    def make() -> dict[str, bytes]:
        lowered = _half(model) if spec.precision == "fp16" else _quantized(model, amax, made, through_lrn=through)
        notes = {"quantized": lowered.quantized, "left_alone": document.plain(lowered.left_alone)}
        return {"model.onnx": lowered.model.onnx, "notes.json": json.dumps(notes).encode()}

    name = "half" if spec.precision == "fp16" else "quantize"
    files = stages.run(name, make, onnx=model.onnx, amax=amax, corrections=made, through_lrn=through)
    notes = json.loads(files["notes.json"])
    return Lowered(
        dc.replace(model, onnx=files["model.onnx"], precision=spec.precision),
        tuple(notes["quantized"]),
        tuple(LeftAlone(**entry) for entry in notes["left_alone"]),
    )


def between(lowered: Lowered, stages: Stages) -> Lowered:
    """A graph as TensorRT is to read it: of INT8, what is not in INT8 is in FP16; others as they are.

    ``left_alone`` of what is returned are the nodes that stay in FP32.

    Raises:
        SpecError: A number in it is beyond float16.
    """
    if lowered.model.precision != "int8":
        return lowered

    def make() -> dict[str, bytes]:
        made = _half(lowered.model)
        notes = json.dumps(document.plain(made.left_alone)).encode()
        return {"model.onnx": made.model.onnx, "notes.json": notes}

    files = stages.run("half", make, onnx=lowered.model.onnx)
    left_alone = tuple(LeftAlone(**entry) for entry in json.loads(files["notes.json"]))
    return dc.replace(lowered, model=dc.replace(lowered.model, onnx=files["model.onnx"]), left_alone=left_alone)


def said_of(engine: Engine, read: Lowered, lowered: Lowered, plugged: tuple[str, ...] = ()) -> Engine:
    """An engine with a note that says in what the rest of an INT8 graph is computed; ``plugged`` are the plugin's."""
    if read.model.onnx == lowered.model.onnx:
        return engine
    gone = {part for name in plugged for part in name.split("+")}
    wide = ", ".join(f"{left.op_type} {left.node}" for left in read.left_alone if left.node not in gone)
    note = f"what is not in INT8 is in FP16{f', but for {wide} in FP32' if wide else ''}"
    return dc.replace(engine, notes=(*engine.notes, note))


def _half(model: ExportedModel) -> Lowered:
    from onnx import load_model_from_string

    from .graph.half import to_half

    proto, left_alone = to_half(load_model_from_string(model.onnx))
    return Lowered(dc.replace(model, onnx=proto.SerializeToString(deterministic=True)), (), left_alone)


def _quantized(model: ExportedModel, amax: dict[str, float], made: Corrections, *, through_lrn: bool) -> Lowered:
    from .graph.qdq import quantize

    result = quantize(model, amax, made, through_lrn=through_lrn)
    return Lowered(result.model, result.quantized, result.left_alone)


def compiled(name: str, onnx: bytes, options: CompileOptions, stages: Stages, *, note: str = "") -> Engine:
    """A graph's engine by one backend; ``note`` tells it in the list of stages from others by the same."""
    backend = backends.get(name)

    def make() -> dict[str, bytes]:
        engine = backend.compile(onnx, options)
        about = {
            "target": engine.target,
            "version": engine.version,
            "notes": engine.notes,
            "plugin": document.plain(engine.plugin),
        }
        files = dict(engine.files)
        if (timings := files.pop(TIMING_CACHE, None)) is not None:
            write_whole(Path(options.timing_cache), timings)
        return {**files, ABOUT: json.dumps(about).encode()}

    asked = {name: value for name, value in dc.asdict(options).items() if name not in ("timing_cache", "plugin")}
    files = dict(
        stages.run(
            f"compile {name}{note}",
            make,
            onnx=onnx,
            ability=backend.ability(),
            options=asked,
            plugin=options.plugin,
        )
    )
    about = json.loads(files.pop(ABOUT))
    plugin = document.read(PluginNeed | None, about["plugin"], "plugin")
    return Engine(name, about["target"], about["version"], files, tuple(about["notes"]), options.batch, plugin)


def identity(engines: tuple[Engine, ...]) -> list[object]:
    """All that names these engines, and whether they run here."""
    return [
        [e.backend, e.version, backends.get(e.backend).ability().no_run, {n: sha256(d) for n, d in e.files.items()}]
        for e in engines
    ]
