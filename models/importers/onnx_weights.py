"""Weights of a network from an ONNX graph, found by matching the two along the dataflow.

Names say nothing here. Two steps match where they do the same operation with the same settings on matching inputs; the
search goes back from the answer to the image. A match of all of a network's steps is a proof that the network with
these weights computes what the graph computes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ArtifactError
from .steps import Step, walk

_SHOWN = 5


def weights_of(path: Path, network: str, net: Step, graph: tuple[Step, ...]) -> dict[str, Tensor]:
    """The state dict that makes a network compute what a graph computes.

    Args:
        path: The graph's file, for messages.
        network: Its name, likewise.
        net: What the network computes.
        graph: From :func:`~dlcv_deploy.models.importers.onnx_graph.read_graph`.

    Raises:
        ArtifactError: Something differs, which is named, or two matches are possible.
    """
    found = [_Match(net, output) for output in graph]
    fits = [match for match in found if not match.differences]
    if not fits:
        raise ArtifactError(f"{path} does not hold the weights of {network}\n  " + found[0].text())
    if len(fits) > 1 and any(match.pairs != fits[0].pairs for match in fits):
        raise ArtifactError(
            f"{path} has {len(fits)} outputs that compute what {network} does, from different weights",
            fix="export it with one output",
        )
    return fits[0].state()


def fits(net: Step, graph: tuple[Step, ...]) -> bool:
    """Whether a graph computes what a network computes."""
    return any(not _Match(net, output).differences for output in graph)


def layers(last: Step) -> Counter[tuple[str, tuple[int, ...]]]:
    """The weights that lead to a step, by kind and shape."""
    return Counter((step.op, step.shape) for step in walk(last) if step.shape)


class _Match:
    """Steps of a network, each with the graph's step that does the same."""

    def __init__(self, net: Step, output: Step) -> None:
        self.pairs: dict[Step, Step] = {}
        self.differences: dict[Step, str] = {}
        self._net, self._output = net, output
        if layers(net) != layers(output):
            self.differences[net] = _other_layers(net, output)
            return
        stack = [(net, output)]
        while stack:
            ours, theirs = stack.pop()
            if ours in self.pairs:
                if self.pairs[ours] is not theirs:
                    self._differ(ours, f"stands for both {self.pairs[ours].name} and {theirs.name}")
                continue
            self.pairs[ours] = theirs
            stack.extend(self._before(ours, theirs))
        for step in self._unnormed():
            if step.tensors.get("bias") is None and self.pairs[step].tensors.get("bias") is not None:
                self._differ(step, f"has no bias, and {self.pairs[step].name} has one")

    def text(self) -> str:
        """The first differences from the image on."""
        order = [self.differences[step] for step in walk(self._net) if step in self.differences]
        more = len(order) - _SHOWN
        return "\n  ".join(order[:_SHOWN]) + (f"\n  and {more} more" if more > 0 else "")

    def _differ(self, step: Step, what: str) -> None:
        before = f"{self.differences[step]}\n  " if step in self.differences else ""
        self.differences[step] = f"{before}{step.name} {what}"

    def _before(self, ours: Step, theirs: Step) -> list[tuple[Step, Step]]:
        """What else must match if two steps do, once their own differences are noted."""
        if ours.op == "norm" and theirs.op == ours.inputs[0].op == "conv":  # folded into the convolution
            return [(ours.inputs[0], theirs)]
        if ours.op != theirs.op or len(ours.inputs) != len(theirs.inputs):
            self._differ(ours, f"is a step of another kind in the file: {theirs.op}, {theirs.name}")
            return []
        if ours.shape != theirs.shape:
            self._differ(ours, f"is {ours.shape}, and {theirs.name} is {theirs.shape}")
        want, has = _settings(ours, ours.size), _settings(theirs, ours.size)
        for key in want:
            if key in has and not _same(want[key], has[key]):
                self._differ(ours, f"has {key} {_plain(want[key])}, and {theirs.name} has {_plain(has[key])}")
        if ours.op != "add":
            return list(zip(ours.inputs, theirs.inputs, strict=True))
        return self._sides(ours, theirs)

    def _sides(self, ours: Step, theirs: Step) -> list[tuple[Step, Step]]:
        """The two sides of a sum, which may stand in any order: what leads to them decides."""
        a, b = ours.inputs
        c, d = theirs.inputs
        if a.origin == b.origin and c is not d:
            self._differ(ours, f"adds two things of the same shapes, and so does {theirs.name}: which is which is open")
            return []
        if (a.origin, b.origin) not in ((c.origin, d.origin), (d.origin, c.origin)):  # they differ somewhere before
            return [(a, c), (b, d)] if layers(a) == layers(c) else [(a, d), (b, c)]
        return [(a, c), (b, d)] if a.origin == c.origin else [(a, d), (b, c)]

    def _unnormed(self) -> list[Step]:
        """Layers whose answer no batch normalization takes."""
        normed = {step.inputs[0] for step in self.pairs if step.op == "norm"}
        return [step for step in self.pairs if step.shape and step not in normed]

    def state(self) -> dict[str, Tensor]:
        """The graph's weights under the network's keys."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for ours, theirs in self.pairs.items():
            keys, tensors = ours.tensors, theirs.tensors
            if ours.op == "norm":
                values = _norm(ours.about["eps"], theirs)
                found.update({keys[role]: values[role] for role in keys})
            elif keys:
                found[keys["weight"]] = tensors["weight"]
                if "bias" in keys:
                    bias = tensors.get("bias")
                    found[keys["bias"]] = np.zeros(theirs.shape[0], np.float32) if bias is None else bias
        return {key: torch.from_numpy(np.array(value, np.float32)) for key, value in found.items()}


def _norm(eps: float, theirs: Step) -> Mapping[str, np.ndarray[Any, Any]]:
    """Batch normalization's four vectors.

    A convolution that it was folded into leaves the identity and a bias: its variance and ``eps`` add up to 1 in
    float32. The bias of a convolution before it is taken from the mean; another epsilon goes into the weight.
    """
    if theirs.op == "conv":
        one, bias = np.ones(theirs.shape[0], np.float32), theirs.tensors["bias"]
        return {"weight": one, "bias": 0 * one if bias is None else bias, "mean": 0 * one, "var": one * (1 - eps)}
    values, before = dict(theirs.tensors), theirs.inputs[0]
    bias = before.tensors.get("bias") if before.op == "conv" else None
    if bias is not None:
        values["mean"] = np.asarray(values["mean"], np.float64) - bias
    if not math.isclose(eps, theirs.about["eps"], rel_tol=1e-6):
        var = np.asarray(values["var"], np.float64)
        values["weight"] = values["weight"] * np.sqrt((var + eps) / (var + theirs.about["eps"]))
    return values


def _settings(step: Step, size: tuple[int, ...]) -> dict[str, Any]:
    """What must be equal for two steps to do the same to a map of this size."""
    about = dict(step.about)
    if step.op == "mean":
        return {"kernel": about.get("kernel", size), "pads": about.get("pads", (0, 0, 0, 0))}
    if step.op == "norm":
        return {}
    if step.op not in ("conv", "maxpool"):
        return about
    begin, end, answer = zip(*(_placed(about, axis, extent) for axis, extent in enumerate(size)), strict=True)
    shown: dict[str, Any] = {key: about[key] for key in ("kernel", "strides", "dilations", "groups") if key in about}
    if step.op == "conv":
        return {**shown, "pads": (*begin, *end)}
    return {**shown, "pads": begin, "map": answer}


def _placed(about: dict[str, Any], axis: int, extent: int) -> tuple[int, int, int]:
    """Padding before and after one axis of a map, and how often the window fits in."""
    kernel, stride = about["kernel"][axis], about["strides"][axis]
    covered = about["dilations"][axis] * (kernel - 1) + 1
    begin, end, auto = about["pads"][axis], about["pads"][axis + 2], about.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        total = max((math.ceil(extent / stride) - 1) * stride + covered - extent, 0)
        small, large = total // 2, total - total // 2
        begin, end = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto == "VALID":
        begin = end = 0
    steps = (extent + begin + end - covered) / stride
    count = (math.ceil(steps) if about.get("ceil") else math.floor(steps)) + 1
    if about.get("ceil") and (count - 1) * stride >= extent + begin:
        count -= 1
    return begin, end, count


def _same(a: object, b: object) -> bool:
    return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) and isinstance(b, float) else a == b


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    alike = isinstance(value, tuple) and len(set(value)) == 1
    return str(value[0] if alike else value)  # type: ignore[index]


def _other_layers(net: Step, output: Step) -> str:
    """The layers that one of the two lacks."""
    lines = []
    for what, spare in (("missing", layers(net) - layers(output)), ("unknown", layers(output) - layers(net))):
        kinds = [f"{count} {op} {shape}" for (op, shape), count in spare.items()]
        if kinds:
            more = f", and {len(kinds) - _SHOWN} more shapes" if len(kinds) > _SHOWN else ""
            lines.append(f"{spare.total()} layers {what}: {', '.join(kinds[:_SHOWN])}{more}")
    return "\n  ".join(lines)
