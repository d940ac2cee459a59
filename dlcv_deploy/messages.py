"""The sentences that the Python and the C++ runtime share: one table, ``messages.json``, read by both.

A message has two templates: ``what`` is wrong, and the ``fix``. ``{name}`` stands for a value, as text; nothing else is
replaced, so that both languages do the same. A cause has no templates: it is found by what a native tool said.
"""

from __future__ import annotations

import dataclasses as dc
import functools
import json
from importlib import resources
from typing import Any

TABLE = "messages.json"


@dc.dataclass(frozen=True, slots=True)
class Message:
    """What is wrong, and what to do about it; ``code`` names it for machines."""

    code: str
    what: str
    fix: str = ""


def message(code: str, /, **values: object) -> Message:
    """A message of the table with its values filled in.

    Raises:
        KeyError: No message has this code, or one of its values is missing. Both are bugs.
    """
    entry = _table()["messages"][code]
    return Message(code, _filled(entry["what"], values), _filled(entry["fix"], values))


def cause_of(tool: str, text: str) -> Message | None:
    """What lies behind the words of a native tool, where they are among the known ones.

    The first entry of ``causes`` of which the text holds all substrings, letter for letter.

    Args:
        tool: A backend's name, or "cuda" where CUDA was called without one.
        text: All that the tool said.
    """
    for entry in _table()["causes"]:
        if tool in entry["tools"] and all(part in text for part in entry["all"]):
            return Message(entry["code"], entry["what"], entry["fix"])
    return None


def _filled(template: str, values: dict[str, object]) -> str:
    """Each ``{name}`` replaced, from left to right; what a value holds is not looked at again."""
    head, *parts = template.split("{")
    out = [head]
    for part in parts:
        name, _, rest = part.partition("}")
        out += [str(values[name]), rest]
    return "".join(out)


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))
    return found
