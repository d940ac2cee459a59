"""A bundle: one folder that holds an engine, the graph it was compiled from, and the proof that came with it.

    NAME.dlcv/manifest.json      what it is, and the SHA-256 of every other file, and of itself
              model.onnx         the graph, at the precision asked for
              <backend>/...      the engine files, as the vendor's own tools read them
              labels.txt         one class a line
              calibration.json   the table, for INT8
              golden/            images, the inputs they become, and the original's logits for these
              report.json, report.md, report.html

A file that an engine shares with the bundle (ONNX Runtime runs ``model.onnx`` itself) or with another engine (the
plugin's library) is there once.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import write_folder
from .digest import sha256
from .errors import ArtifactError, SpecError
from .manifest import MANIFEST, Manifest, sealed
from .preflight import check_files, error_of
from .types import Engine, ExportedModel, PluginNeed

SUFFIX = ".dlcv"


@dc.dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were all found and are unaltered."""

    path: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """The content of one of its files."""
        return (self.path / name).read_bytes()

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return tuple(self.read("labels.txt").decode().splitlines())

    def model(self) -> ExportedModel:
        """The graph that the engines were compiled from."""
        m = self.manifest
        return ExportedModel(m.model, self.read("model.onnx"), m.inputs, m.outputs, m.weights_sha256, m.precision)

    def engine(self, backend: str) -> Engine:
        """The engine of one backend.

        Raises:
            SpecError: The bundle holds none for it.
            ArtifactError: It needs a plugin's library that the bundle does not hold.
        """
        if backend not in self.manifest.engines:
            raise SpecError(
                f"{self.path.name} holds no engine for {backend!r}",
                fix=f"it holds {', '.join(self.manifest.engines)}",
            )
        files = {name: self.read(path) for name, path in self.manifest.engines[backend]["files"].items()}
        engine = self.manifest.engine(backend, files)
        if engine.plugin is not None and engine.plugin.file not in files:
            raise ArtifactError(
                f"{self.path.name} lacks {engine.plugin.file}, which its engine for {backend} needs",
                fix="build it again",
            )
        return engine


def write(
    path: Path, manifest: Manifest, engines: tuple[Engine, ...], files: Mapping[str, bytes], *, replace: bool
) -> Bundle:
    """Write a bundle under its final name, whole or not at all.

    Args:
        path: The folder to make.
        manifest: Without ``engines`` and ``files``, which are filled in here.
        engines: Their files go into a folder named after the backend.
        files: The other files by name, ``model.onnx`` among them.
        replace: Whether an existing folder may be replaced.

    Raises:
        ArtifactError: The folder exists, or cannot be written.
    """
    content = dict(files)
    held = {sha256(data): name for name, data in files.items()}
    entries: dict[str, dict[str, Any]] = {}
    for engine in engines:
        paths = {}
        for name, data in engine.files.items():
            paths[name] = held.setdefault(sha256(data), f"{engine.backend}/{name}")
            content[paths[name]] = data
        entries[engine.backend] = {
            "target": engine.target,
            "sm": list(engine.sm),
            "later": engine.later,
            "version": engine.version,
            "notes": list(engine.notes),
            "batch": list(dc.astuple(engine.batch)),
            "files": paths,
            **({} if engine.plugin is None else {"plugin": _entry(engine.plugin)}),
        }
    listing = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in sorted(content.items())}
    manifest = dc.replace(manifest, engines=entries, files=listing)
    write_folder(path, {**content, MANIFEST: sealed(manifest)}, replace=replace)
    return Bundle(path, manifest)


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest and check every file against it, as a pre-flight check does.

    Raises:
        ArtifactError: No bundle, a half-written or altered one, or one of another version.
    """
    manifest, findings, _ = check_files(path)
    if manifest is None or findings:
        raise error_of(findings[0])
    return Bundle(path, manifest)


def _entry(plugin: PluginNeed) -> dict[str, Any]:
    """A plugin as JSON has it."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in dc.asdict(plugin).items()}
