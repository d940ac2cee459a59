"""Writes models into a repository that Triton serves; what others put there stays as it is.

A model's folder holds, besides what Triton reads, ``contract.json`` (what was served from which bundle, and the steps
from an image to an input) and golden files. They lie flat: Triton takes a folder that is no number for a mistake.
"""

from __future__ import annotations

import dataclasses as dc
import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..atomic import check_place, write_folder, write_whole
from ..bundle import SUFFIX, Bundle, open_bundle
from ..digest import digest, sha256
from ..errors import ArtifactError, SpecError
from ..manifest import MANIFEST
from ..parity import contract
from ..parity.crops import canvas, crops, to_input
from ..stages import Stages
from ..store import Store
from . import readme
from .config import CONFIG, LABELS, config, dims, dtype
from .serve import Made, Wanted, made, targets_of

CONTRACT, README = "contract.json", "README.md"
GOLDEN_INPUTS, GOLDEN_LOGITS = "golden-inputs.npy", "golden-logits.npy"
_SCHEMA = 1
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")
Files = dict[str, bytes]


def serve(
    bundles: tuple[Path, ...],
    repository: Path,
    wanted: Wanted,
    *,
    name: str | None = None,
    version: int | None = None,
    force: bool = False,
    store: Store,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write a model for each bundle and target into a repository, which is made where there is none.

    Every model is made and checked before the first is written; each is then written whole or not at all.

    Args:
        bundles: Where they are.
        repository: The folder that Triton is given.
        wanted: How they are to be served.
        name: Of the one model; by default the bundle's name, and its target where there are several.
        version: Put into a model's folder beside its other versions; by default 1, in a new folder.
        force: Replace a model of that name, with all its versions, or that version of it.
        store: What is compiled is kept there.
        say: Told of each stage, and of what users must know.

    Returns:
        The repository, and for each model what ``contract.json`` says of it, with its folder and notes.

    Raises:
        SpecError: What is asked for does not fit; two models would have one name.
        MissingBackend: A baked graph cannot be compiled here.
        ToolError: A compiler refused, or a baked engine answers otherwise than the bundle's own.
        ArtifactError: A bundle is damaged; a model or version exists; the repository cannot be written.
    """
    if version is not None and version < 1:
        raise SpecError(f"version {version} is none of Triton's", fix="give 1 or more")
    if (repository / MANIFEST).is_file() or repository.suffix == SUFFIX:
        raise SpecError(f"{repository} is a bundle", fix="name the repository last: triton BUNDLE... REPO")
    check_place(repository / README if repository.is_dir() else repository)
    stages, folders = Stages(store, say), dict[str, Files]()
    for label, bundle, target in _planned(bundles, wanted, name):
        folder = repository / label
        _check_free(folder, version, force=force)
        found = made(bundle, label, target, wanted, stages)
        folders[label] = _folder(found, bundle, wanted, folder, version or 1, kept=version is not None)
        for note in found.notes:
            say(f"note: {label}: {note}")
    _write(repository, folders, force=force or version is not None)
    return {"repository": str(repository), "models": [json.loads(files[CONTRACT]) for files in folders.values()]}


def _planned(bundles: tuple[Path, ...], wanted: Wanted, name: str | None) -> list[tuple[str, Bundle, str]]:
    """Each model's name, bundle and target."""
    opened = [open_bundle(path) for path in bundles]
    pairs = [(bundle, targets_of(bundle, wanted.targets)) for bundle in opened]
    count = sum(len(targets) for _, targets in pairs)
    if name is not None and (count > 1 or _OTHER.search(name) or not name.strip(".")):
        what = f"{count} models cannot share the name {name!r}" if count > 1 else f"{name!r} names no model"
        raise SpecError(what, fix="give one bundle and one target, and a name of letters, digits, '_', '-' and '.'")
    plans: dict[str, tuple[str, Bundle, str]] = {}
    for bundle, targets in pairs:
        stem = name or _valid(bundle.path.resolve().name.removesuffix(SUFFIX))
        for target in targets:
            label = stem if len(targets) == 1 else f"{stem}-{target}"
            if label in plans:
                raise SpecError(
                    f"{bundle.path} and {plans[label][1].path} would both be the model {label!r}",
                    fix="serve them one by one, one with --name",
                )
            plans[label] = (label, bundle, target)
    return list(plans.values())


def _valid(stem: str) -> str:
    """A name as a model's: what is not a letter, digit, '_', '-' or '.' becomes '_'."""
    return _OTHER.sub("_", stem).lstrip(".") or "model"


def _check_free(folder: Path, version: int | None, *, force: bool) -> None:
    if version is None:
        if folder.exists() and not force:
            raise ArtifactError(
                f"{folder} exists",
                fix="--version N adds a version to it, --force replaces it, --name names another model",
            )
    elif (folder / str(version)).exists() and not force:
        raise ArtifactError(f"{folder} has a version {version}", fix="give --version another number, or --force")


def _folder(found: Made, bundle: Bundle, wanted: Wanted, folder: Path, version: int, *, kept: bool) -> Files:
    """The files of a model's folder by name; with ``kept``, its other versions and its configuration among them."""
    labels = bundle.read("labels.txt")
    value = _contract(found, bundle, labels, wanted, version)
    head = f"Written by dlcv-deploy {__version__} from {bundle.path.name}; {README} beside the models says more."
    files: Files = {CONFIG: config(found.served, head).encode(), LABELS: labels, **_golden(bundle, wanted)}
    if kept and folder.exists():
        there = _read(folder)
        before = _document(folder, there)
        if differs := [key for key in value["signature"] if before["signature"].get(key) != value["signature"][key]]:
            raise ArtifactError(
                f"{folder} serves another model: its {', '.join(differs)} differ",
                fix="--name names another model, or --force without --version replaces it",
            )
        files = {**there, **{name: data for name, data in files.items() if name != CONFIG}}
        files = {name: data for name, data in files.items() if not name.startswith(f"{version}/")}
        value["versions"] = {**before["versions"], **value["versions"]}
    files.update({f"{version}/{name}": data for name, data in found.files.items()})
    return {**files, CONTRACT: (json.dumps(value, indent=2) + "\n").encode()}


def _contract(found: Made, bundle: Bundle, labels: bytes, wanted: Wanted, version: int) -> dict[str, Any]:
    served, m, engine = found.served, bundle.manifest, found.engine
    tensors = {
        side: [{"name": s.name, "type": dtype(s), "dims": list(dims(served, s))} for s in specs]
        for side, specs in (("inputs", served.inputs), ("outputs", served.outputs))
    }
    return {
        "schema": _SCHEMA,
        "model": served.name,
        "signature": {
            "backend": served.backend,
            "max_batch_size": served.max_batch,
            **tensors,
            "labels": sha256(labels),
            "preprocessing": digest(pre=m.preprocess, uint8=wanted.uint8, ten_crop=wanted.ten_crop),
        },
        "device": served.device,
        "plugin": served.plugin,
        "uint8": wanted.uint8,
        "ten_crop": wanted.ten_crop,
        "preprocess": dc.asdict(m.preprocess),
        "steps": list(readme.steps(m.preprocess, uint8=wanted.uint8, ten_crop=wanted.ten_crop)),
        "notes": list(found.notes),
        "versions": {
            str(version): {
                "bundle": bundle.path.name,
                "model": m.model,
                "precision": m.precision,
                "build_key": m.build_key,
                "weights_sha256": m.weights_sha256,
                "tool_version": __version__,
                "engine": {"backend": engine.backend, "version": engine.version, "target": engine.target},
                "check": None if found.check is None else dc.asdict(found.check),
                "files": {name: sha256(data) for name, data in found.files.items()},
            }
        },
    }


def _golden(bundle: Bundle, wanted: Wanted) -> Files:
    """The golden images, exactly what a client sends for them, and the original's logits for one crop of each."""
    from ..calibration.images import decode

    pre, names = bundle.manifest.preprocess, contract.golden_images(bundle.manifest.files)
    if not names:
        raise ArtifactError(f"{bundle.path.name} has no golden images", fix="build it again")
    files = {name.replace("/", "-"): bundle.read(name) for name in names}
    whole = np.stack([canvas(decode(bundle.path / name, name), pre) for name in names])
    pixels = whole if wanted.ten_crop else np.concatenate([crops(image, pre, 1) for image in whole])
    out = io.BytesIO()
    np.save(out, pixels if wanted.uint8 else to_input(pixels, pre), allow_pickle=False)
    files[GOLDEN_INPUTS] = out.getvalue()
    if not wanted.ten_crop:
        files[GOLDEN_LOGITS] = bundle.read(contract.LOGITS)
    return files


def _read(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _document(folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """What ``contract.json`` says of a model that is there.

    Raises:
        ArtifactError: It was not written by this tool, or by another version of it, or is damaged.
    """
    try:
        value = json.loads(files[CONTRACT])
        if value["schema"] == _SCHEMA and isinstance(value["signature"], dict) and isinstance(value["versions"], dict):
            return dict(value)
    except (KeyError, TypeError, ValueError) as e:
        raise ArtifactError(
            f"{folder} was not written by dlcv-deploy triton, so that nothing can be added to it",
            fix="--name names another model, or --force without --version replaces it",
        ) from e
    raise ArtifactError(
        f"{folder / CONTRACT} is of another version", fix="--force without --version replaces the model"
    )


def _write(repository: Path, folders: Mapping[str, Files], *, force: bool) -> None:
    """Write models and the page beside them: a new repository whole, each model of another one whole."""
    values = {name: json.loads(files[CONTRACT]) for name, files in folders.items()}
    if not repository.exists():
        files = {f"{name}/{file}": data for name, held in folders.items() for file, data in held.items()}
        page = readme.page(repository, values)
        write_folder(repository, {**files, README: page.encode()}, replace=False)
        return
    for name, held in folders.items():
        write_folder(repository / name, held, replace=force)
    page = readme.page(repository, {**_others(repository), **values})
    path = repository / README
    ours = not path.exists() or path.read_bytes().startswith(readme.TITLE.encode())
    write_whole(path if ours else repository / f"dlcv-deploy-{README}", page.encode())


def _others(repository: Path) -> dict[str, Any]:
    """The contracts of the models in a repository that this tool wrote."""
    found = {}
    for path in sorted(repository.glob(f"*/{CONTRACT}")):
        with suppress(ArtifactError):  # somebody else's file of that name
            found[path.parent.name] = _document(path.parent, {CONTRACT: path.read_bytes()})
    return found
