r"""A bundle's ``manifest.json``: what it says, and what it must be before any of it is believed.

The C++ library (``cpp/src/manifest.cpp``) reads it by the same rules. They end in one of these findings:

- ``damaged_read``: the file cannot be read.
- ``damaged_large``: it has more than ``MOST_BYTES``.
- ``damaged_seal``: its last 81 bytes are ``,\n  "seal": "``, 64 small hexadecimal digits and ``"\n}\n`` (``\n`` being a
  line feed), and these digits are not the SHA-256 of the bytes in front of them all. One that ends otherwise is read.
- ``damaged_json``: it is not a JSON object as RFC 8259 has it, in strict UTF-8 without a byte order mark: no
  comments, no NaN or infinities, no number beyond a double (an integer of 20 characters or more is taken for a
  floating point number, which none of the fields takes as an integer), no control characters in strings, no escape of
  half a surrogate pair, no key twice in one object, and objects and arrays at most ``DEEPEST`` deep.
- ``manifest_schema``: ``schema`` is an integer from 0 to 2**53 and not ``SCHEMA``.
- ``damaged_field``: a field is missing or is not what ``FIELDS`` asks of it; the first in that order is named. Keys
  that are not known are passed over.

An integer is written without fraction and exponent, and is none if it is true or false. Lengths of text are in bytes of
UTF-8.
"""

from __future__ import annotations

import dataclasses as dc
import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .digest import sha256
from .errors import ArtifactError
from .messages import Message, message
from .types import PRECISIONS, Dim, Engine, PluginNeed, Precision, Preprocess, TensorSpec

SCHEMA = 4
MANIFEST = "manifest.json"
MOST_BYTES = 16 << 20
DEEPEST = 32
_MOST = 2**31 - 1
"""The largest of all numbers but sizes of files, which may be as large as 2**53."""
_TEXT, _PATH, _NAME = 4096, 1024, 255
"""The longest text, path in a bundle and name without folders, in bytes."""
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_SHA256 = re.compile("[0-9a-f]{64}")
_SEAL = re.compile(rb',\n  "seal": "([0-9a-f]{64})"\n}\n\Z')
_SEAL_BYTES = 81
_BRACKETS = re.compile(r'"(?:[^"\\]+|\\.)*"?|[\[\]{}]', re.DOTALL)
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dc.dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself; ``weights`` is the choice that loads the PyTorch original again.

    With ``bgr`` these are turned from BGR to RGB. For a network of the user's own, ``factory`` is what makes it and
    ``code_sha256`` the digest of that code.

    ``engines`` maps a backend to its target (in words, and as GPU architectures ``sm``, with those ``later`` or not),
    version, notes, batch sizes and files: the name for the vendor, and the path in the bundle. An engine that calls a
    plugin has an entry ``plugin`` besides, the fields of ``PluginNeed``. ``build_key`` names the inputs of the build:
    two bundles with one key hold the same thing. ``contract`` are the steps from an image to an input, in words, which
    the files in ``golden/`` show.
    """

    model: str
    precision: Precision
    weights: str
    weights_sha256: str
    trained: bool
    preprocess: Preprocess
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: int
    engines: Mapping[str, Mapping[str, Any]]
    build_key: str
    tool_version: str
    bgr: bool = False
    schema: int = SCHEMA
    files: Mapping[str, Mapping[str, Any]] = dc.field(default_factory=dict)
    factory: str = ""
    code_sha256: str = ""
    contract: tuple[str, ...] = ()

    def engine(self, backend: str, files: Mapping[str, bytes]) -> Engine:
        """The engine of a backend that the bundle holds, with the content of its files by the vendor's names."""
        entry = self.engines[backend]
        return Engine(
            backend,
            entry["target"],
            entry["version"],
            files,
            tuple(entry["notes"]),
            Dim(*entry["batch"]),
            plugin_of(entry),
        )


