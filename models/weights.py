"""A network with its weights: the catalogue's, a file's, or random ones; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses as dc
import hashlib
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  only to catch what torch.load(weights_only=True) raises

from ..digest import sha256_file
from ..errors import ArtifactError, SpecError
from ..progress import Progress, silent
from ..store import download, download_path
from ..types import Preprocess
from .catalogue import NETWORKS, WEIGHT_SETS, Network, WeightSet, build, missing_torch

try:
    import torch
except ModuleNotFoundError as e:
    raise missing_torch(e) from e
import safetensors
import safetensors.torch
from torch import Tensor, nn

RANDOM_SEED = 20
_TORCH_SUFFIXES = (".pth", ".pt", ".th", ".bin")
_NESTS = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel's, torch.compile's
_OTHER_WAYS = "give --weights FILE (.pth, .safetensors) or --weights random"
_TENSORS_ALONE = "save the tensors alone: torch.save(net.state_dict(), FILE)"
_SHOWN = 10


@dc.dataclass(frozen=True, slots=True)
class LoadedWeights:
    """A network in eval mode, and where its weights are from.

    ``accuracy`` is what their source claims, in words; ``trained`` is false for random weights; ``preprocess`` is what
    they want in place of the network's own, where that differs; ``note`` is what a report must say of them.
    """

    net: nn.Module
    weights_sha256: str
    source: str
    licence: str
    accuracy: str
    trained: bool
    preprocess: Preprocess | None = None
    note: str = ""


def load(network: Network, choice: str | None = None, *, progress: Progress = silent) -> LoadedWeights:
    """A network with weights.

    Args:
        network: From the catalogue.
        choice: A .pth, .pt, .th, .bin or .safetensors file, "random", or None for the catalogue's.
        progress: Called while the catalogue's weights are downloaded.

    Raises:
        SpecError: None are catalogued for this network.
        ArtifactError: They cannot be had, are damaged, are not finite, or belong to another network.
    """
    if choice == "random":
        return _random(network)
    sets = WEIGHT_SETS[network.name]
    named = sets[0] if choice is None and sets else next((each for each in sets if each.name == choice), None)
    if named is None and choice is None:
        raise SpecError(f"no trained weights of {network.name} are catalogued", fix=_OTHER_WAYS)
    if named is None:
        path = Path(choice).expanduser()
        return _loaded(network, path, source=str(path), licence="not stated", accuracy="")
    source = named.source if named.bundled else f"{named.source}, {named.url}"
    path = _bundled(named) if named.bundled else _downloaded(named, progress)
    loaded = _loaded(network, path, source=source, licence=named.licence, accuracy=named.accuracy)
    return dc.replace(loaded, preprocess=named.preprocess)


def _bundled(weights: WeightSet) -> Path:
    if not weights.path.is_file():
        raise ArtifactError(
            f"this installation lacks its bundled weights of {weights.network}, {weights.path}",
            fix=f"install dlcv-deploy again, or {_OTHER_WAYS}",
        )
    if weights.sha256 and not sha256_file(weights.path).startswith(weights.sha256):
        raise ArtifactError(f"{weights.path} was altered", fix=f"install dlcv-deploy again, or {_OTHER_WAYS}")
    return weights.path


def _downloaded(weights: WeightSet, progress: Progress) -> Path:
    try:
        return download(weights.url, weights.file, weights.sha256, progress)
    except ArtifactError as e:
        place = download_path(weights.file)
        found = f"\n  {place} is there, but its SHA-256 does not begin with {weights.sha256}" if place.exists() else ""
        raise ArtifactError(
            f"the weights of {weights.network} are not in the cache, and {e.what}{found}",
            fix=f"{e.fix}; or put the file at {place}; or {_OTHER_WAYS}",
        ) from e


def _random(network: Network) -> LoadedWeights:
    from .untrained import randomize

    with torch.device("meta"):
        net = build(network)
    net.to_empty(device="cpu")
    randomize(net, RANDOM_SEED)
    return LoadedWeights(
        net.eval(),
        weights_sha256(net.state_dict()),
        source=f"random, seed {RANDOM_SEED}",
        licence="none needed",
        accuracy="",
        trained=False,
        note="The weights are random: the network is untrained, and its answers mean nothing.",
    )


def _loaded(network: Network, path: Path, *, source: str, licence: str, accuracy: str) -> LoadedWeights:
    state = read_state(path)
    with torch.device("meta"):
        net = build(network)
    want = net.state_dict()
    _check_fit(network, path, state, want)
    whole = {key: state[key].float().contiguous() for key in want if key in state and not _is_count(key)}
    bad = [key for key, tensor in whole.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ArtifactError(f"{path} holds NaN or infinity in {_some(bad)}", fix="use a checkpoint from before that")
    counts = {key: torch.zeros((), dtype=torch.int64) for key in want if _is_count(key)}
    net.load_state_dict({**whole, **counts}, assign=True)
    return LoadedWeights(net.eval(), weights_sha256(whole), source, licence, accuracy, trained=True)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict's names, types, shapes and bytes, in the order of the names, whatever file holds them.

    The counters of batch normalization do not change an answer and are left out.
    """
    hasher = hashlib.sha256()
    for key in sorted(key for key in state if not _is_count(key)):
        tensor = state[key].detach().cpu().contiguous()
        head = f"{key}\0{str(tensor.dtype).removeprefix('torch.')}\0{tuple(tensor.shape)}\0"
        hasher.update(head.encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the prefixes that wrappers add.

    Raises:
        SpecError: A kind of file that is not known.
        ArtifactError: No file, an empty or damaged one, or one that holds something else.
    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder", fix="name the file of weights in it")
    if not path.is_file():
        raise ArtifactError(f"there is no file {path}", fix=_OTHER_WAYS)
    readers = {".safetensors": _read_safetensors, **dict.fromkeys(_TORCH_SUFFIXES, _read_torch)}
    if path.suffix.lower() not in readers:
        raise SpecError(f"{path} is no kind of file that is known", fix=f"use {', '.join(readers)}")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path} is empty", fix="copy or download it again")
    return _tensors(path, readers[path.suffix.lower()](path))


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load(path.read_bytes())
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as e:
        raise ArtifactError(
            f"{path} is damaged, or is not a safetensors file: {e}", fix="copy or download it again"
        ) from e
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror}", fix="look at its permissions") from e


