"""What the data set of ILSVRC 2012, ImageNet's 1,000 classes, calls its classes and its validation images."""

from __future__ import annotations

import functools
import re
from importlib import resources

CLASSES = 1000
VALIDATION = 50_000
FIRST = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286, 370, 757, 595, 147, 108, 23, 478, 517)
"""Classes of the first validation images, by which lists of labels show how they number classes.

Source: ``val.txt`` of Caffe's ``get_ilsvrc_aux.sh``.
"""
_NUMBERED = re.compile(r"(?:.*/)?(ILSVRC2012_val_(\d{8}))\.\w+", re.DOTALL)


@functools.cache
def ids() -> dict[str, int]:
    """Class by WordNet id: their sorted order, as torchvision, timm, Keras and Caffe have it."""
    return {name: i for i, (name, _) in enumerate(_rows())}


@functools.cache
def by_devkit() -> dict[int, int]:
    """Class by ``ILSVRC2012_ID``, which the development kit counts from 1 and in an order of its own.

    Source: ``meta.mat`` of ``ILSVRC2012_devkit_t12``, leaves of the tree only; ``map_clsloc.txt`` of later kits.
    """
    return {int(number): i for i, (_, number) in enumerate(_rows())}


def validation_number(name: str) -> int | None:
    """Which validation image a file is, from 1, by its name; ``None`` where it is called otherwise."""
    found = _NUMBERED.fullmatch(name)
    return int(found[2]) if found and 1 <= int(found[2]) <= VALIDATION else None


def _rows() -> list[list[str]]:
    """WordNet id and ``ILSVRC2012_ID`` of the classes in their order."""
    text = resources.files(__package__).joinpath("imagenet.txt").read_text("ascii")
    return [line.split() for line in text.splitlines()]
