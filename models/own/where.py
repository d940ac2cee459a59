"""Where in a network's code an error arose: the module within the network, the file and the line."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import Node

_CALLERS = (
    *("dlcv_deploy.export", "dlcv_deploy.reference"),
    *(f"dlcv_deploy.models.{name}" for name in ("catalogue", "outputs", "own", "own.factory", "own.trial")),
)
"""This tool's modules that call a network's code, and are no part of it."""
_LIBRARIES = ("torch", "importlib", "contextlib", "functools")


def described(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def lines(error: BaseException, most: int = 1) -> list[str]:
    """The last places of the network's own code that an error passed through, the innermost last."""
    places = [_place(frame, line) for frame, line in _frames(error) if _is_theirs(frame)]
    if isinstance(error, SyntaxError) and error.filename:
        text = (error.text or "").strip()
        places.append(f"{error.filename}, line {error.lineno}{f': {text}' if text else ''}")
    return list(dict.fromkeys(places))[-most:]


def module(error: BaseException, net: nn.Module) -> str:
    """The innermost module of a network that was at work, as "layer1.0 (Block)"; empty where none was."""
    names = {id(part): name for name, part in net.named_modules()}
    found = [part for frame, _ in _frames(error) if id(part := frame.f_locals.get("self")) in names]
    if not found:
        return ""
    return called(names[id(found[-1])], type(found[-1]).__name__)


def called(name: str, kind: str) -> str:
    """What to call a module of a network; its name is empty for the network itself."""
    return f"{name} ({kind})" if name else f"the network itself ({kind})"


def traced(error: BaseException) -> Node | None:
    """The node of a traced network that was being worked on."""
    from torch.fx import Node

    found = [part for frame, _ in _frames(error) if isinstance(part := frame.f_locals.get("node"), Node)]
    return found[-1] if found else None


def origin(node: Node, prefix: str = "") -> list[str]:
    """The module that a node of a traced network is from, without a prefix of its name, and the line."""
    found = []
    for path, kind in list(node.meta.get("nn_module_stack", {}).values())[-1:]:
        found.append(f"in {called(str(path).removeprefix(prefix), str(kind).rpartition('.')[2])}")
    for file, line, function, text in re.findall(_STACK, node.meta.get("stack_trace") or "")[-1:]:
        found.append(f"{file}, line {line}, in {function}: {text.strip()}")
    return found


_STACK = re.compile(r'File "([^"]+)", line (\d+), in (\w+)\n([^\n]*)')


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _is_theirs(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return not (
        frame.f_code.co_filename.startswith("<") or name.partition(".")[0] in _LIBRARIES or name.startswith(_CALLERS)
    )


def _place(frame: FrameType, line: int) -> str:
    file, function = frame.f_code.co_filename, frame.f_code.co_name
    linecache.checkcache(file)
    text = linecache.getline(file, line).strip()
    return f"{file}, line {line}, in {function}{f': {text}' if text else ''}"
