"""The whole path: weights, export, calibrate, quantize, compile, parity, latency, bundle."""

from __future__ import annotations

import dataclasses as dc
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import backends
from .adopt import CacheFiles, adopt
from .assemble import Made, assemble, build_key, check_free, up_to_date
from .atomic import write_whole
from .audit import audited, check
from .bench import timed
from .bundle import Bundle
from .digest import sha256
from .engines import TIMING_CACHE, Compiled, between, compiled, identity, lower, said_of
from .errors import MissingBackend
from .inspection import consistencies, drifts
from .latency.measure import BRIEF
from .latency.values import LatencyReport
from .lrn import TARGETS, Plugin, check_has_lrn, plugin_graph
from .parity.values import ParityReport
from .progress import Progress, silent
from .proof import legs, loaded, measured_on
from .race import raced
from .report import document
from .sources import Sources, open_calibration, recipe_of, trials_of
from .spec import BuildSpec
from .stages import Stages
from .store import Store
from .subject import Subject
from .types import CompileOptions, Engine, ExportedModel, PrecisionAudit, Preprocess

if TYPE_CHECKING:
    from .calibration.table import CalibrationTable
    from .report.document import Report

Say = Callable[[str], None]


def build(
    spec: BuildSpec, *, store: Store, progress: Progress = silent, say: Say = lambda line: None
) -> tuple[Bundle, Report]:
    """Build a bundle as asked, taking from the store every stage that was run on the same inputs before.

    Raises:
        SpecError: The request is wrong.
        MissingBackend: A target cannot compile here; a race of LRNs cannot run here.
        ToolError: A stage's tool refused; an engine does not run in INT8 what it was asked to.
        ArtifactError: Weights, images, table or bundle are damaged, or belong to something else.
    """
    targets = compilers(spec.targets)
    plugin = Plugin.asked(spec, targets)
    check_free(spec)
    subject = Subject.load(spec, progress)
    sources = sources_of(spec, subject, progress)
    key = build_key(spec, subject, sources, targets, plugin)
    if (kept := up_to_date(spec, key)) is not None:
        check([engine.audit for engine in kept[1].engines], allow_partial=spec.allow_partial)
        say(f"{spec.path()} is up to date: every stage is reused")
        return kept
    stages = Stages(store, say)
    exported = subject.exported(stages)
    if plugin is not None:
        check_has_lrn(exported, spec)
    table = table_of(subject, sources, exported, spec, stages, progress)
    timings = {"tensorrt": str(store.root / TIMING_CACHE)}  # the one backend that measures its kernels
    options = {name: CompileOptions(sm=spec.sm, timing_cache=timings.get(name, "")) for name in targets}
    found = engines_of(spec, exported, table, options, plugin, stages, pre=subject.preprocess, progress=progress)
    audits = audits_of(spec, found, table, stages)
    model = found.lowered.model
    parity = _parity(subject, exported, model, found.engines, sources, stages, progress)
    images, pre = sources.parity[0][1], subject.preprocess
    drift = drifts(exported, model, table, images, pre, stages)
    consistency = consistencies(found.engines, model.precision, images, pre, stages)
    latency = _latency(subject, model, found.engines, stages, progress)
    made = Made(subject, sources, table, found, audits, parity, drift, consistency, latency, tuple(stages.times))
    return assemble(spec, made, key)