def plugin_of(entry: Mapping[str, Any]) -> PluginNeed | None:
    """The plugin that an engine's entry names."""
    if "plugin" not in entry:
        return None
    need = entry["plugin"]
    sm, ops = tuple(need["architectures"]), tuple(need["ops"])
    return PluginNeed(need["file"], need["sha256"], need["tensorrt"], sm, ops)


def regular(path: Path) -> bool:
    """Whether this is a file with content, or a link to one, and no folder, pipe or device: it is not opened."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # a name with a zero byte is a ValueError
        return False


def opened(path: Path) -> int:
    """A file's descriptor, for reading; never waits, should a pipe have taken its place.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, _READING)


def read_manifest(path: Path) -> Manifest | Message:
    """A bundle's manifest; or why there is none to be used.

    Args:
        path: The bundle's folder.
    """
    try:
        os.stat(path)
    except (OSError, ValueError):
        return message("no_bundle", path=path)
    file = path / MANIFEST
    if not regular(file):
        return message("not_a_bundle", path=path)
    try:
        with os.fdopen(opened(file), "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError:
        return _damaged(path, "damaged_read")
    if len(data) > MOST_BYTES:
        return _damaged(path, "damaged_large")
    seal = _SEAL.fullmatch(data, max(0, len(data) - _SEAL_BYTES))
    if seal and sha256(data[:-_SEAL_BYTES]) != seal[1].decode():
        return _damaged(path, "damaged_seal")
    document = _document(data)
    return _damaged(path, "damaged_json") if document is None else _manifest(path, document)


def sealed(manifest: Manifest) -> bytes:
    """A manifest as its file has it: no digest of another file covers it, so its last line is its own."""
    body = json.dumps(dc.asdict(manifest), indent=2, allow_nan=False).removesuffix("\n}").encode()
    return body + f',\n  "seal": "{sha256(body)}"\n}}\n'.encode()


def _manifest(path: Path, document: dict[str, Any]) -> Manifest | Message:
    schema = document.get("schema")
    if _size(schema) and schema != SCHEMA:
        return message("manifest_schema", path=path, found=schema, wanted=SCHEMA)
    for name, right in FIELDS.items():
        if name not in document or not right(document[name]):
            return _damaged(path, "damaged_field", field=name)
    values = {field.name: document[field.name] for field in dc.fields(Manifest)}
    pre = values["preprocess"]
    (m0, m1, m2), (s0, s1, s2) = pre["mean"], pre["std"]
    values["preprocess"] = Preprocess(pre["size"], pre["canvas"], pre["fit"], (m0, m1, m2), (s0, s1, s2))
    for side in ("inputs", "outputs"):
        values[side] = tuple(TensorSpec(t["name"], tuple(t["shape"]), t["dtype"]) for t in values[side])
    values["contract"] = tuple(values["contract"])
    return Manifest(**values)


def _damaged(path: Path, why: str, **values: object) -> Message:
    return message("manifest_damaged", path=path, why=message(why, **values).what)


# --- JSON


def _document(data: bytes) -> dict[str, Any] | None:
    """None where this is no JSON object, as the head of this module has it."""
    try:
        text = data.decode("utf-8")
        if _depth(text) > DEEPEST:
            return None
        document = json.loads(
            text, object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
        )
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair has no UTF-8
    except (ValueError, ArtifactError):
        return None
    return document if isinstance(document, dict) else None


def _depth(text: str) -> int:
    """How deep brackets stand within brackets."""
    deepest = depth = 0
    for found in _BRACKETS.finditer(text):
        if found[0][0] != '"':
            depth += 1 if found[0] in "[{" else -1
            deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ArtifactError("a key is there twice")
    return found


def _int(text: str) -> int | float:
    return int(text) if len(text) < 20 else _float(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ArtifactError("a number is beyond a double")
    return value


def _constant(text: str) -> float:
    raise ArtifactError(f"{text} is no JSON")


# --- what the fields must be

_Right = Callable[[Any], bool]


def _whole(low: int, high: int) -> _Right:
    return lambda v: type(v) is int and low <= v <= high


def _listed(each: _Right, least: int = 0, most: int = _MOST) -> _Right:
    return lambda v: type(v) is list and least <= len(v) <= most and all(map(each, v))


def _one_of(*words: str) -> _Right:
    return lambda v: v in words


def _parts(fields: Mapping[str, _Right], also: _Right = lambda _: True) -> _Right:
    """An object with these fields at least, of which ``also`` holds."""
    return lambda v: type(v) is dict and all(k in v and right(v[k]) for k, right in fields.items()) and also(v)


def _table(key: _Right, value: _Right) -> _Right:
    return lambda v: type(v) is dict and all(key(k) and value(each) for k, each in v.items())


def _string(v: object) -> bool:
    return type(v) is str


def _flag(v: object) -> bool:
    return type(v) is bool


def _text(v: object) -> bool:
    """Text of at most 4096 bytes, without control characters (U+0000 to U+001F, U+007F)."""
    return isinstance(v, str) and len(v.encode()) <= _TEXT and not _CONTROL.search(v)


def _path(v: object) -> bool:
    """Text of 1 to 1024 bytes; whether it leaves the bundle is looked at later."""
    return isinstance(v, str) and _text(v) and 1 <= len(v.encode()) <= _PATH


def _name(v: object) -> bool:
    """Text of 1 to 255 bytes that names a file in a folder: neither . nor .., without slash, backslash and colon."""
    return (
        isinstance(v, str) and _path(v) and len(v.encode()) <= _NAME and v not in (".", "..") and not set(v) & {*"/\\:"}
    )


def _sha256(v: object) -> bool:
    """64 hexadecimal digits, small ones."""
    return isinstance(v, str) and _SHA256.fullmatch(v) is not None


def _number(v: object) -> bool:
    return type(v) in (int, float)


def _positive(v: Any) -> bool:  # noqa: ANN401 - a value of JSON
    return _number(v) and v > 0


_size = _whole(0, 2**53)
_positives = _whole(1, _MOST)
_sms = _whole(1, 999)
_tensor = _parts(
    {"name": _text, "shape": _listed(_positives, 0, 8), "dtype": _text}, lambda v: math.prod(v["shape"]) <= _MOST
)
_preprocess = _parts(
    {
        "size": _whole(1, 16384),
        "canvas": _whole(1, 16384),
        "fit": _one_of("resize", "pad"),
        "mean": _listed(_number, 3, 3),
        "std": _listed(_positive, 3, 3),
    },
    lambda v: v["size"] <= v["canvas"],
)
_plugin = _parts(
    {
        "file": _name,
        "sha256": _sha256,
        "tensorrt": _text,
        "architectures": _listed(_sms, 1, 64),
        "ops": _listed(_text),
    }
)
_engine = _parts(
    {
        "target": _text,
        "sm": _listed(_sms, 0, 64),
        "later": _flag,
        "version": _text,
        "notes": _listed(_string),
        "batch": _listed(_positives, 3, 3),
        "files": _table(_name, _path),
    },
    lambda v: v["batch"] == sorted(v["batch"]) and ("plugin" not in v or _plugin(v["plugin"])),
)
FIELDS: Mapping[str, _Right] = {
    "schema": _size,
    "model": _text,
    "precision": _one_of(*PRECISIONS),
    "weights": _text,
    "weights_sha256": _text,
    "trained": _flag,
    "preprocess": _preprocess,
    "inputs": _listed(_tensor, 1),
    "outputs": _listed(_tensor, 1),
    "classes": _positives,
    "engines": _table(_name, _engine),
    "build_key": _text,
    "tool_version": _text,
    "bgr": _flag,
    "files": _table(_path, _parts({"bytes": _size, "sha256": _sha256})),
    "factory": _text,
    "code_sha256": _text,
    "contract": _listed(_string),
}
"""The fields of a manifest, in the order in which they are looked at, and what each must be."""
