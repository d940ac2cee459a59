"""Puts what a build made into a report and a bundle."""

from __future__ import annotations

import dataclasses as dc
import datetime as dt
import resource
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import __version__
from .atomic import check_place
from .bundle import Bundle, open_bundle, write
from .commands import commands
from .digest import digest, sha256
from .engines import Compiled
from .errors import ArtifactError
from .latency.values import LatencyReport
from .lrn import Plugin
from .manifest import MANIFEST, Manifest
from .parity.contract import steps
from .parity.values import Consistency, Drift, ParityReport
from .pixels import golden
from .proof import PACKAGES
from .report import document
from .report.html import page
from .report.markdown import markdown
from .sources import Sources, recipe_of, trials_of
from .spec import BuildSpec
from .stages import code_version
from .subject import Subject
from .types import Engine, PrecisionAudit, StageTime

if TYPE_CHECKING:
    from .calibration.table import CalibrationTable


@dc.dataclass(frozen=True, slots=True)
class Made:
    """All that the stages of a build made, in their order."""

    subject: Subject
    sources: Sources
    table: CalibrationTable | None
    compiled: Compiled
    audits: Mapping[str, PrecisionAudit]
    parity: tuple[ParityReport, ...]
    drift: tuple[Drift, ...]
    consistency: tuple[Consistency, ...]
    latency: LatencyReport
    times: tuple[StageTime, ...]


def build_key(
    spec: BuildSpec, subject: Subject, sources: Sources, targets: tuple[str, ...], plugin: Plugin | None
) -> str:
    """Digest of all that a bundle follows from, apart from how fast this machine is."""
    return digest(
        code=code_version(),
        network=dc.asdict(subject.network),
        classes=subject.classes,
        weights=subject.weights.weights_sha256,
        preprocess=subject.preprocess,
        outputs=subject.outputs,
        precision=spec.precision,
        recipe=recipe_of(spec),
        trials=trials_of(spec),
        calibration=None if sources.calibration is None else sources.calibration.sha256(),
        table=None if sources.table is None else sources.table.to_json(),
        parity=[(crops, samples.sha256()) for crops, samples in sources.parity],
        targets=targets,
        sm=spec.sm,
        lrn=[spec.lrn, None if plugin is None else plugin.key()],
        packages=dict(document.environment(PACKAGES).packages),
    )


def assemble(spec: BuildSpec, made: Made, key: str) -> tuple[Bundle, document.Report]:
    """Write the bundle, its report within it.

    Raises:
        ArtifactError: It cannot be written.
    """
    model, weights = made.compiled.lowered.model, made.subject.weights
    manifest = Manifest(
        model=model.name,
        precision=model.precision,
        weights=weights.choice,
        bgr=spec.bgr,
        weights_sha256=weights.weights_sha256,
        trained=weights.trained,
        preprocess=made.subject.preprocess,
        inputs=model.inputs,
        outputs=model.outputs,
        classes=made.subject.network.classes,
        engines={},
        build_key=key,
        tool_version=__version__,
        factory=made.subject.network.factory if made.subject.network.code_sha256 else "",
        code_sha256=made.subject.network.code_sha256,
        contract=steps(made.subject.preprocess),
    )
    report = _report(spec, made)
    files = {
        "model.onnx": model.onnx,
        "labels.txt": "".join(f"{name}\n" for name in made.subject.classes).encode(),
        "report.json": document.to_json(report).encode(),
        "report.md": markdown(report).encode(),
        "report.html": page(report, classes=made.subject.classes).encode(),
    }
    with made.subject.reference(model) as reference:
        files |= golden(reference, made.subject.preprocess)
    if made.table is not None:
        files["calibration.json"] = made.table.to_json().encode()
    return write(spec.path(), manifest, made.compiled.engines, files, replace=spec.force), report


def check_free(spec: BuildSpec) -> None:
    """Refuse, before any work, an output that can never be written.

    Raises:
        ArtifactError: Something else than a bundle is there, or the folder above is missing or closed.
    """
    path = spec.path()
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise ArtifactError(f"{path} exists and is no bundle", fix="name another output with -o, or remove it")
    check_place(path)


def up_to_date(spec: BuildSpec, key: str) -> tuple[Bundle, document.Report] | None:
    """The bundle that is there already, if it was built from the same inputs.

    Raises:
        ArtifactError: It was built from others, or is damaged, and may not be replaced.
    """
    path = spec.path()
    if spec.force or not (path / MANIFEST).is_file():
        return None
    bundle = open_bundle(path)
    if bundle.manifest.build_key != key:
        raise ArtifactError(
            f"{path} exists, and was built from other inputs", fix="--force replaces it, -o names another output"
        )
    return bundle, document.from_json(bundle.read("report.json").decode())


def _report(spec: BuildSpec, made: Made) -> document.Report:
    weights, table, samples = made.subject.weights, made.table, made.sources.calibration
    calibration = None
    if table is not None:
        calibration = document.Calibration(
            table.method, table.samples, table.images, table.random, sha256(table.to_json().encode())
        )
    skipped = {name for s in (samples, *(s for _, s in made.sources.parity)) if s is not None for name in s.skipped}
    return document.Report(
        tool_version=__version__,
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        model=made.compiled.lowered.model.name,
        weights=document.Weights(
            weights.source, weights.weights_sha256, weights.licence, weights.accuracy, weights.trained
        ),
        preprocess=made.subject.preprocess,
        precision=made.compiled.lowered.model.precision,
        calibration=calibration,
        quantized=made.compiled.lowered.quantized,
        left_alone=made.compiled.lowered.left_alone,
        engines=tuple(
            _engine(engine, made.compiled.lrn.get(engine.backend), made.audits.get(engine.backend))
            for engine in made.compiled.engines
        ),
        stages=made.times,
        peak_memory_bytes=peak_memory_bytes(),
        parity=made.parity,
        drift=made.drift,
        consistency=made.consistency,
        latency=made.latency,
        environment=document.environment(PACKAGES),
        quantization=None if table is None else table.study,
        commands=commands(spec),
        warnings=(
            *made.subject.notes,
            *(table.warnings() if table is not None else ()),
            *(f"{name} could not be read and was left out" for name in sorted(skipped)),
        ),
    )


def _engine(engine: Engine, lrn: document.Lrn | None, audit: PrecisionAudit | None) -> document.CompiledEngine:
    files = tuple(document.File(name, len(data), sha256(data)) for name, data in engine.files.items())
    return document.CompiledEngine(engine.backend, engine.target, engine.version, files, engine.notes, lrn, audit)


def peak_memory_bytes() -> int:
    """The most memory this process has held, and the most that one of its children has, together."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
