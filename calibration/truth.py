"""Lists of labels as ImageNet's users have them: Caffe's, Kaggle's, and the development kit's own."""

from __future__ import annotations

import csv
import dataclasses as dc
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError
from . import imagenet

Labels = npt.NDArray[np.int64]
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
FILES = (_DEVKIT, f"ILSVRC2012_devkit_t12/data/{_DEVKIT}", "val.txt", "LOC_val_solution.csv")
"""Where lists for the validation images are found, in their folder or beside it."""
_ID = re.compile(r"n\d{8}")
_CSV = "or a labels.csv with the columns file and label, where labels are the network's class indices from 0"


@dc.dataclass(frozen=True, slots=True)
class _List:
    """What stands in a file: labels as written, by the images' names, or in order where these are empty."""

    file: str
    names: tuple[str, ...]
    labels: tuple[str, ...]


def beside(folder: Path, names: Sequence[str], classes: int | None) -> Labels | None:
    """Labels of ImageNet's validation images, from the lists in their folder or beside it.

    Args:
        folder: Where the images are.
        names: Their paths relative to it. All must be named as the data set names them.
        classes: How many classes the network has; nothing is looked for unless these are ImageNet's 1,000.

    Raises:
        ArtifactError: A list that cannot be trusted, as ``read`` says, or two that disagree.
    """
    if classes != imagenet.CLASSES or not names or None in map(imagenet.validation_number, names):
        return None
    places = [where / file for where in (folder, folder.resolve().parent) for file in FILES]
    found = {path: read(path, names, classes) for path in places if path.is_file()}
    for path, labels in found.items():
        first, other = next(iter(found.items()))
        if (labels != other).any():
            name = names[int(np.flatnonzero(labels != other)[0])]
            raise ArtifactError(
                f"{first.name} and {path.name} give {name} different labels", fix="--truth FILE says which is right"
            )
    return next(iter(found.values()), None)


def read(path: Path, names: Sequence[str], classes: int | None) -> Labels:
    """A class index for each image, from a list that labels all of them.

    A line holds a name and a label (Caffe's ``val.txt``), or a label alone for each of the 50,000 validation images in
    their order (the development kit's ``ILSVRC2012_validation_ground_truth.txt``); or the file is Kaggle's
    ``LOC_val_solution.csv``. Labels are WordNet ids, or numbers: for validation images in the order of the sorted ids
    from 0, or as the development kit numbers them, whichever of the two the first images show; for other images class
    indices from 0.

    Args:
        path: The list.
        names: The images' paths. Lists may name them by their last part alone, and label others too.
        classes: How many classes the network has, where that is known.

    Raises:
        ArtifactError: It cannot be read, lacks an image, or its labels may mean different things.
    """
    found = _parsed(path)
    numbers = [imagenet.validation_number(name) for name in names]
    rows = _by_name(found, names) if found.names else _by_number(found, names, numbers)
    if any(map(_ID.fullmatch, rows)):
        labels = _by_id(found.file, rows, names, classes)
    elif None in numbers:
        labels = [_index(found.file, row) for row in rows]
    else:
        meaning = _meaning(found)
        labels = [_meant(found.file, row, meaning) for row in rows]
    beyond = max(labels)
    if classes is not None and beyond >= classes:
        raise ArtifactError(
            f"{found.file}: label {beyond} of {names[labels.index(beyond)]}, and the network has {classes} classes",
            fix="give class indices of this network, from 0",
        )
    return np.array(labels, np.int64)


