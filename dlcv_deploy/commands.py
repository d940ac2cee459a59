"""The commands that repeat a build and what it measured, as one types them."""

from __future__ import annotations

import dataclasses as dc
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from .spec import BuildSpec

_NAMES = {"input_shape": "input"}
"""Options that are not called as their field is."""
_LIST = {"input_shape": "x"}
"""What stands between the parts of an option's value, where that is no comma."""


def commands(spec: BuildSpec) -> tuple[str, ...]:
    """The command lines of a build, of its parity where images were named, and of its latency; quoted for a shell.

    Paths are as the user gave them. What replaces an existing bundle is left out, for whoever repeats a build to say.
    """
    bundle = str(spec.path())
    lines = [["build", spec.model, f"--{spec.precision}", *_options(spec)]]
    if spec.data is not None:
        truth = [] if spec.truth is None else ["--truth", str(spec.truth)]
        skip = ["--skip-bad"] if spec.skip_bad else []
        lines += [["validate", bundle, "--data", spec.data, *truth, "--crops", crops, *skip] for crops in ("1", "10")]
    lines.append(["bench", bundle, "--quick"])
    return tuple(shlex.join(["dlcv-deploy", *line]) for line in lines)


def _options(spec: BuildSpec) -> list[str]:
    """What a build was told besides its model and precision, as far as that is not the default."""
    words: list[str] = []
    for field in dc.fields(spec):
        value = getattr(spec, field.name)
        if field.name in ("model", "precision", "force") or value in (field.default, {}):
            continue
        option = f"--{_NAMES.get(field.name, field.name).replace('_', '-')}"
        if field.name == "targets":
            words += [word for target in value for word in ("--target", target)]
        elif isinstance(value, Mapping):
            words += [f"--{name}" if on else f"--no-{name}" for name, on in value.items()]
        elif isinstance(value, bool):
            words.append(option)
        else:
            words += [option, _written(field.name, value)]
    return words


def _written(name: str, value: Sequence[object] | float | Path) -> str:
    return _LIST.get(name, ",").join(map(str, value)) if isinstance(value, tuple) else str(value)
