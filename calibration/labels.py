"""Labels of a folder's images, from a file or from the folders' names; wrong labels are worse than none."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError
from . import imagenet, truth

Labels = npt.NDArray[np.int64]
FILE = "labels.csv"


def find(folder: Path, names: Sequence[str], classes: Sequence[str] | None, given: Path | None = None) -> Labels | None:
    """A class index for each image, or ``None`` where nothing says it beyond doubt.

    A file that is ``given`` alone counts: a list as ``truth.read`` takes it, or a table as follows.

    A ``labels.csv`` in the folder, or else beside it, is a table with the columns ``file`` (relative to the csv) and
    ``label`` (a class index), others being ignored. It must label every image; one beside the folder that names none of
    its images belongs to something else and is passed over.

    Without a csv, ImageNet's own layouts are known where the network has 1,000 classes: folders named by WordNet ids,
    and validation images with the list of their labels in the folder or beside it; see ``truth``.

    Else every image must lie exactly one folder down, in at least two folders, whose names are either all
    class indices ("0", "17"; below the number of ``classes`` where those are known) or all names among ``classes``
    that are not ambiguous. An order of names alone is never taken for labels: half of the classes may be missing.

    Args:
        folder: Where the images are.
        names: Their paths relative to it.
        classes: The network's class names in order, where they are known.
        given: A file with the labels; in a table, files are relative to ``folder``.

    Raises:
        ArtifactError: A csv or list that cannot be read, names a file that is not there, labels one twice, leaves one
            out, holds a label that is no class index, or may mean several things.
    """
    count = None if classes is None else len(classes)
    if given is not None:
        if _is_table(given):
            return _from_table(_read(given, folder), names, classes, given.name)
        return truth.read(given, names, count)
    for where, prefix in ((folder, ""), (folder.resolve().parent, f"{folder.resolve().name}/")):
        table = where / FILE
        if table.is_file():
            labels = _read(table, where)
            listed = [prefix + name for name in names]
            if prefix and not any(name in labels for name in listed):
                continue
            return _from_table(labels, listed, classes, FILE)
    found = _from_ids(names, count)
    found = truth.beside(folder, names, count) if found is None else found
    return _from_folders(names, classes) if found is None else found


def _is_table(path: Path) -> bool:
    """Whether a file begins with the columns of a labels.csv."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as text:
            return {"file", "label"} <= {part.strip() for part in text.readline().split(",")}
    except OSError as e:
        raise ArtifactError(f"{path.name} cannot be read: {e.strerror}", fix="name the file that is there") from e


def _from_table(labels: dict[str, int], listed: Sequence[str], classes: Sequence[str] | None, file: str) -> Labels:
    missing = [name for name in listed if name not in labels]
    if missing:
        raise ArtifactError(
            f"{file} has no label for {missing[0]}: it labels {len(listed) - len(missing)} of {len(listed)} images",
            fix="add a row for every image",
        )
    return np.array([_in_range(labels[name], name, classes, file) for name in listed], np.int64)


def _read(table: Path, folder: Path) -> dict[str, int]:
    """Label by file, relative to a folder, as it stands in a csv; raises as ``find`` does."""
    file = table.name
    labels: dict[str, int] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as text:
            rows = csv.DictReader(text, strict=True)
            if not {"file", "label"} <= set(rows.fieldnames or ()):
                raise ArtifactError(f"{file} has no columns file and label", fix="begin it with the line: file,label")
            for row in rows:
                name, label = Path(row["file"] or "").as_posix(), (row["label"] or "").strip()
                if not (label.isascii() and label.isdecimal()):
                    raise ArtifactError(
                        f"{file}, line {rows.line_num}: label {label!r} of {name} is no class index",
                        fix="give whole numbers from 0",
                    )
                if name in labels:
                    raise ArtifactError(f"{file}, line {rows.line_num}: {name} has a label already")
                if not (folder / name).is_file():
                    raise ArtifactError(
                        f"{file}, line {rows.line_num}: there is no file {name}",
                        fix="name files relative to the csv, with --truth to the images; remove rows of files that are "
                        "gone",
                    )
                labels[name] = int(label)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ArtifactError(f"{file} cannot be read: {e}", fix="save it as UTF-8 text, comma-separated") from e
    return labels


def _in_range(label: int, name: str, classes: Sequence[str] | None, file: str) -> int:
    if label > np.iinfo(np.int64).max or (classes is not None and label >= len(classes)):
        count = len(classes) if classes is not None else "no so many"
        raise ArtifactError(
            f"{file}: label {label} of {name}, and the network has {count} classes",
            fix="give class indices of this network, from 0",
        )
    return label


def _from_ids(names: Sequence[str], count: int | None) -> Labels | None:
    """Labels by folders named as ImageNet's classes, each image one folder down."""
    parts = [name.split("/") for name in names]
    known = imagenet.ids() if count == imagenet.CLASSES else {}
    if not all(len(part) == 2 and part[0] in known for part in parts):
        return None
    return np.array([known[part[0]] for part in parts], np.int64)


def _from_folders(names: Sequence[str], classes: Sequence[str] | None) -> Labels | None:
    parts = [name.split("/") for name in names]
    folders = sorted({part[0] for part in parts})
    if any(len(part) != 2 for part in parts) or len(folders) < 2:
        return None
    if all(name.isascii() and name.isdecimal() for name in folders):
        index = {name: int(name) for name in folders}
        beyond = len(classes) if classes is not None else np.iinfo(np.int64).max
        if max(index.values()) >= beyond or len(set(index.values())) < len(folders):
            return None
    elif classes is not None and all(list(classes).count(name) == 1 for name in folders):
        index = {name: list(classes).index(name) for name in folders}
    else:
        return None
    return np.array([index[part[0]] for part in parts], np.int64)