def _parsed(path: Path) -> _List:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
        if lines and lines[0].startswith("ImageId,"):
            pairs = [(row[0], row[1].split()[0]) for row in csv.reader(lines[1:], strict=True) if row]
        else:
            split = [line.rsplit(None, 1) for line in lines if line.strip()]
            pairs = [("" if len(parts) == 1 else parts[0], parts[-1]) for parts in split]
    except (OSError, UnicodeDecodeError, csv.Error, IndexError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise ArtifactError(f"{path.name} cannot be read: {why}", fix="give it as it was published") from e
    names, labels = tuple(name for name, _ in pairs), tuple(label for _, label in pairs)
    if not labels or len({name == "" for name in names}) > 1 or len(set(map(bool, map(_ID.fullmatch, labels)))) > 1:
        raise ArtifactError(
            f"{path.name} is no list of labels: its lines are not all alike" if labels else f"{path.name} is empty",
            fix=f"give a name and a label on each line, {_CSV}",
        )
    return _List(path.name, names if names[0] else (), labels)


def _by_name(found: _List, names: Sequence[str]) -> list[str]:
    """The label of each image as it stands in the list: by its path, or by the last part of that."""
    for key in (_path, _last):
        rows: dict[str, str] = {}
        for name, label in zip(found.names, found.labels, strict=True):
            if rows.setdefault(key(name), label) != label:
                raise ArtifactError(f"{found.file} gives {key(name)} two labels", fix=f"leave one, {_CSV}")
        labels = [rows.get(key(name)) for name in names]
        if None not in labels and len(set(map(key, names))) == len(names):
            return [label for label in labels if label is not None]
    count = len(labels) - labels.count(None)
    what = f"none for {names[labels.index(None)]}" if None in labels else "several of these have the same name"
    raise ArtifactError(
        f"{found.file} has labels for {count} of the {len(names)} images, and {what}", fix="give one that labels all"
    )


def _by_number(found: _List, names: Sequence[str], numbers: Sequence[int | None]) -> list[str]:
    """The label of each validation image, by its place in the list."""
    if None in numbers:
        raise ArtifactError(
            f"{found.file} has no names, and {names[numbers.index(None)]} is not named as ImageNet's validation images",
            fix=f"name them ILSVRC2012_val_00000001.JPEG and so on, or give a list with names, {_CSV}",
        )
    if len(found.labels) != imagenet.VALIDATION:
        raise ArtifactError(
            f"{found.file} has {len(found.labels):,} labels, and ImageNet {imagenet.VALIDATION:,} validation images",
            fix=f"give the whole file, or a list with names, {_CSV}",
        )
    return [found.labels[number - 1] for number in numbers if number is not None]


def _meaning(found: _List) -> dict[int, int]:
    """The class that each number in a list stands for, as the first validation images show it."""
    names = found.names or [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, len(imagenet.FIRST) + 1)]
    shown = {
        imagenet.FIRST[number - 1]: _index(found.file, label)
        for name, label in zip(names, found.labels, strict=False)
        if (number := imagenet.validation_number(name)) and number <= len(imagenet.FIRST)
    }
    for meaning in ({i: i for i in range(imagenet.CLASSES)}, imagenet.by_devkit()):
        if shown and all(meaning.get(label) == known for known, label in shown.items()):
            return meaning
    how = "its labels of the first images are neither" if shown else "without the first 20 images it cannot be told"
    raise ArtifactError(
        f"{found.file} numbers ImageNet's classes by their sorted ids from 0 or as the development kit does, and {how}",
        fix=f"give the list as it was published, {_CSV}",
    )


def _meant(file: str, row: str, meaning: dict[int, int]) -> int:
    number = _index(file, row)
    if number not in meaning:
        raise ArtifactError(f"{file}: there is no class {number}", fix="give the list as it was published")
    return meaning[number]


def _by_id(file: str, rows: Sequence[str], names: Sequence[str], classes: int | None) -> list[int]:
    if classes != imagenet.CLASSES:
        raise ArtifactError(
            f"{file} labels by ImageNet's ids, and the network has {classes or 'an unknown number of'} classes, not "
            f"{imagenet.CLASSES:,}",
            fix=f"give class indices in their place, {_CSV}",
        )
    known = imagenet.ids()
    for row, name in zip(rows, names, strict=True):
        if row not in known:
            raise ArtifactError(f"{file}: {row}, of {name}, is none of ImageNet's 1,000 classes", fix="correct it")
    return [known[row] for row in rows]


def _index(file: str, label: str) -> int:
    if not (label.isascii() and label.isdecimal() and len(label) < 19):
        raise ArtifactError(f"{file}: label {label!r:.60} is no class index", fix="give whole numbers from 0")
    return int(label)


def _path(name: str) -> str:
    return Path(name).as_posix()


def _last(name: str) -> str:
    """The last part of a path; of validation images without the suffix, which others convert."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return last.rpartition(".")[0] or last if last.startswith("ILSVRC2012_val_") else last
