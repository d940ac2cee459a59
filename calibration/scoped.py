"""Names that PyTorch's earlier exporter gave to tensors, such as ``/layer1/layer1.0/relu_1/Relu_output_0``.

``torch.onnx.export(dynamo=False)``, from PyTorch 1.13 on, writes the modules that were at work, each by the last part
of its name ("layer1", "layer1.0", "conv1") and the operator. What would be the same name again gets a number: the
module where it works again ("relu_1"), the operator where a module has several ("Relu_1").
"""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Iterable, Mapping, Sequence

from onnx import ModelProto, NodeProto

from ..graph.index import is_op
from ..graph.modules import path_of

_NAME = re.compile(r"((?:/[^/]+)*)/([A-Za-z]+)(?:_([1-9]\d*))?_output_0")
_AGAIN = re.compile(r"(.+)_([1-9]\d*)")
_SPELT = {"ReduceMean": "GlobalAveragePool", "Reshape": "Flatten"}
"""Operators that ``graph.fold`` spells otherwise."""

_Scope = tuple[str, ...]


@dc.dataclass(frozen=True, slots=True)
class _Scoped:
    """A name in its parts; ``number`` tells apart several of one operator in one scope."""

    name: str
    scope: _Scope
    op: str
    number: int


@dc.dataclass(frozen=True, slots=True)
class _Place:
    """A name's module among this network's: ``below`` is a part of it that is none here, in its call ``call``."""

    module: str
    below: str
    call: int


def scoped(names: Iterable[str], model: ModelProto) -> dict[str, str]:
    """The tensors that such names mean, as far as that is certain.

    A name means a tensor where this network has as many tensors of that operator in that module as there are such
    names, and where its place among them is certain: each other one comes before it or depends on it. A module of one
    operator that this network does not have (``relu``, where it calls a function) counts as the one around it. Names of
    convolutions before batch norms of their own, which this network has folded, mean none; nor do names that are not of
    this kind. A module around the whole network, in all of the names, is passed over.
    """
    here, nodes, before = _scopes(model), _nodes(model), _before(model)
    parts = _unwrapped([part for part in map(_parsed, names) if part is not None], here)
    inside: dict[_Scope, set[str]] = {}
    for part in parts:
        for depth in range(len(part.scope)):
            inside.setdefault(part.scope[: depth + 1], set()).add(part.op)
    groups: dict[tuple[str, str], list[tuple[str, int, int, str]]] = {}
    for part in _told_apart(parts, model):
        place = _placed(part.scope, here, alone=inside.get(part.scope) == {part.op})
        if place is not None:
            group = groups.setdefault((place.module, part.op), [])
            group.append((place.below, place.call, part.number, part.name))
    result: dict[str, str] = {}
    for key, group in groups.items():
        made = nodes.get(key, [])
        if len(group) == len(made) and _is_counted(group):
            found = sorted(group)
            result.update((found[at][-1], node.output[0]) for at, node in _in_order(made, before).items())
    return result


def _parsed(name: str) -> _Scoped | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    scope, op, number = match.groups()
    return _Scoped(name, _short(tuple(scope.split("/")[1:])), _SPELT.get(op, op), int(number or 0))


def _short(scope: _Scope) -> _Scope:
    """A scope without the containers that the next part names as well: "layer1" before "layer1.0"."""
    after = (*scope[1:], "")[: len(scope)]
    return tuple(
        part
        for part, inner in zip(scope, after, strict=True)
        if not re.fullmatch(re.escape(part) + r"(\.\d+)+(_\d+)?", inner)
    )


def _scopes(model: ModelProto) -> dict[_Scope, str]:
    """The modules of a network, and those around them, by their short scopes; the network itself is the empty one."""
    result: dict[_Scope, str] = {(): ""}
    for path in {path_of(node) for node in model.graph.node} - {""}:
        atoms = path.split(".")
        scope: list[str] = []
        for depth, atom in enumerate(atoms, 1):
            if atom.isnumeric() and scope:
                scope[-1] += f".{atom}"
            else:
                scope.append(atom)
            result[tuple(scope)] = ".".join(atoms[:depth])
    return result


def _unwrapped(parts: list[_Scoped], here: Mapping[_Scope, str]) -> list[_Scoped]:
    """The names within the one module that stands around the network; what else that computes is left out."""
    first = {part.scope[0] for part in parts if part.scope}
    outer = {scope[0] for scope in here if scope}
    while len(first) == 1 and not first & outer and any(len(part.scope) > 1 for part in parts):
        parts = [dc.replace(part, scope=part.scope[1:]) for part in parts if part.scope]
        first = {part.scope[0] for part in parts if part.scope}
    return parts


def _told_apart(parts: list[_Scoped], model: ModelProto) -> list[_Scoped]:
    """Without what convolutions give before a batch norm, where the names are of a network that has not folded it."""
    there = sum(part.op == "BatchNormalization" for part in parts)
    if there == sum(is_op(node, "BatchNormalization") for node in model.graph.node):
        return parts
    return [part for part in parts if part.op not in ("Conv", "BatchNormalization")]


def _placed(scope: _Scope, here: Mapping[_Scope, str], *, alone: bool) -> _Place | None:
    """The module of a name; ``alone`` says that all names in its scope are of one operator, as those of a ReLU are."""
    if scope in here:
        return _Place(here[scope], "", 0)
    again = _AGAIN.fullmatch(scope[-1])
    base, call = (again[1], int(again[2])) if again else (scope[-1], 0)
    around, whole = scope[:-1], (*scope[:-1], base)
    if whole in here:
        return _Place(here[whole], "", call)
    return _Place(here[around], base, call) if around in here and alone and "." not in base else None


def _nodes(model: ModelProto) -> dict[tuple[str, str], list[NodeProto]]:
    """The nodes of each operator in each module, in the order of the graph."""
    result: dict[tuple[str, str], list[NodeProto]] = {}
    for node in model.graph.node:
        result.setdefault((path_of(node), node.op_type), []).append(node)
    return result


def _is_counted(group: Sequence[tuple[str, int, int, str]]) -> bool:
    """Whether names in one module differ by the number of the call alone, or of the operator, none left out."""
    numbers = sorted((call, number) for _, call, number, _ in group)
    counted = [(0, number) for number in range(len(group))], [(call, 0) for call in range(len(group))]
    return len({below for below, *_ in group}) == 1 and numbers in counted


def _before(model: ModelProto) -> dict[str, int]:
    """For each tensor that a node gives, that node and those it depends on, as bits in the order of the graph."""
    result: dict[str, int] = {}
    for at, node in enumerate(model.graph.node):
        needed = 1 << at
        for tensor in node.input:
            needed |= result.get(tensor, 0)
        result.update((tensor, needed) for tensor in node.output)
    return result


def _in_order(nodes: Sequence[NodeProto], before: Mapping[str, int]) -> dict[int, NodeProto]:
    """The nodes among these whose place in the order of computing is certain, by that place."""
    needed = [before[node.output[0]] for node in nodes]
    result = {}
    for node, mine in zip(nodes, needed, strict=True):
        earlier = sum(other & mine == other for other in needed) - 1
        later = sum(other & mine == mine for other in needed) - 1
        if earlier + later == len(nodes) - 1:
            result[earlier] = node
    return result
