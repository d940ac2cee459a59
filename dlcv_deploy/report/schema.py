"""The report as a JSON Schema, made from the values themselves, for readers in any language."""

from __future__ import annotations

import dataclasses as dc
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from ..latency.values import LatencyReport
from ..parity.values import Outcome, ParityReport
from .document import SCHEMA, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: {"type": "string"}, int: {"type": "integer"}, bool: {"type": "boolean"}}
_NUMBER = {"type": ["number", "null"]}  # JSON has neither NaN nor infinity

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a report.json; ``$defs`` has every value in it by its name.

    ``#/$defs/Validation`` is what ``validate --json`` prints, ``#/$defs/LatencyReport`` what ``bench --json`` does.
    Every field is always there, and no others. What was not measured is null, and so is a number that is NaN or
    infinite.
    """
    defs: dict[str, Schema] = {}
    for kind in (Report, ParityReport, LatencyReport):
        _define(kind, defs)
    whole = defs.pop("Report")
    defs["Validation"] = _validation(defs["ParityReport"])
    return {
        "$schema": DIALECT,
        "title": f"dlcv-deploy report, schema version {SCHEMA}",
        "description": whole["description"],
        "type": "object",
        "properties": {"schema": {"const": SCHEMA}, **whole["properties"]},
        "required": ["schema", *whole["required"]],
        "additionalProperties": False,
        "$defs": dict(sorted(defs.items())),
    }


def to_json() -> str:
    """The schema as the text of docs/report.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _validation(parity: Schema) -> Schema:
    """A parity report with what a gate said of it."""
    texts = {"type": "array", "items": {"type": "string"}}
    verdict = {
        "description": "What the images show against the margin, where one was given to hold to; and in sentences.",
        "type": "object",
        "properties": {"outcome": {"enum": [*get_args(Outcome), None]}, "sentences": texts},
        "required": ["outcome", "sentences"],
        "additionalProperties": False,
    }
    failures = {**texts, "description": "What stands against the report; empty where it passes."}
    return {
        **parity,
        "properties": {**parity["properties"], "verdict": verdict, "failures": failures},
        "required": [*parity["required"], "verdict", "failures"],
    }


def _define(kind: type[Any], defs: dict[str, Schema]) -> Schema:
    """A reference to a dataclass, which is described once."""
    if kind.__name__ not in defs:
        defs[kind.__name__] = {}  # a value that holds its own kind ends here
        hints, said = typing.get_type_hints(kind), _said(kind)
        names = [field.name for field in dc.fields(kind)]
        defs[kind.__name__] = {
            "description": said,
            "type": "object",
            "properties": {name: {**_schema(hints[name], defs), **_about(name, said)} for name in names},
            "required": names,
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _said(kind: type[Any]) -> str:
    """A docstring on one line, in JSON's words."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split()).replace("``None``", "null").replace("``", "`")


def _about(name: str, said: str) -> Schema:
    """What a docstring says of a field: the sentences that name it."""
    found = " ".join(sentence for sentence in re.split(r"(?<=\.) ", said) if f"`{name}`" in sentence)
    return {"description": found} if found else {}


def _schema(kind: Any, defs: dict[str, Schema]) -> Schema:  # noqa: ANN401
    """The schema of a type; those that ``document.read`` knows."""
    if dc.is_dataclass(kind) and isinstance(kind, type):
        return _define(kind, defs)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):  # only "X | None" is used
        return _or_null(_schema(args[0], defs))
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0], defs)}
    if origin is tuple:
        parts = [_schema(part, defs) for part in args]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(args[1], defs)}
    if origin is Literal:
        return {"enum": list(args)}
    return dict(_NUMBER) if kind is float else dict(_PLAIN[kind])


def _or_null(schema: Schema) -> Schema:
    if schema == _NUMBER:
        return schema
    return (
        {**schema, "type": [schema["type"], "null"]}
        if set(schema) == {"type"}
        else {"anyOf": [schema, {"type": "null"}]}
    )
