"""The PyTorch modules that nodes stem from, such as ``layer3.4.conv2``, as an entry of each node's metadata."""

from __future__ import annotations

import ast

from onnx import ModelProto, NodeProto

from .index import drop

KEY = "dlcv_deploy.module"
"""The entry of NodeProto.metadata_props, a field of ONNX IR version 10, which readers of earlier versions pass over."""
_SCOPES = "pkg.torch.onnx.name_scopes"
"""PyTorch's own: the modules that were at work, the network itself as "", the outermost first; then the operation."""


def module_of(node: NodeProto) -> str:
    """The module that a node stems from, by its name within the network; else the node's own name.

    A batch norm that was folded into a convolution leaves the convolution's. What the network computes itself, in no
    module of its own, has no other name than the node's.
    """
    return path_of(node) or node.name


def path_of(node: NodeProto) -> str:
    """The module that a node stems from; empty for what the network computes itself, and for what is not known."""
    return _entry(node, KEY)


def modules(model: ModelProto) -> dict[str, str]:
    """``module_of`` for each node by name, in the order of the graph."""
    return {node.name: module_of(node) for node in model.graph.node}


def mark(model: ModelProto, *, within: str = "") -> None:
    """Turn what PyTorch's exporter notes of modules into this tool's entry, in place; other metadata stays.

    Args:
        model: As ``torch.onnx.export(dynamo=True)`` gives it.
        within: Module of a wrapper that the network itself is; its name is left out.
    """
    for node in model.graph.node:
        path = _path(_entry(node, _SCOPES))
        if path == within:
            path = ""
        elif within:
            path = path.removeprefix(f"{within}.")
        _write(node, path)


def keep(source: NodeProto, node: NodeProto) -> None:
    """Let a node stem from the module that ``source`` stems from."""
    _write(node, path_of(source))


def forget(model: ModelProto) -> None:
    """Remove this tool's entries, in place."""
    for node in model.graph.node:
        _write(node, "")


def _write(node: NodeProto, path: str) -> None:
    drop(node.metadata_props, lambda entry: entry.key == KEY)
    if path:
        node.metadata_props.add(key=KEY, value=path)


def _entry(node: NodeProto, key: str) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == key), "")


def _path(scopes: str) -> str:
    """The innermost module; nothing where PyTorch names none, as for what it adds itself."""
    try:
        found = ast.literal_eval(scopes)
    except (ValueError, SyntaxError):
        return ""
    inside = isinstance(found, list) and len(found) > 1 and found[0] == ""
    return str(found[-2]) if inside else ""
