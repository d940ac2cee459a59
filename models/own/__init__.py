"""A network of the user's own, which the catalogue has never seen, as the catalogue describes its own."""

from __future__ import annotations

from pathlib import Path

from ...errors import SpecError
from ...progress import Progress, silent
from ...spec import BuildSpec, nearest, own_name
from ...types import Preprocess
from ..catalogue import IMAGENET, Network, build, missing_torch

try:
    import torch
except ModuleNotFoundError as e:
    raise missing_torch(e) from e
from torch import Tensor, nn

from .. import weights
from ..untrained import randomize
from .factory import SEED, make
from .trial import classes_of, outputs_of

SMALL = 64
"""Inputs up to this side are of images of that very size, as in CIFAR-10; larger ones are cut from photographs."""


def preprocess(spec: BuildSpec) -> Preprocess:
    """How images become the input that ``spec`` gives, by default as the catalogue's networks of that size have them.

    Up to 64 pixels, images have the input's size, and ten crops come from them with 4 black pixels around. Above,
    or where a canvas is given, their shorter side is scaled to the canvas, by default 256/224 of the input.

    Raises:
        SpecError: No input is given.
    """
    if spec.input_shape is None:
        raise SpecError(
            f"the size of the images that {spec.model} takes is not known", fix="--input 3xSxS, such as 3x224x224"
        )
    size = spec.input_shape[1]
    small = Preprocess(size, size + 8, "pad", IMAGENET.mean, IMAGENET.std)
    large = Preprocess(size, round(size * 256 / 224), "resize", IMAGENET.mean, IMAGENET.std)
    return spec.preprocess(small if size <= SMALL else large)


def network(factory: str, pre: Preprocess, outputs: tuple[str, ...] = ("logits",)) -> Network:
    """A network by its factory, made and tried once.

    Args:
        factory: "FILE.py:name" or "package.module:name".
        pre: Its ``size`` is the network's input.
        outputs: Those asked for.

    Raises:
        ArtifactError: There is no such file.
        SpecError: The factory makes no network, or one that is no classifier of such images.
    """
    place, _, attribute = factory.rpartition(":")
    whole = f"{Path(place).expanduser().resolve()}:{attribute}" if place.endswith(".py") else factory
    net, code = make(whole)
    shape, shown = (3, pre.size, pre.size), f"{Path(place).name}:{attribute}"
    offered = ("logits",) if outputs == ("logits",) else outputs_of(net, shape, shown)
    for name in outputs:
        if name not in offered:
            raise nearest(f"output of {shown} (by its method outputs)", name, offered)
    return Network(own_name(factory), whole, (), pre, classes_of(net, shape, shown), "", "", offered, code_sha256=code)


def load(
    network: Network, choice: str | None = None, *, bgr: bool = False, progress: Progress = silent
) -> weights.LoadedWeights:
    """A network of the catalogue or of the user's own, with weights; see ``weights.load``.

    For one of the user's own, no choice takes the weights that its factory gives it. They count as trained where a
    second call of the factory with another seed gives the same.

    Raises:
        SpecError: None are catalogued for this network.
        ArtifactError: They cannot be had, are damaged, are not finite, or belong to another network.
    """
    if not network.code_sha256 or choice not in (None, "random"):
        return weights.load(network, choice, bgr=bgr, progress=progress)
    if bgr:
        raise SpecError("--bgr is for files of weights", fix="leave --bgr out")
    net, source, drawn = build(network), f"random, seed {weights.RANDOM_SEED}", [""]
    if choice == "random":
        randomize(net, weights.RANDOM_SEED)
    else:
        source, drawn = "the factory's own", _drawn(net, make(network.factory, SEED + 1)[0])
        if drawn:
            source += f", seed {SEED}; it draws {len(drawn)} of {len(net.state_dict())} tensors, such as {drawn[0]}"
    return weights.LoadedWeights(
        net, weights.weights_sha256(_tensors(net)), source, "not stated", "", trained=not drawn, choice=choice or ""
    )


def _drawn(one: nn.Module, other: nn.Module) -> list[str]:
    """The tensors that differ."""
    values = _tensors(other)
    return [key for key, value in _tensors(one).items() if key not in values or not torch.equal(value, values[key])]


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """The state, without what modules keep there besides tensors."""
    return {key: value for key, value in net.state_dict().items() if isinstance(value, Tensor)}
