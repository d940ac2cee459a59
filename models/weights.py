"""A network with its weights: the catalogue's, a file's, or random ones; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses as dc
import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..digest import sha256_file
from ..errors import ArtifactError, SpecError
from ..progress import Progress, silent
from ..spec import nearest
from ..store import download, download_path
from ..types import Preprocess
from .catalogue import WEIGHT_SETS, Network, WeightSet, build, missing_torch

try:
    import torch
except ModuleNotFoundError as e:
    raise missing_torch(e) from e
from torch import Tensor, nn

from .importers.checkpoint import OTHER_WAYS, is_count
from .importers.fitting import blank, fitting, shed
from .importers.layouts import check_config

RANDOM_SEED = 20


@dc.dataclass(frozen=True, slots=True)
class LoadedWeights:
    """A network in eval mode, and where its weights are from.

    ``accuracy`` is what their source claims, in words; ``trained`` is false for random weights; ``preprocess`` is what
    they want in place of the network's own, where that differs; ``note`` is what a report must say of them,
    and ``choice`` loads them again from anywhere.
    """

    net: nn.Module
    weights_sha256: str
    source: str
    licence: str
    accuracy: str
    trained: bool
    preprocess: Preprocess | None = None
    note: str = ""
    choice: str = "random"


def load(
    network: Network, choice: str | None = None, *, bgr: bool = False, progress: Progress = silent
) -> LoadedWeights:
    """A network with weights.

    Args:
        network: From the catalogue.
        choice: A file (.pth, .pt, .th, .bin, .ckpt, .safetensors, .onnx), one of the catalogue's sets by name,
            "random", or None for the catalogue's first.
        bgr: The file's weights take blue, green, red: turn its first convolution, so that the network takes RGB.
        progress: Called while the catalogue's weights are downloaded.

    Raises:
        SpecError: None are catalogued for this network, or no set of that name.
        ArtifactError: They cannot be had, are damaged, are not finite, or belong to another network.
    """
    named = _named(network, choice)
    if bgr and (named is not None or choice == "random"):
        raise SpecError("--bgr is for files of weights, and these take RGB", fix="leave --bgr out")
    if choice == "random":
        return _random(network)
    if named is None:
        path = Path(str(choice)).expanduser()
        source = f"{path}, turned from BGR to RGB" if bgr else str(path)
        loaded = _loaded(network, path, source=source, licence="not stated", accuracy="", bgr=bgr)
        return dc.replace(loaded, choice=str(path.resolve()))
    source = named.source if named.bundled else f"{named.source}, {named.url}"
    path = _bundled(named) if named.bundled else _downloaded(named, progress)
    loaded = _loaded(network, path, source=source, licence=named.licence, accuracy=named.accuracy)
    return dc.replace(loaded, preprocess=named.preprocess, choice=named.name)


def _named(network: Network, choice: str | None) -> WeightSet | None:
    """The catalogue's set that is asked for; None where it is a file, or random."""
    sets = WEIGHT_SETS.get(network.name, ())
    if choice is None:
        if not sets:
            raise SpecError(f"no trained weights of {network.name} are catalogued", fix=OTHER_WAYS)
        return sets[0]
    for each in sets:
        if each.name.lower() == choice.lower():
            return each
    path = Path(choice)
    if choice != "random" and path.name == choice and not path.suffix and not path.exists():
        raise nearest(f"set of weights of {network.name}", choice, (*(each.name for each in sets), "random", "FILE"))
    return None


def _bundled(weights: WeightSet) -> Path:
    if not weights.path.is_file():
        raise ArtifactError(
            f"this installation lacks its bundled weights of {weights.network}, {weights.path}",
            fix=f"install dlcv-deploy again, or {OTHER_WAYS}",
        )
    if weights.sha256 and not sha256_file(weights.path).startswith(weights.sha256):
        raise ArtifactError(f"{weights.path} was altered", fix=f"install dlcv-deploy again, or {OTHER_WAYS}")
    return weights.path


def _downloaded(weights: WeightSet, progress: Progress) -> Path:
    try:
        return download(weights.url, weights.file, weights.sha256, progress)
    except ArtifactError as e:
        place = download_path(weights.file)
        found = f"\n  {place} is there, but its SHA-256 does not begin with {weights.sha256}" if place.exists() else ""
        raise ArtifactError(
            f"the weights of {weights.network} are not in the cache, and {e.what}{found}",
            fix=f"{e.fix}; or put the file at {place}; or {OTHER_WAYS}",
        ) from e


def _random(network: Network) -> LoadedWeights:
    from .untrained import randomize

    with torch.device("meta"):
        net = build(network)
    net.to_empty(device="cpu")
    randomize(net, RANDOM_SEED)
    shed(net)
    return LoadedWeights(
        net.eval(),
        weights_sha256(net.state_dict()),
        source=f"random, seed {RANDOM_SEED}",
        licence="none needed",
        accuracy="",
        trained=False,
        note="The weights are random: the network is untrained, and its answers mean nothing.",
    )


def _loaded(
    network: Network, path: Path, *, source: str, licence: str, accuracy: str, bgr: bool = False
) -> LoadedWeights:
    net = shed(build(network).eval()) if network.code_sha256 else blank(network)  # the user's own may hold more
    whole = fitting(net, path, network.name, network.input_shape, bgr=bgr)
    check_config(path, dict(network.arguments))
    counts = {key: torch.zeros((), dtype=torch.int64) for key in net.state_dict() if is_count(key)}
    net.load_state_dict({**whole, **counts}, assign=True)
    return LoadedWeights(net, weights_sha256(whole), source, licence, accuracy, trained=True)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict's names, types, shapes and bytes, in the order of the names, whatever file holds them.

    The counters of batch normalization do not change an answer and are left out.
    """
    hasher = hashlib.sha256()
    for key in sorted(key for key in state if not is_count(key)):
        tensor = state[key].detach().cpu().contiguous()
        head = f"{key}\0{str(tensor.dtype).removeprefix('torch.')}\0{tuple(tensor.shape)}\0"
        hasher.update(head.encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
