"""Pre-flight: what stands between a bundle and this machine, before a native loader sees a byte of it.

The C++ library (``cpp/src/preflight.cpp``) makes the same checks in the same order, with the same words.

1. ``no_bundle`` (nothing can be found at the path), ``not_a_bundle`` (its manifest.json is no regular file, links being
   followed), ``manifest_damaged``, ``manifest_schema`` (its schema is an integer and not ours): each ends the checks.
   What a manifest must be is told in ``manifest.py``.
2. Every file of the manifest, and every one that an engine names, in the order of their names as bytes. The first that
   holds of a file is told: ``file_unsafe`` (one of the parts between its slashes is empty, . or .., or a backslash or
   colon is in it), ``file_missing`` (the manifest does not list it; or there is no regular file, links being followed:
   a folder, pipe or device is not opened), ``file_unsafe`` (by a link it really is outside the bundle),
   ``file_unreadable``, ``file_size``, ``file_altered``.
3. Every engine of the four in ``ORDER``, or the one that is asked for (``engine_none`` where the bundle lacks it,
   with those of the four that it holds, in that order, or "none"), in that order: ``runtime_missing``, then of the
   installed ``runtime_other`` (the two TensorRTs take their own version alone, number by number as far as both go) or
   ``runtime_older`` (OpenVINO and ONNX Runtime, by the first two numbers, 0 where there is no second); for a GPU's
   engine (of the two TensorRTs, or with the target CUDA) ``gpu_none``, or ``driver_old``, ``gpu_other`` (where it
   names architectures: the GPU's is none of them, nor above the greatest if it serves later ones), ``gpu_memory``;
   else ``memory``; then the plugin: ``plugin_missing`` (its file is none of the engine's; ends the plugin's checks),
   ``plugin_other`` (by the digest in the list of files), ``plugin_machine`` (bytes 18 and 19 of a file that is
   unaltered, zero where there are none, are ELF's number of the processor), ``plugin_sm`` (where there is a GPU and
   the engine is for one). All that hold are told.

The numbers of a version are its parts between dots as long as they are one to nine digits each; where one of two
versions has none, they are not compared. An engine takes at the least as much memory as its files have bytes, by the
manifest, each path once; MiB are rounded up for what it takes and down for what is free; 0 free is not known.
"""

from __future__ import annotations

import dataclasses as dc
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ArtifactError, DeployError, MissingBackend, SpecError
from .host import Host, HostGpu
from .manifest import Manifest, opened, plugin_of, read_manifest, regular
from .messages import Message, message
from .plugin.library import machine_of, serves

ORDER = ("tensorrt", "tensorrt_rtx", "openvino", "onnxruntime")
"""Which engine of a bundle is taken first."""
LABELS = "labels.txt"
_TENSORRT = ("tensorrt", "tensorrt_rtx")
_TOOLS = {
    "tensorrt": ("TensorRT", "dlcv-deploy[gpu]"),
    "tensorrt_rtx": ("TensorRT-RTX", "dlcv-deploy[rtx]"),
    "openvino": ("OpenVINO", "dlcv-deploy[openvino]"),
    "onnxruntime": ("ONNX Runtime", "dlcv-deploy[onnxruntime]"),
}
_DRIVERS = {("tensorrt", 11): 12020, ("tensorrt_rtx", 1): 12000}
"""The oldest CUDA of a driver, by the major version of what runs on it: TensorRT 11 asks for driver r535, which serves
CUDA 12.2 (its "Prerequisites"); TensorRT-RTX 1 comes for CUDA 12 and 13 (its "Prerequisites"). What TensorRT 10 needs
depends on which of its packages is installed, and is not told by its version."""
_PIECE = 1 << 20


@dc.dataclass(frozen=True, slots=True)
class Finding:
    """Something that keeps a bundle, or with ``backend`` one of its engines, from running here."""

    code: str
    what: str
    fix: str
    backend: str = ""


@dc.dataclass(frozen=True, slots=True)
class Checked:
    """What a check of a bundle leaves to load: what was checked is what is loaded.

    ``manifest`` is there unless the findings are of the manifest. ``backend`` is the engine that runs here, the one
    that was asked for or else the first of ``ORDER``; empty where none does, or a file is damaged. ``files`` is the
    content of that engine's files by the vendor's names, and ``labels`` of labels.txt, empty where there is none.
    """

    findings: tuple[Finding, ...]
    manifest: Manifest | None = None
    backend: str = ""
    files: Mapping[str, bytes] = dc.field(default_factory=dict, repr=False)
    labels: bytes = b""


