"""``doctor BUNDLE --rebuild``: compiles again, from the graph in a bundle, the engines that do not run here for that.

A bundle's graph and golden files are the same on every machine; engines are not. What was compiled by another version
of a runtime, for another GPU, with a plugin's library that does not serve here, or whose files are damaged, is compiled
again as the build did it, and held against the golden images. What was measured of the earlier engine is left out.
"""

from __future__ import annotations

import dataclasses as dc
import io
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import __version__, backends, host
from .atomic import check_place
from .audit import audited, check, keeps_word
from .backends._trt import version as numbers
from .bundle import Bundle, write
from .calibration.table import CalibrationTable
from .digest import digest, sha256
from .engines import TENSORRT, TIMING_CACHE, Lowered, between, compiled, said_of
from .errors import ArtifactError, MissingBackend, ToolError
from .lrn import plugin_graph
from .manifest import Manifest, plugin_of
from .parity.compare import LogitError
from .parity.contract import INPUTS, LOGITS
from .preflight import LABELS, check_files, error_of, preflight
from .proof import session_of
from .report import document
from .report.html import page
from .report.markdown import markdown
from .report.renewed import renewed
from .stages import Stages
from .store import Store
from .types import CompileOptions, Dim, Engine, ExportedModel, PluginNeed

if TYPE_CHECKING:
    from .backends.base import Session

GRAPH, REPORT, TABLE = "model.onnx", "report.json", "calibration.json"
MENDED = frozenset(("runtime_other", "runtime_older", "gpu_other"))
"""Findings of an engine that compiling it again mends."""
OF_PLUGIN = frozenset(("plugin_missing", "plugin_other", "plugin_machine", "plugin_sm"))
"""Findings that a new build of the plugin's library mends."""
_NOISE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1e-2}
"""What an engine may differ by from its graph on another runtime, as a share of the logits' RMS: other kernels sum in
another order, and TensorRT's are in float16 around INT8."""
_AGAIN = "copy the bundle again, or build it again with dlcv-deploy build --force"

Say = Callable[[str], None]


@dc.dataclass(frozen=True, slots=True)
class Again:
    """An engine that was compiled again: why, the version of its runtime before and now, and what it is for.

    ``golden`` says how it answers to the golden images, or why that is not known. Sentences are without a full stop.
    """

    backend: str
    why: tuple[str, ...]
    before: str
    after: str
    target: str
    golden: str

    def words(self) -> str:
        """All of it in a sentence."""
        versions = self.after if self.before == self.after else f"{self.after} in place of {self.before}"
        why = "; ".join(self.why)
        return f"{self.backend} was compiled again, by version {versions}, for {self.target}: {why}; {self.golden}"


@dc.dataclass(frozen=True, slots=True)
class Rebuilt:
    """A bundle after ``rebuild``: its path, what was compiled again, and what could not be, a sentence each."""

    path: Path
    engines: tuple[Again, ...]
    left: tuple[str, ...] = ()


def rebuild(
    path: Path,
    *,
    output: Path | None = None,
    store: Store,
    machine: host.Host | None = None,
    say: Say = lambda line: None,
) -> Rebuilt:
    """Compile again what pre-flight refuses here and compiling mends; the bundle is replaced whole, or not at all.

    Args:
        path: The bundle.
        output: Where to write the new one; by default in its place. Nothing is written where nothing is compiled.
        store: Keeps what is compiled, as for a build.
        machine: The machine; by default this one.
        say: Told of each stage.

    Raises:
        ArtifactError: A file is damaged that is not an engine's; the bundle cannot be written.
        MissingBackend: A damaged engine's backend cannot compile here; a plugin's library cannot be built.
        ToolError: A compiler refused; a new engine does not answer as the graph does, or not in INT8.
    """
    target = output or path
    in_place = target.resolve() == path.resolve()
    if target.exists() and not in_place:
        raise ArtifactError(f"{target} exists", fix="name another with -o, or remove it")
    manifest, files = _read(path)
    machine = machine or host.here()
    work = _Work(manifest, files, machine, Stages(store, say), str(store.root / TIMING_CACHE))
    found = preflight(path, machine)
    again, engines, left = list[tuple[Again, document.CompiledEngine]](), list[Engine](), list[str]()
    for name, entry in manifest.engines.items():
        codes = {finding.code: finding.what for finding in found if finding.backend == name}
        lost = [file for file in sorted(set(entry["files"].values())) if file not in files]
        why = [what for code, what in codes.items() if code in MENDED | OF_PLUGIN] + [f"{f} is damaged" for f in lost]
        no_compile = backends.get(name).ability().no_compile if why else ""
        if lost and no_compile:
            what = f"{path.name} has lost {lost[0]}, and {name} cannot compile here: {no_compile}"
            raise MissingBackend(what, fix=_AGAIN)
        if no_compile:
            left.append(f"{name} was left as it is, for it cannot compile here: {no_compile}")
        if not why or no_compile:
            engines.append(manifest.engine(name, {vendor: files[file] for vendor, file in entry["files"].items()}))
            continue
        check_place(target)
        engine, told = work.compiled(name, codes)
        golden = work.golden(engine)
        say(f"golden {name:<15} {golden}")
        engines.append(engine)
        again.append((Again(name, tuple(why), entry["version"], engine.version, engine.target, golden), told))
    if again:
        path = _written(target, work, tuple(engines), again, replace=in_place).path
    return Rebuilt(path, tuple(one for one, _ in again), tuple(left))


