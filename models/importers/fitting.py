"""A file's weights under a network's own keys, or everything that keeps them from fitting."""

from __future__ import annotations

import dataclasses as dc
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import ArtifactError, SpecError
from ..catalogue import NETWORKS, Network, build
from .checkpoint import OTHER_WAYS, check_file, is_count, read_state
from .layouts import other_form, renamed

_SHOWN = 10
Shapes = Mapping[str, tuple[int, ...]]


def shed(net: nn.Module) -> nn.Module:
    """The network without what serves training alone, such as auxiliary classifiers."""
    for part in getattr(net, "training_only", ()):
        setattr(net, part, None)
    return net


class _Unfilled(TorchFunctionMode):
    """New weights stay as they are: on the meta device there is nothing to fill, and imports of seconds to save."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        fills = func in (Tensor.fill_, Tensor.zero_, Tensor.normal_, Tensor.uniform_)
        if fills or getattr(func, "__module__", "") == torch.nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def blank(network: Network) -> nn.Module:
    """A network of the catalogue on the meta device, in eval mode, without what serves training alone."""
    with torch.device("meta"), _Unfilled():
        return shed(build(network).eval())


def fitting(
    net: nn.Module, path: Path, name: str, input_shape: tuple[int, ...], *, bgr: bool = False
) -> dict[str, Tensor]:
    """A file's weights under a network's keys, in float32, without the counters of batch normalization.

    Args:
        net: In eval mode, after :func:`shed`, on any device; its own weights do not matter.
        path: A checkpoint or an ONNX graph.
        name: The network's, for messages.
        input_shape: Channels, height and width.
        bgr: The weights take blue, green, red: turn the first convolution, so that it takes RGB.

    Raises:
        SpecError: A kind of file that is not known, or ``bgr`` and no convolution that takes three colours.
        ArtifactError: It cannot be read, or its weights are another network's, or not finite.
    """
    check_file(path)
    if path.suffix.lower() == ".onnx":
        state = _from_onnx(net, path, name, input_shape)
    else:
        state = _from_checkpoint(net, path, name)
    want = net.state_dict()
    whole = {key: tensor.to(want[key].dtype).contiguous() for key, tensor in state.items()}
    if bad := [key for key, tensor in whole.items() if not torch.isfinite(tensor).all()]:
        raise ArtifactError(f"{path} holds NaN or infinity in {_some(bad)}", fix="use a checkpoint from before that")
    if bgr:
        first = next((f"{key}.weight" for key, module in net.named_modules() if isinstance(module, nn.Conv2d)), "")
        if not first or whole[first].shape[1] != 3:
            raise SpecError(f"{name} does not begin with a convolution of three colours", fix="leave --bgr out")
        whole[first] = whole[first].flip(1)
    return whole


def _from_checkpoint(net: nn.Module, path: Path, name: str) -> dict[str, Tensor]:
    state, form = read_state(path), _form(net)
    keys, theirs = form.keys(shapes(state)), shapes(state)
    has = {key: theirs[each] for key, each in keys.items()}
    if has != form.shapes:
        raise _misfit(name, path, has, form.shapes, theirs)
    for key, tensor in net.state_dict().items():
        if key in keys and state[keys[key]].is_floating_point() != tensor.is_floating_point():
            what = f"{path}: {keys[key]!r} is {state[keys[key]].dtype}, and {name} has {tensor.dtype} there"
            raise ArtifactError(what, fix=f"name the network they belong to, or {OTHER_WAYS}")
    return {key: state[keys[key]] for key in form.shapes}


@dc.dataclass(frozen=True, slots=True)
class _Form:
    """The shapes of a network's weights by key, and the beginnings of keys that serve training alone."""

    shapes: Shapes
    aside: tuple[str, ...]

    def keys(self, has: Shapes) -> dict[str, str]:
        """A file's keys by the network's names for them, without those that serve training alone."""
        names = renamed(has, self.shapes)
        return {key: theirs for theirs, key in names.items() if not (self.aside and key.startswith(self.aside))}


def _form(net: nn.Module) -> _Form:
    return _Form(shapes(net.state_dict()), tuple(f"{part}." for part in getattr(net, "training_only", ())))


@functools.cache
def _forms() -> Mapping[str, _Form]:
    """Those of the catalogue's networks."""
    return {name: _form(blank(network)) for name, network in NETWORKS.items()}


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict, without its counters."""
    return {key: tuple(tensor.shape) for key, tensor in state.items() if not is_count(key)}


def _from_onnx(net: nn.Module, path: Path, name: str, input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    from .onnx_graph import read_graph
    from .onnx_weights import fits, layers, weights_of
    from .steps import trace

    graph = read_graph(path)
    if not graph:
        raise ArtifactError(f"{path} has a graph without an output", fix="export it again")
    try:
        state = weights_of(path, name, trace(net, input_shape), graph)
    except ArtifactError as e:
        kernels = Counter(shape for _, shape in layers(graph[0]).elements())

        def same(network: Network, form: _Form) -> bool:
            alike = Counter(shape for shape in form.shapes.values() if len(shape) > 1) == kernels
            return alike and fits(trace(blank(network), network.input_shape), graph)

        raise ArtifactError(e.what, fix=_whose(same) or e.fix or OTHER_WAYS) from e
    if lost := [key for key in shapes(net.state_dict()) if key not in state]:
        raise ArtifactError(f"{path} does not hold the weights of {name}\n  missing: {_some(lost)}", fix=OTHER_WAYS)
    return state


def _misfit(name: str, path: Path, has: Shapes, needs: Shapes, theirs: Shapes) -> ArtifactError:
    """The error for names and shapes that are not the network's, with all that differs."""
    wrong = [key for key in needs if key in has and has[key] != needs[key]]
    lists = {
        "missing": [key for key in needs if key not in has],
        "unknown": [key for key in has if key not in needs],
        "misshapen": [f"{key} {has[key]}, not {needs[key]}" for key in wrong],
    }
    lines = [f"{len(found)} {what}: {_some(found)}" for what, found in lists.items() if found]
    if form := other_form(theirs):
        lines.append(form)

    def same(network: Network, form: _Form) -> bool:
        return {key: theirs[each] for key, each in form.keys(theirs).items()} == form.shapes

    fix, last = _whose(same), list(needs)[-2:]
    if not fix and wrong == last and not lists["missing"] and not lists["unknown"]:
        classes = has[last[1]][0]
        fix = f"it answers with {classes} classes: --labels FILE with their names, one a line"
    fix = fix or f"name the network they belong to, or {OTHER_WAYS}"
    return ArtifactError(f"{path} does not hold the weights of {name}\n  " + "\n  ".join(lines), fix=fix)


def _whose(same: Callable[[Network, _Form], bool]) -> str:
    """What to do where a network of the catalogue is the one that is meant; empty where none is."""
    name = next((name for name, form in _forms().items() if same(NETWORKS[name], form)), "")
    return f"they are those of {name}: name that" if name else ""


def _some(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
