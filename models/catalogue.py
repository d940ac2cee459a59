"""What can be built by name: networks, and the published weights of each."""

from __future__ import annotations

import dataclasses as dc
import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingBackend
from ..spec import nearest
from ..types import Preprocess

if TYPE_CHECKING:
    from torch import nn

HERE = Path(__file__).parent
CIFAR10 = Preprocess(32, 40, "pad", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET = Preprocess(224, 256, "resize", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RESNET_PAPER = "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
ALEXNET_PAPER = "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012"


@dc.dataclass(frozen=True, slots=True)
class Network:
    """An architecture: ``factory`` is "module:Class" in this package, called with ``arguments``.

    ``preprocess`` is what its catalogued weights were trained with, and ``labels`` names the list of its classes.
    """

    name: str
    factory: str
    arguments: tuple[int, ...]
    preprocess: Preprocess
    classes: int
    labels: str
    paper: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (3, self.preprocess.size, self.preprocess.size)


@dc.dataclass(frozen=True, slots=True)
class WeightSet:
    """Published weights of one network: a file of this package, or an ``url`` where that is not empty.

    ``sha256`` is the file's digest, or the first hex digits that its publisher gives. ``top1`` and ``top5`` are
    percent, as the source states them under ``conditions``; ``None`` where it states none.
    """

    network: str
    file: str
    url: str
    sha256: str
    licence: str
    source: str
    top1: float | None
    top5: float | None
    conditions: str

    @property
    def bundled(self) -> bool:
        """Whether the file comes with this package."""
        return not self.url

    @property
    def path(self) -> Path:
        """Where a bundled file is."""
        return HERE / "weights" / self.file

    @property
    def accuracy(self) -> str:
        """What the source claims, in words; empty where it claims nothing."""
        figures = [f"top-{k} {v:g} %" for k, v in ((1, self.top1), (5, self.top5)) if v is not None]
        return f"{', '.join(figures)} on {self.conditions}" if figures else ""


def _cifar(depth: int) -> Network:
    return Network(f"resnet{depth}", "resnet:CifarResNet", (depth,), CIFAR10, 10, "cifar10", RESNET_PAPER)


def _imagenet(depth: int) -> Network:
    return Network(f"resnet{depth}", "resnet:ImageNetResNet", (depth,), IMAGENET, 1000, "imagenet", RESNET_PAPER)


def _torchvision(network: str, prefix: str, top1: float, top5: float) -> WeightSet:
    file = f"{network}-{prefix}.pth"
    return WeightSet(
        network=network,
        file=file,
        url=f"https://download.pytorch.org/models/{file}",
        sha256=prefix,
        licence="BSD-3-Clause",
        source="torchvision, IMAGENET1K_V1",
        top1=top1,
        top5=top5,
        conditions="the 50,000 ImageNet validation images, one 224x224 centre crop of a 256 resize, by torchvision",
    )


_NETWORKS = (
    Network("alexnet", "alexnet:AlexNet", (), IMAGENET, 1000, "imagenet", ALEXNET_PAPER),
    *(_imagenet(depth) for depth in (18, 34, 50, 101, 152)),
    *(_cifar(depth) for depth in (20, 32, 44, 56, 110, 1202)),
)
NETWORKS = {network.name: network for network in _NETWORKS}

_WEIGHT_SETS = (
    WeightSet(
        network="resnet20",
        file="resnet20.safetensors",
        url="",
        sha256="5464e1e8e5ef77559b72430f58ba30f2dada6b63052afb27254900877effe11d",
        licence="Apache-2.0",
        source="trained by this project on CIFAR-10 (dlcv_deploy.models.train, recipe short, seed 1)",
        top1=91.70,
        top5=None,
        conditions="the 10,000 CIFAR-10 test images, one crop",
    ),
    _torchvision("resnet18", "f37072fd", 69.758, 89.078),
    _torchvision("resnet34", "b627a593", 73.314, 91.420),
    _torchvision("resnet50", "0676ba61", 76.130, 92.862),
    _torchvision("resnet101", "63fe2227", 77.374, 93.546),
    _torchvision("resnet152", "394f9c45", 78.312, 94.046),
)
WEIGHT_SETS = {weights.network: weights for weights in _WEIGHT_SETS}


def network(name: str) -> Network:
    """A network by name.

    Raises:
        SpecError: There is none of that name; the nearest names are offered.
    """
    if name not in NETWORKS:
        raise nearest("network", name, tuple(NETWORKS))
    return NETWORKS[name]


def build(network: Network) -> nn.Module:
    """The network with fresh weights, in training mode.

    Raises:
        MissingBackend: PyTorch is not installed.
    """
    try:
        importlib.import_module("torch")
    except ModuleNotFoundError as e:
        raise missing_torch(e) from e
    module, _, name = network.factory.partition(":")
    net: nn.Module = getattr(importlib.import_module(f".{module}", __package__), name)(*network.arguments)
    return net


def missing_torch(error: ModuleNotFoundError) -> MissingBackend:
    """What to raise where PyTorch cannot be imported."""
    return MissingBackend(
        f"networks need PyTorch, which cannot be imported: {error}", fix="pip install 'dlcv-deploy[torch]'"
    )


@functools.cache
def labels(name: str) -> tuple[str, ...]:
    """Class names in the order of a network's outputs: "cifar10" or "imagenet".

    Raises:
        SpecError: There is no such list.
    """
    known = tuple(sorted(path.stem for path in (HERE / "labels").glob("*.txt")))
    if name not in known:
        raise nearest("list of labels", name, known)
    return tuple((HERE / "labels" / f"{name}.txt").read_text(encoding="utf-8").splitlines())