def preflight(path: Path, host: Host, backend: str | None = None) -> tuple[Finding, ...]:
    """All that keeps a bundle from running on a machine; empty where every engine runs.

    Args:
        path: The bundle's folder.
        host: The machine.
        backend: Look at one engine alone.
    """
    return check(path, host, backend, keep=False).findings


def check(path: Path, host: Host, backend: str | None = None, *, keep: bool = True) -> Checked:
    """As ``preflight``; what was read of the engine to be loaded is kept, unless ``keep`` is false."""
    manifest = read_manifest(path)
    if isinstance(manifest, Message):
        return Checked((_finding(manifest),))
    files = _Files(path, manifest)
    engines = {name: manifest.engines[name] for name in ORDER if name in manifest.engines}
    if backend is not None and backend not in engines:
        held = ", ".join(engines) or "none"
        return Checked(
            (*files.check(), _finding(message("engine_none", backend=backend, held=held), backend)), manifest
        )
    asked = {name: entry for name, entry in engines.items() if backend in (None, name)}
    found = {name: tuple(_engine(name, entry, files, host)) for name, entry in asked.items()}
    fit = next((name for name, against in found.items() if not against), "")
    of_fit = engines[fit]["files"] if keep and fit else {}
    of_files = files.check({LABELS, *of_fit.values()} if of_fit else ())
    findings = (*of_files, *(_finding(m, name) for name, against in found.items() for m in against))
    if of_files or not fit:
        return Checked(findings, manifest)
    contents = {name: files.contents[path] for name, path in of_fit.items()}
    return Checked(findings, manifest, fit, contents, files.contents.get(LABELS, b""))


def check_files(path: Path, *, keep: bool = False) -> tuple[Manifest | None, tuple[Finding, ...], Mapping[str, bytes]]:
    """A bundle's manifest, where it can be read, and what is wrong with the bundle's files, whatever the machine.

    With ``keep``, the content of the files that are as they were written is the third, by their paths in the bundle.
    """
    manifest = read_manifest(path)
    if isinstance(manifest, Message):
        return None, (_finding(manifest),), {}
    files = _Files(path, manifest)
    return manifest, files.check(manifest.files if keep else ()), files.contents


def error_of(finding: Finding) -> DeployError:
    """A finding as an error: of the files, of the request, or of what this machine lacks."""
    what, fix = finding.what, finding.fix
    if not finding.backend or finding.code in ("plugin_missing", "plugin_other"):
        return ArtifactError(what, fix=fix)
    return SpecError(what, fix=fix) if finding.code == "engine_none" else MissingBackend(what, fix=fix)


def _finding(found: Message, backend: str = "") -> Finding:
    return Finding(found.code, found.what, found.fix, backend)


# --- files


