"""SHA-256 names for values and files."""

from __future__ import annotations

import dataclasses as dc
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

_SCHEMA = 1


def digest(**parts: object) -> str:
    """SHA-256 of named parts: bytes as they are, anything else as canonical JSON; dataclasses as their fields.

    Names and values are length-prefixed, so no two different sets of parts give the same input to the hash.

    Raises:
        TypeError: a part that JSON cannot name.
    """
    h = hashlib.sha256()
    for name, value in [("schema", _SCHEMA), *sorted(parts.items())]:
        data = value if isinstance(value, bytes) else json.dumps(_plain(value), sort_keys=True).encode()
        for piece in (name.encode(), data):
            h.update(len(piece).to_bytes(8, "big") + piece)
    return h.hexdigest()


def _plain(value: object) -> object:
    if dc.is_dataclass(value) and not isinstance(value, type):
        return dc.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex, read in pieces."""
    h = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            h.update(piece)
    return h.hexdigest()
