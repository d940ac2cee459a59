"""Says what a native tool is complaining about: which node of a graph, and what lies behind its words."""

from __future__ import annotations

import re

from ..errors import ToolError
from ..messages import Message, cause_of

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_WHILE_RUNNING = re.compile(r"while running (\S+) node\. Name:'([^']+)'")
"""ONNX Runtime's own way to name the node."""
_NOISE = re.compile(r"^(Exception from|Check '|FrontEnd API|Model wasn't|Summary|To facilitate|--- )")


_TOOLS = {
    "TensorRT": "tensorrt",
    "TensorRT for RTX": "tensorrt_rtx",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
}
_NO_DRIVER = ("catchCudaError", "CUDA driver version is insufficient")
"""What a line of TensorRT holds that follows each error where there is no driver, whatever the error was."""


def explained(tool: str, words: str, log: str = "", *, fix: str = "") -> Message:
    """A tool's words as an error tells them: what lies behind them first, where that is known, and its fix.

    Args:
        tool: A backend, by its name or as errors call it; or "cuda".
        words: What the error would say.
        log: All that the tool said, where that is more.
        fix: Where no cause is known.
    """
    found = cause(tool, log or words)
    return Message("", words, fix) if found is None else Message(found.code, f"{found.what} ({words})", found.fix)


def cause(tool: str, log: str) -> Message | None:
    """As ``cause_of``, of what a tool said on a machine with or without a driver."""
    telling = [line for line in log.splitlines() if not all(part in line for part in _NO_DRIVER)]
    return cause_of(_TOOLS.get(tool, tool), "\n".join(telling) or log)


def refusal(tool: str, onnx: bytes, message: str) -> ToolError:
    """The error for a tool that refused a graph: the node, the tool's own words, and all of them as ``log``."""
    lines = [_PREFIX.sub("", line).strip() for line in message.splitlines()]
    words = [line for line in lines if line and not _NOISE.match(line)] or [line for line in lines if line]
    nodes = culprits(onnx, message)
    subject = ", ".join(nodes) if nodes else "the graph"
    beyond = "the operator or its attributes may be beyond this tool; try another target, or another opset"
    told = explained(tool, "; ".join(words[:2]), message, fix=beyond)
    return ToolError(f"{tool} refused {subject}: {told.what}", fix=told.fix, log=message.strip())


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