def _read(path: Path) -> tuple[Manifest, Mapping[str, bytes]]:
    """A bundle's manifest, and the files that are as they were written; all are but engines'."""
    manifest, findings, files = check_files(path, keep=True)
    if manifest is None or any(finding.code == "file_unsafe" for finding in findings):
        raise error_of(findings[0])
    needed = [GRAPH, INPUTS, LOGITS, *sorted(set(manifest.files) - _of_engines(manifest))]
    if lost := [name for name in needed if name not in files]:
        raise ArtifactError(f"{path} has lost {lost[0]}, or it was altered, and compiling does not mend it", fix=_AGAIN)
    return manifest, files


def _of_engines(manifest: Manifest) -> set[str]:
    """The files that are engines' alone."""
    return {file for entry in manifest.engines.values() for file in entry["files"].values()} - {GRAPH}


@dc.dataclass(frozen=True)
class _Work:
    """What engines are compiled again from, and for."""

    manifest: Manifest
    files: Mapping[str, bytes]
    machine: host.Host
    stages: Stages
    timing_cache: str

    def compiled(self, name: str, codes: Mapping[str, str]) -> tuple[Engine, document.CompiledEngine]:
        """An engine of the bundle's graph, as a build makes it, for this machine; and as a report has it."""
        m, entry = self.manifest, self.manifest.engines[name]
        lowered = Lowered(ExportedModel(m.model, self.files[GRAPH], m.inputs, m.outputs, m.weights_sha256, m.precision))
        read = between(lowered, self.stages) if name in TENSORRT else lowered
        onnx, library, plugged = read.model.onnx, b"", tuple[str, ...]()
        need = plugin_of(entry)
        if need is not None:
            library, graph = self._library(name, need, codes), plugin_graph(read.model, self.stages)
            onnx, plugged = graph.onnx, graph.lowered
        options = CompileOptions(
            batch=Dim(*entry["batch"]),
            sm=self._architectures(name, codes),
            timing_cache=self.timing_cache if name == "tensorrt" else "",
            plugin=library,
        )
        engine = said_of(compiled(name, onnx, options, self.stages), read, lowered, plugged)
        return engine, self._told(engine, onnx)

    def _architectures(self, name: str, codes: Mapping[str, str]) -> tuple[int, ...]:
        """The GPUs that TensorRT for RTX compiles for: those of before, and this machine's where it is none of them."""
        if name != "tensorrt_rtx":
            return ()
        entry, gpu = self.manifest.engines[name], self.machine.gpu
        before = () if entry["later"] else tuple(entry["sm"])
        return tuple(sorted({gpu.sm, *before})) if "gpu_other" in codes and gpu is not None else before

    def _library(self, name: str, need: PluginNeed, codes: Mapping[str, str]) -> bytes:
        """The plugin's library: the bundle's where it serves here, else one built now."""
        held = self.files.get(self.manifest.engines[name]["files"].get(need.file, ""), b"")
        runtime, built = (numbers(version)[:1] for version in (self.machine.runtimes.get(name, ""), need.tensorrt))
        if held and not OF_PLUGIN & set(codes) and (name != "tensorrt" or runtime == built):
            return held
        from .plugin.build import built_library

        gpu = self.machine.gpu
        return built_library(self.stages, sorted({*need.architectures, *(() if gpu is None else (gpu.sm,))})).data

    def _told(self, engine: Engine, onnx: bytes) -> document.CompiledEngine:
        """An engine as a report has it; of INT8 with what it really runs in INT8, which is as much as before."""
        made = tuple(document.File(name, len(data), sha256(data)) for name, data in engine.files.items())
        told = document.CompiledEngine(engine.backend, engine.target, engine.version, made, engine.notes)
        if REPORT not in self.files:
            return told
        report = document.from_json(self.files[REPORT].decode())
        before = next((one for one in report.engines if one.backend == engine.backend), told)
        found = None
        if self.manifest.precision == "int8":
            table = CalibrationTable.from_json(self.files[TABLE]) if TABLE in self.files else None
            floats = () if table is None else table.corrections.float_nodes
            found = audited(engine, onnx, report.left_alone, floats, self.stages)
            check([found], allow_partial=before.audit is not None and not keeps_word(before.audit))
        return dc.replace(told, lrn=before.lrn, audit=found)

    def golden(self, engine: Engine) -> str:
        """How a new engine answers to the golden images, in a sentence.

        The original's logits are in the bundle; an INT8 graph differs from them by what quantization costs. That is
        taken from the graph itself, on a CPU runtime; the engine may be off by twice as much and a little.

        Raises:
            ToolError: It is off by more, or answers with NaN or infinity.
        """
        name, backend, precision = engine.backend, backends.get(engine.backend), self.manifest.precision
        if reason := backend.ability().no_run:
            return f"it was not held against the golden images: {reason}"
        with backend.load(engine) as session:
            error = self._error(session, engine.batch.hi)
        said = f"on the golden images it is {error.sqnr_db:.1f} dB from the original"
        try:
            with session_of(self.files[GRAPH]) as session:
                graph = self._error(session, engine.batch.hi)
        except MissingBackend as e:
            limit, beside = sys.float_info.max, f"its graph was not run beside it: {e.what}"
        else:
            limit = 2 * math.sqrt(graph.noise) + _NOISE[precision] * math.sqrt(graph.signal)
            beside = f"and its graph {graph.sqnr_db:.1f} dB"
        if not math.sqrt(error.noise) <= limit:  # NaN is not, either
            raise ToolError(
                f"{name}, compiled again, does not answer as its graph does: {said}, {beside}",
                fix="the bundle was left as it is; try another version of the tool, and report this",
            )
        return f"{said}, {beside}"

    def _error(self, session: Session, most: int) -> LogitError:
        inputs, exact = (np.load(io.BytesIO(self.files[name]), allow_pickle=False) for name in (INPUTS, LOGITS))
        feed, out = self.manifest.inputs[0].name, self.manifest.outputs[0].name
        parts = [session.run({feed: inputs[start : start + most]})[out] for start in range(0, len(inputs), most)]
        return LogitError.of(exact, np.concatenate(parts))


def _written(
    path: Path,
    work: _Work,
    engines: tuple[Engine, ...],
    again: Sequence[tuple[Again, document.CompiledEngine]],
    *,
    replace: bool,
) -> Bundle:
    """The bundle with its new engines, and a report that says so."""
    content = {name: data for name, data in work.files.items() if name not in _of_engines(work.manifest)}
    if REPORT in content:
        gone = "what was measured of the earlier engine is left out; dlcv-deploy validate and bench measure this one"
        warnings = [f"{one.words()}; {gone}" for one, _ in again]
        report = renewed(document.from_json(content[REPORT].decode()), [told for _, told in again], warnings)
        classes = tuple(content.get(LABELS, b"").decode().splitlines())
        content[REPORT] = document.to_json(report).encode()
        content |= {"report.md": markdown(report).encode(), "report.html": page(report, classes=classes).encode()}
    key = digest(rebuilt=work.manifest.build_key, engines=[[one.backend, one.after, one.target] for one, _ in again])
    manifest = dc.replace(work.manifest, build_key=key, tool_version=__version__)
    return write(path, manifest, engines, content, replace=replace)
