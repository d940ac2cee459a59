"""Packages that a backend needs and a user may not have."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from typing import Any

from ..errors import MissingBackend
from ..types import Ability
from .blame import explained


def version_of(module: str, *distributions: str) -> str:
    """Version of an installed package, found without importing it; empty where it is not installed.

    A folder that holds type stubs alone is not the package.
    """
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None or spec.origin is None:
        return ""
    for distribution in distributions or (module,):
        for found in metadata.distributions(name=distribution):
            return found.version
    return "unknown"


def module(name: str, *, extra: str) -> Any:  # noqa: ANN401 - untyped packages
    """Import a package, or say which extra brings it.

    Raises:
        MissingBackend: It is not installed, or its libraries are not.
    """
    try:
        return importlib.import_module(name)
    except ImportError as e:
        told = explained(name.partition(".")[0], str(e), fix=f"pip install 'dlcv-deploy[{extra}]'")
        raise MissingBackend(f"{name} cannot be imported: {told.what}", fix=told.fix) from e


def absent(package: str, extra: str) -> Ability:
    """The ability of a backend whose package is not installed."""
    reason = f"{package} is not installed; pip install 'dlcv-deploy[{extra}]'"
    return Ability("", reason, reason)


def check_compiles(name: str, ability: Ability) -> None:
    """Refuse to compile where that is impossible."""
    if ability.no_compile:
        raise MissingBackend(
            f"{name} cannot compile here: {ability.no_compile}", fix="dlcv-deploy doctor shows what can"
        )


def check_runs(name: str, ability: Ability) -> None:
    """Refuse to load where nothing can be run."""
    if ability.no_run:
        raise MissingBackend(f"{name} cannot run here: {ability.no_run}", fix="dlcv-deploy doctor shows what can")