class _Files:
    """The files of a bundle, each read once; ``contents`` are those that were kept, and are as they were written."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.listed, self.contents = manifest.files, dict[str, bytes]()
        self._path, self._inside = path, os.path.realpath(path)
        self._named = {file for entry in manifest.engines.values() for file in entry["files"].values()}
        self._found: dict[str, Message | None] = {}

    def check(self, keep: Collection[str] = ()) -> tuple[Finding, ...]:
        """Read all that were not read yet, and tell of those that are not as they were written."""
        for name in sorted({*self.listed, *self._named}):  # by code points, which is the order of their UTF-8
            self.read(name, keep=name in keep)
        return tuple(_finding(found) for _, found in sorted(self._found.items()) if found is not None)

    def read(self, name: str, *, keep: bool) -> bytes | None:
        """Read a file; its content where that is unaltered and is kept."""
        if name not in self._found:
            self._found[name] = self._read(name, keep)
        return self.contents.get(name)

    def _read(self, name: str, keep: bool) -> Message | None:
        if any(part in ("", ".", "..") for part in name.split("/")) or {"\\", ":"} & set(name):
            return message("file_unsafe", name=name)
        file = self._path / name
        if name not in self.listed or not regular(file):
            return message("file_missing", name=name)
        if os.path.commonpath((self._inside, os.path.realpath(file))) != self._inside:
            return message("file_unsafe", name=name)
        try:
            with os.fdopen(opened(file), "rb") as stream:
                return self._content(name, stream, keep)
        except OSError:
            return message("file_unreadable", name=name)

    def _content(self, name: str, stream: BinaryIO, keep: bool) -> Message | None:
        """As ``_read``, of a file that was opened: what it is now counts, whatever its name meant before."""
        status, wanted = os.fstat(stream.fileno()), self.listed[name]
        if not stat.S_ISREG(status.st_mode):
            return message("file_missing", name=name)
        if status.st_size != wanted["bytes"]:
            return message("file_size", name=name, found=status.st_size, bytes=wanted["bytes"])
        h, pieces, left = hashlib.sha256(), [], status.st_size + 1  # no more, should it grow meanwhile
        while piece := stream.read(min(left, _PIECE)):
            h.update(piece)
            left -= len(piece)
            if keep:
                pieces.append(piece)
        if h.hexdigest() != wanted["sha256"]:
            return message("file_altered", name=name)
        if keep:
            self.contents[name] = b"".join(pieces)
        return None


# --- engines


def _engine(name: str, entry: Mapping[str, Any], files: _Files, host: Host) -> Iterator[Message]:
    """All that keeps an engine from running on a machine, but for its files."""
    yield from _runtime(name, entry["version"], host)
    need = sum(files.listed[file]["bytes"] for file in set(entry["files"].values()) if file in files.listed)
    on_gpu = name in _TENSORRT or entry["target"] == "CUDA"
    if not on_gpu:
        if host.memory_bytes and need > host.memory_bytes:
            yield message("memory", backend=name, **_mib(need, host.memory_bytes))
    elif host.gpu is None:
        yield message("gpu_none", backend=name, reason=host.no_gpu)
    else:
        yield from _gpu(name, entry, need, host, host.gpu)
    yield from _plugin(name, entry, files, host, host.gpu if on_gpu else None)


def _runtime(name: str, compiled: str, host: Host) -> Iterator[Message]:
    tool, package = _TOOLS[name]
    installed = host.runtimes.get(name, "")
    if not installed:
        yield message("runtime_missing", backend=name, tool=tool, package=package)
        return
    here, there = _numbers(installed), _numbers(compiled)
    both = min(len(here), len(there))
    words = {"backend": name, "tool": tool, "compiled": compiled, "installed": installed}
    if name in _TENSORRT:
        if here[:both] != there[:both]:
            yield message("runtime_other", **words)
    elif both and (*here, 0)[:2] < (*there, 0)[:2]:
        yield message("runtime_older", **words)


def _gpu(name: str, entry: Mapping[str, Any], need: int, host: Host, gpu: HostGpu) -> Iterator[Message]:
    installed = host.runtimes.get(name, "")
    needed = _DRIVERS.get((name, next(iter(_numbers(installed)), 0)), 0)
    if gpu.cuda < needed:
        served, asked = (f"{cuda // 1000}.{cuda % 1000 // 10}" for cuda in (gpu.cuda, needed))
        yield message("driver_old", tool=_TOOLS[name][0], version=installed, served=served, needed=asked)
    sm = entry["sm"]
    if sm and gpu.sm not in sm and not (entry["later"] and gpu.sm > max(sm)):
        yield message("gpu_other", backend=name, target=entry["target"], gpu=gpu.name, sm=_sm(gpu.sm), number=gpu.sm)
    if gpu.memory_bytes and need > gpu.memory_bytes:
        yield message("gpu_memory", backend=name, **_mib(need, gpu.memory_bytes))


def _plugin(name: str, entry: Mapping[str, Any], files: _Files, host: Host, gpu: HostGpu | None) -> Iterator[Message]:
    plugin = plugin_of(entry)
    if plugin is None:
        return
    if plugin.file not in entry["files"]:
        yield message("plugin_missing", backend=name, name=plugin.file)
        return
    file = entry["files"][plugin.file]
    if file in files.listed and files.listed[file]["sha256"] != plugin.sha256:
        yield message("plugin_other", backend=name, name=plugin.file)
    data = files.read(file, keep=True)
    if data is not None and (built := machine_of(data)) != host.machine:
        yield message("plugin_machine", name=plugin.file, built=built, machine=host.machine)
    if gpu is not None and not serves(plugin.architectures, gpu.sm):
        held = ", ".join(map(_sm, plugin.architectures))
        yield message("plugin_sm", name=plugin.file, held=held, gpu=gpu.name, sm=_sm(gpu.sm), number=gpu.sm)


def _sm(number: int) -> str:
    return f"{number // 10}.{number % 10}"


def _mib(need: int, free: int) -> dict[str, int]:
    return {"need": -(-need >> 20), "free": free >> 20}


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers: 2026.4.1-1 is (2026, 4)."""
    parts = itertools.takewhile(re.compile("[0-9]{1,9}").fullmatch, version.split("."))
    return tuple(map(int, parts))
