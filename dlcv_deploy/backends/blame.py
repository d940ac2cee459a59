"""Says which node of a graph a native tool is complaining about."""

from __future__ import annotations

import re

from ..errors import ToolError

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_WHILE_RUNNING = re.compile(r"while running (\S+) node\. Name:'([^']+)'")
"""ONNX Runtime's own way to name the node."""
_NOISE = re.compile(r"^(Exception from|Check '|FrontEnd API|Model wasn't|Summary|To facilitate|--- )")


def refusal(tool: str, onnx: bytes, message: str) -> ToolError:
    """The error for a tool that refused a graph: the node, the tool's own words, and all of them as ``log``."""
    lines = [_PREFIX.sub("", line).strip() for line in message.splitlines()]
    words = [line for line in lines if line and not _NOISE.match(line)] or [line for line in lines if line]
    nodes = culprits(onnx, message)
    subject = ", ".join(nodes) if nodes else "the graph"
    return ToolError(
        f"{tool} refused {subject}: {'; '.join(words[:2])}",
        fix="the operator or its attributes may be beyond this tool; try another target, or another opset",
        log=message.strip(),
    )


def culprits(onnx: bytes, message: str) -> list[str]:
    """Nodes that a message speaks of: by name, else by operator; three at most, as "node 'conv1' (Conv)".

    A graph is not looked at, and may be left out, where the message says all.
    """
    if told := _WHILE_RUNNING.search(message):
        return [f"node {told[2]!r} ({told[1]})"]
    if not onnx:
        return []
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    from onnx import load_model_from_string

    try:
        nodes = load_model_from_string(onnx).graph.node
    except DecodeError:
        return []
    named = [node for node in nodes if node.name and _stands_in(node.name, message)]
    named = [node for node in named if _stands_in(node.op_type, message)] or named
    chosen = named or [node for node in nodes if _stands_in(node.op_type, message)]
    return [f"node {node.name!r} ({node.op_type})" for node in chosen[:3]]


def _stands_in(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w/]){re.escape(word)}(?![\w/])", text) is not None
