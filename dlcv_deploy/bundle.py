"""A bundle: one folder that holds an engine, the graph it was compiled from, and the proof that came with it.

    NAME.dlcv/manifest.json      what it is, and the SHA-256 of every other file
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
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import write_folder
from .digest import sha256, sha256_file
from .errors import ArtifactError, SpecError
from .types import Dim, Engine, ExportedModel, PluginNeed, Precision, Preprocess, TensorSpec

SCHEMA = 4
MANIFEST = "manifest.json"
SUFFIX = ".dlcv"


@dc.dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself; ``weights`` is the choice that loads the PyTorch original again.

    With ``bgr`` these are turned from BGR to RGB. For a network of the user's own, ``factory`` is what makes it and
    ``code_sha256`` the digest of that code.

    ``engines`` maps a backend to its target (in words, and as GPU architectures ``sm``, with those ``later`` or not),
    version, notes, batch sizes and files: the name for the vendor, and the path in the bundle. An engine that calls a
    plugin has an entry ``plugin`` besides, the fields of ``PluginNeed``. ``build_key`` names the inputs of the build:
    two bundles with one key hold the same thing. ``contract`` are the steps from an image to an input, in words, which
    the files in ``golden/`` show.
    """

    model: str
    precision: Precision
    weights: str
    weights_sha256: str
    trained: bool
    preprocess: Preprocess
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: int
    engines: Mapping[str, Mapping[str, Any]]
    build_key: str
    tool_version: str
    bgr: bool = False
    schema: int = SCHEMA
    files: Mapping[str, Mapping[str, Any]] = dc.field(default_factory=dict)
    factory: str = ""
    code_sha256: str = ""
    contract: tuple[str, ...] = ()


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
        entry = self.manifest.engines[backend]
        files = {name: self.read(path) for name, path in entry["files"].items()}
        plugin = _plugin(entry)
        if plugin is not None and plugin.file not in files:
            raise ArtifactError(
                f"{self.path.name} lacks {plugin.file}, which its engine for {backend} needs", fix="build it again"
            )
        notes, batch = tuple(entry["notes"]), Dim(*entry["batch"])
        return Engine(backend, entry["target"], entry["version"], files, notes, batch, plugin)


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
    text = json.dumps(dc.asdict(manifest), indent=2, allow_nan=False) + "\n"
    write_folder(path, {**content, MANIFEST: text.encode()}, replace=replace)
    return Bundle(path, manifest)


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest and check every file against it.

    Raises:
        ArtifactError: No bundle, a half-written or altered one, or one of another version.
    """
    again = "build it again with dlcv-deploy build --force"
    if not path.exists():
        raise ArtifactError(f"there is no bundle at {path}", fix="dlcv-deploy build MODEL -o PATH makes one")
    if not (path / MANIFEST).is_file():
        raise ArtifactError(f"{path} is no bundle: it has no {MANIFEST}", fix=f"name a folder made by build, {SUFFIX}")
    try:
        document = json.loads((path / MANIFEST).read_bytes())
        manifest = _manifest(document)
    except (ValueError, KeyError, TypeError) as e:
        found = document.get("schema") if isinstance(e, KeyError | TypeError) and isinstance(document, dict) else None
        what = f"has schema {found!r}, not {SCHEMA}" if found not in (None, SCHEMA) else f"is damaged ({e})"
        raise ArtifactError(f"{path / MANIFEST} {what}", fix=again) from e
    for name, entry in manifest.files.items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise ArtifactError(f"{path / MANIFEST} names a file outside the bundle: {name}", fix=again)
        if not file.is_file():
            raise ArtifactError(f"{path} lacks {name}", fix=again)
        if file.stat().st_size != entry["bytes"] or sha256_file(file) != entry["sha256"]:
            raise ArtifactError(f"{file} was altered after the bundle was written", fix=again)
    return Bundle(path, manifest)


def _entry(plugin: PluginNeed) -> dict[str, Any]:
    """A plugin as JSON has it."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in dc.asdict(plugin).items()}


def _plugin(engine: Mapping[str, Any]) -> PluginNeed | None:
    """The plugin that an engine's entry names."""
    if "plugin" not in engine:
        return None
    need = engine["plugin"]
    return PluginNeed(**{**need, "architectures": tuple(need["architectures"]), "ops": tuple(need["ops"])})


def _manifest(document: dict[str, Any]) -> Manifest:
    if document["schema"] != SCHEMA:
        raise KeyError("schema")
    values = {field.name: document[field.name] for field in dc.fields(Manifest)}
    pre = values["preprocess"]
    values["preprocess"] = Preprocess(**{**pre, "mean": tuple(pre["mean"]), "std": tuple(pre["std"])})
    for side in ("inputs", "outputs"):
        values[side] = tuple(TensorSpec(t["name"], tuple(t["shape"]), t["dtype"]) for t in values[side])
    if not isinstance(values["contract"], list) or not all(isinstance(step, str) for step in values["contract"]):
        raise TypeError(f"contract is {values['contract']!r:.60}")
    values["contract"] = tuple(values["contract"])
    for engine in values["engines"].values():
        _plugin(engine)  # damaged, if it raises
    return Manifest(**values)
