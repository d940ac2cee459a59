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
_CAFFE_MEAN, _CAFFE_STD = (123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255)
CAFFE = Preprocess(224, 256, "resize", _CAFFE_MEAN, _CAFFE_STD)
"""Caffe's networks take pixels from 0 to 255 less their mean."""
TORCHVISION_ALEXNET_PAPER = (
    "Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997"
)
RESNET_PAPER = "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
GOOGLENET_PAPER = "Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842"
ALEXNET_PAPER = "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012"


@dc.dataclass(frozen=True, slots=True)
class Network:
    """An architecture: ``factory`` is "module:Class" in this package, called with ``arguments`` by name.

    ``preprocess`` is what its catalogued weights were trained with, and ``labels`` names the list of its classes.
    ``outputs`` are the tensors it can answer with, of which ``logits`` are the classes'. A network of the user's own
    has a ``factory`` elsewhere (``factory.make``), and ``code_sha256``, the digest of its code.
    """

    name: str
    factory: str
    arguments: tuple[tuple[str, int | str], ...]
    preprocess: Preprocess
    classes: int
    labels: str
    paper: str
    outputs: tuple[str, ...] = ("logits", "features")
    code_sha256: str = ""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (3, self.preprocess.size, self.preprocess.size)


@dc.dataclass(frozen=True, slots=True)
class WeightSet:
    """Published weights of one network: a file of this package, or an ``url`` where that is not empty.

    ``name`` tells the sets of one network apart, and ``preprocess`` is what this one was trained with.
    ``sha256`` is the file's digest, or the first hex digits that its publisher gives. ``top1`` and ``top5`` are
    percent, as the source states them under ``conditions``; ``None`` where it states none.
    """

    network: str
    name: str
    file: str
    url: str
    sha256: str
    licence: str
    source: str
    top1: float | None
    top5: float | None
    conditions: str
    preprocess: Preprocess

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


def _net(name: str, factory: str, preprocess: Preprocess, paper: str, **arguments: int | str) -> Network:
    classes, labels = (10, "cifar10") if preprocess.size == 32 else (1000, "imagenet")
    stages = ("c2", "c3", "c4", "c5") if factory == "resnet:ImageNetResNet" else ()
    outputs = ("logits", "features", *stages)
    return Network(name, factory, tuple(arguments.items()), preprocess, classes, labels, paper, outputs)


def _imagenet_resnet(name: str, preprocess: Preprocess = IMAGENET, **arguments: int | str) -> Network:
    return _net(name, "resnet:ImageNetResNet", preprocess, RESNET_PAPER, **arguments)


def _cifar_resnet(name: str, **arguments: int | str) -> Network:
    return _net(name, "resnet:CifarResNet", CIFAR10, RESNET_PAPER, **arguments)


_CAFFE227 = dc.replace(CAFFE, size=227)
_NETWORKS = (
    _net("alexnet", "alexnet:AlexNet", IMAGENET, ALEXNET_PAPER),
    _net("alexnet-caffe", "alexnet:AlexNet", _CAFFE227, ALEXNET_PAPER, caffe=True),
    _net("alexnet-torchvision", "alexnet:TorchvisionAlexNet", IMAGENET, TORCHVISION_ALEXNET_PAPER),
    _net("alexnet-cifar10", "alexnet:CifarAlexNet", CIFAR10, ALEXNET_PAPER),
    _net("googlenet", "googlenet:GoogLeNet", CAFFE, GOOGLENET_PAPER),
    _net("googlenet-torchvision", "googlenet:GoogLeNet", IMAGENET, GOOGLENET_PAPER, norm=True),
    _net("googlenet-cifar10", "googlenet:CifarGoogLeNet", CIFAR10, GOOGLENET_PAPER),
    *(_imagenet_resnet(f"resnet{depth}", depth=depth) for depth in (18, 34, 50, 101, 152)),
    *(_imagenet_resnet(f"resnet{depth}-caffe", CAFFE, depth=depth, early=True) for depth in (50, 101, 152)),
    *(_imagenet_resnet(f"resnet{depth}-{s.lower()}", depth=depth, shortcut=s) for depth in (18, 34) for s in "AC"),
    *(_imagenet_resnet(f"plain-{depth}", depth=depth, shortcut="plain") for depth in (18, 34)),
    *(_cifar_resnet(f"resnet{depth}", depth=depth) for depth in (20, 32, 44, 56, 110, 1202)),
    *(_cifar_resnet(f"plain-{depth}", depth=depth, shortcut="plain") for depth in (20, 32, 44, 56, 110)),
)
NETWORKS = {network.name: network for network in _NETWORKS}


