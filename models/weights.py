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
from .catalogue import NETWORKS, WEIGHT_SETS, Network, WeightSet, build, missing_torch

try:
    import torch
except ModuleNotFoundError as e:
    raise missing_torch(e) from e
from torch import Tensor, nn

from .checkpoint import OTHER_WAYS, check_file, is_count, read_state
from .layouts import check_config, other_form, renamed

RANDOM_SEED = 20
_SHOWN = 10


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
        loaded = _loaded(network, path, source=str(path), licence="not stated", accuracy="", bgr=bgr)
        return dc.replace(loaded, choice=str(path.resolve()))
    source = named.source if named.bundled else f"{named.source}, {named.url}"
    path = _bundled(named) if named.bundled else _downloaded(named, progress)
    loaded = _loaded(network, path, source=source, licence=named.licence, accuracy=named.accuracy)
    return dc.replace(loaded, preprocess=named.preprocess, choice=named.name)


def _named(network: Network, choice: str | None) -> WeightSet | None:
    """The catalogue's set that is asked for; None where it is a file, or random."""
    sets = WEIGHT_SETS[network.name]
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
    _shed(net)
    return LoadedWeights(
        net.eval(),
        weights_sha256(net.state_dict()),
        source=f"random, seed {RANDOM_SEED}",
        licence="none needed",
        accuracy="",
        trained=False,
        note="The weights are random: the network is untrained, and its answers mean nothing.",
    )


def _shed(net: nn.Module) -> None:
    """Take away what serves training alone, such as auxiliary classifiers."""
    for part in getattr(net, "training_only", ()):
        setattr(net, part, None)


def _loaded(
    network: Network, path: Path, *, source: str, licence: str, accuracy: str, bgr: bool = False
) -> LoadedWeights:
    with torch.device("meta"):
        net = build(network).eval()
    check_config(path, dict(network.arguments))
    whole = fitting(net, path, network.name, network.input_shape)
    if bgr:
        _turn(net, whole, network.name)
    counts = {key: torch.zeros((), dtype=torch.int64) for key in net.state_dict() if is_count(key)}
    net.load_state_dict({**whole, **counts}, assign=True)
    return LoadedWeights(net, weights_sha256(whole), source, licence, accuracy, trained=True)


def fitting(net: nn.Module, path: Path, name: str, input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """A file's weights under a network's own keys, in float32, without the counters of batch normalization.

    Args:
        net: On the meta device, in eval mode; it loses the parts that serve training alone.
        path: A checkpoint or an ONNX graph.
        name: The network's, for messages.
        input_shape: Channels, height and width.

    Raises:
        SpecError: A kind of file that is not known.
        ArtifactError: It cannot be read, or its weights are another network's, or not finite.
    """
    path = path.expanduser()
    check_file(path)
    _shed(net)
    if path.suffix.lower() == ".onnx":
        state = _from_onnx(net, path, name, input_shape)
    else:
        state = _from_checkpoint(net, path, name)
    whole = {key: tensor.float().contiguous() for key, tensor in state.items()}
    if bad := [key for key, tensor in whole.items() if not torch.isfinite(tensor).all()]:
        raise ArtifactError(f"{path} holds NaN or infinity in {_some(bad)}", fix="use a checkpoint from before that")
    return whole


def _from_checkpoint(net: nn.Module, path: Path, name: str) -> dict[str, Tensor]:
    state, needs = read_state(path), _shapes(net.state_dict())
    has = _translated(net, path, _shapes(state))
    if {key: shape for key, (_, shape) in has.items()} != needs:
        raise _misfit(name, path, {key: shape for key, (_, shape) in has.items()}, needs, list(state))
    return {key: state[has[key][0]] for key in needs}


def _translated(
    net: nn.Module, path: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By the network's keys, the file's key and shape; what serves training alone is left out."""
    left_out = tuple(f"{part}." for part in getattr(net, "training_only", ()))
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for key, name in renamed(shapes, _shapes(net.state_dict())).items():
        if name in found:
            raise ArtifactError(f"{path} holds {name!r} twice, as {found[name][0]} and as {key}", fix="keep one of them")
        if not name.startswith(left_out or "\0"):
            found[name] = (key, shapes[key])
    return found


def _from_onnx(net: nn.Module, path: Path, name: str, input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    from .onnx_graph import read_graph
    from .onnx_weights import fits, weights_of
    from .steps import trace

    graph = read_graph(path)
    try:
        return weights_of(path, name, trace(net, input_shape), graph)
    except ArtifactError as e:
        others = (n for n in NETWORKS.values() if n.name != name and fits(n, graph))
        other = next((n.name for n in others), "")
        raise ArtifactError(e.what, fix=f"they are those of {other}: name that" if other else e.fix) from e


def _turn(net: nn.Module, whole: dict[str, Tensor], name: str) -> None:
    """Reverse the input channels of the first convolution."""
    key = next((f"{n}.weight" for n, m in net.named_modules() if isinstance(m, nn.Conv2d)), "")
    if not key or whole[key].shape[1] != 3:
        raise SpecError(f"{name} has no first convolution of three colours to turn", fix="leave --bgr out")
    whole[key] = whole[key].flip(1).contiguous()


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


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items() if not is_count(key)}


def _misfit(
    name: str,
    path: Path,
    has: Mapping[str, tuple[int, ...]],
    needs: Mapping[str, tuple[int, ...]],
    keys: list[str],
) -> ArtifactError:
    """The error for names and shapes that are not the network's, with all that differs."""
    wrong = [key for key in needs if key in has and has[key] != needs[key]]
    lists = {
        "missing": [key for key in needs if key not in has],
        "unknown": [key for key in has if key not in needs],
        "misshapen": [f"{key} {has[key]}, not {needs[key]}" for key in wrong],
    }
    lines = [f"{len(found)} {what}: {_some(found)}" for what, found in lists.items() if found]
    if form := other_form(keys):
        lines.append(form)
    last = list(needs)[-2:]
    if other := _that_fits(path, has, keys):
        fix = f"they are those of {other}: name that"
    elif wrong == last and not lists["missing"] and not lists["unknown"]:
        fix = f"it answers with {has[last[1]][0]} classes: bring the network that it belongs to, as FILE.py:FACTORY"
    else:
        fix = f"name the network they belong to, or {OTHER_WAYS}"
    return ArtifactError(f"{path} does not hold the weights of {name}\n  " + "\n  ".join(lines), fix=fix)


def _that_fits(path: Path, shapes: Mapping[str, tuple[int, ...]], keys: list[str]) -> str:
    """The catalogue's network with exactly these names and shapes, if there is one."""
    for network in NETWORKS.values():
        with torch.device("meta"):
            net = build(network)
        _shed(net)
    return ""


def _some(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
