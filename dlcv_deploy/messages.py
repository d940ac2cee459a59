"""The sentences that the Python and the C++ runtime share: one table, ``messages.json``, read by both.

A message has two templates: ``what`` is wrong, and the ``fix``. ``{name}`` stands for a value, as text; nothing else is
replaced, so that both languages do the same.
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


def message(code: str, **values: object) -> Message:
    """A message of the table with its values filled in.

    Raises:
        KeyError: No message has this code, or one of its values is missing. Both are bugs.
    """
    entry = _table()["messages"][code]
    return Message(code, _filled(entry["what"], values), _filled(entry["fix"], values))


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