def _bundled(network: str, recipe: str, sha256: str, top1: float) -> WeightSet:
    return WeightSet(
        network=network,
        name="cifar10",
        file=f"{network}.safetensors",
        url="",
        sha256=sha256,
        licence="Apache-2.0",
        source=f"trained by this project on CIFAR-10 (dlcv_deploy.models.train, recipe {recipe}, seed 1)",
        top1=top1,
        top5=None,
        conditions="the 10,000 CIFAR-10 test images, one crop",
        preprocess=CIFAR10,
    )


def _torchvision(
    network: str,
    stem: str,
    prefix: str,
    top1: float,
    top5: float,
    name: str = "IMAGENET1K_V1",
    preprocess: Preprocess = IMAGENET,
) -> WeightSet:
    file = f"{stem}-{prefix}.pth"
    where = f"one 224x224 centre crop of a {preprocess.canvas} resize, by torchvision"
    return WeightSet(
        network=network,
        name=name,
        file=file,
        url=f"https://download.pytorch.org/models/{file}",
        sha256=prefix,
        licence="BSD-3-Clause",
        source=f"torchvision, {name}",
        top1=top1,
        top5=top5,
        conditions=f"the 50,000 ImageNet validation images, {where}",
        preprocess=preprocess,
    )


_V2 = ("IMAGENET1K_V2", dc.replace(IMAGENET, canvas=232))
_HALF = dc.replace(IMAGENET, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_WEIGHT_SETS = (
    _bundled("resnet20", "resnet-short", "5464e1e8e5ef77559b72430f58ba30f2dada6b63052afb27254900877effe11d", 91.70),
    _bundled(
        "alexnet-cifar10", "alexnet-short", "ad67705d61857775897589b6cb5425b27723f2a9af120afa1869ffdffa494b4e", 86.79
    ),
    _bundled(
        "googlenet-cifar10", "googlenet", "00cdddf71f748b45772f8607c22b447be13e30472ef88d99804e9aaf0b6331a2", 87.50
    ),
    _torchvision("alexnet-torchvision", "alexnet-owt", "7be5be79", 56.522, 79.066),
    # trained with TensorFlow's normalization, which torchvision puts into the network (transform_input)
    _torchvision("googlenet-torchvision", "googlenet", "1378be20", 69.778, 89.530, preprocess=_HALF),
    _torchvision("resnet18", "resnet18", "f37072fd", 69.758, 89.078),
    _torchvision("resnet34", "resnet34", "b627a593", 73.314, 91.420),
    _torchvision("resnet50", "resnet50", "0676ba61", 76.130, 92.862),
    _torchvision("resnet50", "resnet50", "11ad3fa6", 80.858, 95.434, *_V2),
    _torchvision("resnet101", "resnet101", "63fe2227", 77.374, 93.546),
    _torchvision("resnet101", "resnet101", "cd907fc2", 81.886, 95.780, *_V2),
    _torchvision("resnet152", "resnet152", "394f9c45", 78.312, 94.046),
    _torchvision("resnet152", "resnet152", "f82ba261", 82.284, 96.002, *_V2),
)
WEIGHT_SETS = {name: tuple(w for w in _WEIGHT_SETS if w.network == name) for name in NETWORKS}
"""By network, the one taken by default first; empty where none are catalogued."""


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
    if network.code_sha256:
        from .own.factory import make

        return make(network.factory)[0]
    module, _, name = network.factory.partition(":")
    net: nn.Module = getattr(importlib.import_module(f".{module}", __package__), name)(**dict(network.arguments))
    return net


def with_classes(network: Network, classes: int) -> Network:
    """The network with another number of classes, for weights that were fine-tuned; their names are not known."""
    arguments = (*network.arguments, ("classes", classes))
    return dc.replace(network, classes=classes, labels="", arguments=arguments)


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