def _read_torch(path: Path) -> object:
    refusals = (UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses at what a damaged file may be
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror}", fix="look at its permissions") from e
    except (*refusals, AssertionError, ArithmeticError, struct.error) as e:  # all seen on damaged files
        if code := re.search(r"GLOBAL (\S+)", str(e)):
            raise ArtifactError(
                f"{path} holds {code[1]}, a Python object, and not tensors alone; objects are code and never loaded",
                fix=_TENSORS_ALONE,
            ) from e
        raise ArtifactError(
            f"{path} is damaged, or is not a checkpoint of PyTorch", fix="copy or download it again"
        ) from e


def _tensors(path: Path, value: object) -> dict[str, Tensor]:
    """The state dict within what a file holds, checked."""
    if isinstance(value, Mapping):
        value = next((value[nest] for nest in _NESTS if isinstance(value.get(nest), Mapping)), value)
    if not isinstance(value, Mapping) or not value:
        raise ArtifactError(f"{path} holds no state dict, but {_kind(value)}", fix=_TENSORS_ALONE)
    state: dict[str, Tensor] = {}
    for name, tensor in value.items():
        key = str(name)
        while prefix := next((p for p in _PREFIXES if key.startswith(p)), ""):
            key = key.removeprefix(prefix)
        if not isinstance(tensor, Tensor):
            raise ArtifactError(f"{path}: {key!r} is not a tensor, but {_kind(tensor)}", fix=_TENSORS_ALONE)
        usable = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()
        if not usable and not _is_count(key):
            what = f"{tensor.dtype} on {tensor.device}, {tensor.layout}"
            raise ArtifactError(f"{path}: {key!r} is not plain numbers, but {what}", fix=_TENSORS_ALONE)
        if key in state:
            raise ArtifactError(f"{path} holds {key!r} twice, with and without a wrapper's prefix", fix=_TENSORS_ALONE)
        state[key] = tensor
    return state


def _kind(value: object) -> str:
    article = "an empty" if isinstance(value, Mapping) and not value else "a"
    return f"{article} {type(value).__name__}"


def _is_count(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items() if not _is_count(key)}


def _check_fit(network: Network, path: Path, state: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> None:
    """Refuse a state dict whose names and shapes are not the network's, with all that differs."""
    has, needs = _shapes(state), _shapes(want)
    if has == needs:
        return
    wrong = [f"{key} {has[key]}, not {needs[key]}" for key in needs if key in has and has[key] != needs[key]]
    lists = {
        "missing": [key for key in needs if key not in has],
        "unknown": [key for key in has if key not in needs],
        "misshapen": wrong,
    }
    lines = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in lists.items() if keys]
    other = _that_fits(has)
    raise ArtifactError(
        f"{path} does not hold the weights of {network.name}\n  " + "\n  ".join(lines),
        fix=f"they are those of {other}: name that" if other else f"name the network they belong to, or {_OTHER_WAYS}",
    )


def _that_fits(has: Mapping[str, tuple[int, ...]]) -> str:
    """The catalogue's network with exactly these names and shapes, if there is one."""
    for network in NETWORKS.values():
        with torch.device("meta"):
            if _shapes(build(network).state_dict()) == has:
                return network.name
    return ""


def _some(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