def export_file(
    *,
    model: str,
    output: Path,
    fp16: bool,
    store: Store,
    say: Say = lambda line: None,
    **request: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Export a network to an ONNX file; returns what was written, for ``--json``."""
    spec = BuildSpec(model, "fp16" if fp16 else "fp32", **request)
    stages = Stages(store, say)
    lowered = lower(Subject.load(spec).exported(stages), spec, None, stages).model
    write_whole(output, lowered.onnx)
    return {
        "file": str(output),
        "sha256": sha256(lowered.onnx),
        "precision": lowered.precision,
        "inputs": [dc.asdict(t) for t in lowered.inputs],
        "outputs": [dc.asdict(t) for t in lowered.outputs],
        "weights_sha256": lowered.weights_sha256,
    }


def calibrate_file(
    *,
    model: str,
    output: Path,
    store: Store,
    progress: Progress = silent,
    say: Say = lambda line: None,
    from_trt_cache: Path | None = None,
    trt_names: Path | None = None,
    to_trt_cache: Path | None = None,
    to_modelopt: Path | None = None,
    **request: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Calibrate a network and write its table to a file; returns what was written, for ``--json``."""
    spec, files = BuildSpec(model, "int8", **request), CacheFiles(from_trt_cache, trt_names, to_trt_cache, to_modelopt)
    files.check(spec)
    subject, stages, named = Subject.load(spec, progress), Stages(store, say), dict[str, Any]()
    if from_trt_cache is not None:
        table, matched = adopt(files, spec, subject, stages, progress)
        named = {"matched": matched.matched, "unmatched": list(matched.unmatched)}
    else:
        samples = open_calibration(spec, subject.preprocess, spec.calib_count, subject.classes, progress)
        table = subject.calibrated(
            subject.exported(stages), samples, recipe_of(spec), stages, progress, trials_of(spec)
        )
    write_whole(output, table.to_json().encode())
    files.export(table)
    for warning in table.warnings():
        say(f"warning: {warning}")
    if table.study is not None:
        from .report.terminal import trials_table

        say(trials_table(table.study))
        named["study"] = document.plain(table.study)
    made = {"method": table.method, "images": table.images, "tensors": len(table.amax), "warnings": table.warnings()}
    return {"file": str(output), **made, **named}


def compilers(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The backends to compile with, each once; "auto" is the best one here.

    Raises:
        SpecError: There is no such backend.
        MissingBackend: One cannot compile on this machine.
    """
    names = tuple(dict.fromkeys(backends.auto() if name == "auto" else name for name in asked))
    for name in names:
        if reason := backends.get(name).ability().no_compile:
            raise MissingBackend(f"{name} cannot compile here: {reason}", fix="dlcv-deploy doctor says what can")
    return names


def sources_of(spec: BuildSpec, subject: Subject, progress: Progress) -> Sources:
    """The images of a build."""
    return Sources.open(
        spec,
        subject.preprocess,
        weights_sha256=subject.weights.weights_sha256,
        classes=subject.classes,
        progress=progress,
    )


def table_of(
    subject: Subject, sources: Sources, model: ExportedModel, spec: BuildSpec, stages: Stages, progress: Progress
) -> CalibrationTable | None:
    """The calibration table of an INT8 build: the one at hand, else one measured now."""
    if sources.table is not None:
        subject.check_table(sources.table, model)
        return sources.table
    if sources.calibration is None:
        return None
    return subject.calibrated(model, sources.calibration, recipe_of(spec), stages, progress, trials_of(spec))


def engines_of(
    spec: BuildSpec,
    model: ExportedModel,
    table: CalibrationTable | None,
    options: Mapping[str, CompileOptions],
    plugin: Plugin | None,
    stages: Stages,
    *,
    pre: Preprocess,
    progress: Progress,
) -> Compiled:
    """The exported graph at the precision asked for, and an engine of it for each target in ``options``."""
    library = b"" if plugin is None else plugin.library(stages)
    if spec.lrn == "race":
        return raced(spec, model, table, options, library, stages, pre=pre, progress=progress)
    lowered = lower(model, spec, table, stages, through_lrn=bool(library))
    made: dict[str, Engine] = {}
    graphs, uses = dict[str, bytes](), dict[str, document.Lrn]()
    half = between(lowered, stages) if options.keys() & set(TARGETS) else lowered
    graph = plugin_graph(half.model, stages) if library else None
    for name, told in options.items():
        read, plugged = half if name in TARGETS else lowered, tuple[str, ...]()
        graphs[name] = read.model.onnx
        if graph is not None and name in TARGETS:
            graphs[name], plugged, told = graph.onnx, graph.lowered, dc.replace(told, plugin=library)
            uses[name] = document.Lrn("plugin", graph.lowered, graph.left_alone)
        made[name] = said_of(compiled(name, graphs[name], told, stages), read, lowered, plugged)
    return Compiled(lowered, tuple(made.values()), uses, graphs)


def audits_of(
    spec: BuildSpec, found: Compiled, table: CalibrationTable | None, stages: Stages
) -> dict[str, PrecisionAudit]:
    """What each engine of an INT8 build really runs in INT8, by backend, as far as backends can tell.

    Raises:
        ToolError: Less than was asked for, and that was not allowed.
    """
    if spec.precision != "int8":
        return {}
    floats = () if table is None else table.corrections.float_nodes
    left_alone = found.lowered.left_alone
    audits = [audited(e, found.graphs[e.backend], left_alone, floats, stages) for e in found.engines]
    check(audits, allow_partial=spec.allow_partial)
    return {audit.engine: audit for audit in audits if audit is not None}


def _parity(
    subject: Subject,
    exported: ExportedModel,
    model: ExportedModel,
    engines: tuple[Engine, ...],
    sources: Sources,
    stages: Stages,
    progress: Progress,
) -> tuple[ParityReport, ...]:
    from .parity.evaluate import evaluate

    graphs = {"fp32 graph": exported.onnx}
    if model.precision != "fp32":
        graphs[f"{model.precision} graph"] = model.onnx

    def make() -> dict[str, bytes]:
        with subject.reference(model) as reference, legs(engines, graphs, model.precision) as candidates:
            reports = [
                evaluate(
                    reference,
                    candidates,
                    samples,
                    subject.preprocess,
                    crops=crops,
                    further=crops == 1,  # they are compared on one crop anyway
                    progress=progress,
                )
                for crops, samples in sources.parity
            ]
        return {"parity.json": json.dumps(document.plain(reports)).encode()}

    files = stages.run(
        "parity",
        make,
        graphs={name: sha256(data) for name, data in graphs.items()},
        engines=identity(engines),
        weights=model.weights_sha256,
        preprocess=subject.preprocess,
        samples=[(crops, samples.source, samples.sha256()) for crops, samples in sources.parity],
        machine=measured_on(),
    )
    return tuple(document.read(ParityReport, value, "parity") for value in json.loads(files["parity.json"]))


def _latency(
    subject: Subject, model: ExportedModel, engines: tuple[Engine, ...], stages: Stages, progress: Progress
) -> LatencyReport:
    def make() -> dict[str, bytes]:
        with subject.reference(model) as reference, loaded(engines, model.precision) as sessions:
            report = timed(reference, sessions, subject.preprocess, BRIEF, progress=progress)
        return {"latency.json": json.dumps(document.plain(report)).encode()}

    files = stages.run("latency", make, engines=identity(engines), weights=model.weights_sha256, machine=measured_on())
    return cast(LatencyReport, document.read(LatencyReport, json.loads(files["latency.json"]), "latency"))
