"""Which local response normalization TensorRT's engines use: its own, this project's plugin, or the faster of both."""

from __future__ import annotations

import dataclasses as dc
import json
from collections.abc import Mapping
from typing import Any

from . import backends
from .engines import TENSORRT
from .errors import MissingBackend, SpecError
from .plugin.library import Library, check_serves, library_file, read_library
from .report import document
from .spec import BuildSpec
from .stages import Stages
from .types import ExportedModel, LeftAlone

TARGETS = TENSORRT
"""The backends that take plugins."""


@dc.dataclass(frozen=True, slots=True)
class Plugin:
    """The plugin's library for a build: the one ``given``, else one built by ``recipe`` for ``architectures``."""

    given: Library | None
    architectures: tuple[int, ...] = ()
    recipe: Mapping[str, Any] = dc.field(default_factory=dict)

    @classmethod
    def asked(cls, spec: BuildSpec, targets: tuple[str, ...]) -> Plugin | None:
        """What a build needs of it, found before any work; None where the engines use TensorRT's own LRN.

        Raises:
            SpecError: No target takes plugins; an INT8 race for two of them; no compiler for these architectures.
            MissingBackend: A race, and no GPU to run it on; no compiler to build the library with.
            ArtifactError: The library that was named is absent, damaged, or for other GPUs.
        """
        if spec.lrn == "native":
            return None
        takers = [name for name in targets if name in TARGETS]
        if not takers:
            raise SpecError(
                f"--lrn {spec.lrn} is for TensorRT, and the target is {', '.join(targets)}",
                fix="add --target tensorrt_rtx or --target tensorrt, or leave --lrn out",
            )
        if spec.lrn == "race":
            _check_race(spec, takers)
        if spec.lrn_library is None:
            from .plugin.build import DEFAULT_ARCHITECTURES

            architectures = spec.sm or DEFAULT_ARCHITECTURES
            return cls(None, architectures, _recipe(architectures))
        library = read_library(library_file(spec.lrn_library), str(spec.lrn_library))
        check_serves(library, major=None, sm=spec.sm)
        return cls(library)

    def key(self) -> object:
        """All that its bytes follow from."""
        return self.recipe if self.given is None else self.given.sha256

    def library(self, stages: Stages) -> bytes:
        """The library's file.

        Raises:
            ToolError: It cannot be compiled.
        """
        if self.given is not None:
            return self.given.data
        from .plugin.build import built_library

        return built_library(stages, self.architectures).data


def _recipe(architectures: tuple[int, ...]) -> Mapping[str, Any]:
    from .plugin.build import recipe

    try:
        return recipe(architectures)
    except MissingBackend as e:
        raise MissingBackend(e.what, fix=f"{e.fix}; or name a library built elsewhere: --lrn-library FILE") from e


def _check_race(spec: BuildSpec, takers: list[str]) -> None:
    for name in takers:
        if reason := backends.get(name).ability().no_run:
            raise MissingBackend(
                f"--lrn race times engines on a GPU, and {name} cannot run here: {reason}",
                fix="--lrn native or --lrn plugin, or build where the GPU is",
            )
    if spec.precision == "int8" and len(takers) > 1:
        raise SpecError(
            "an INT8 race decides which graph the bundle holds, and two targets may decide differently",
            fix=f"build a bundle for each: --target {takers[0]}, then --target {takers[1]}",
        )


def check_has_lrn(model: ExportedModel, spec: BuildSpec) -> None:
    """Refuse a request that can have no effect.

    Raises:
        SpecError: The network has no local response normalization.
    """
    from onnx import load_model_from_string

    if not any(node.op_type == "LRN" for node in load_model_from_string(model.onnx).graph.node):
        raise SpecError(
            f"--lrn {spec.lrn} was asked for, and {model.name} has no local response normalization",
            fix="leave --lrn out",
        )


@dc.dataclass(frozen=True, slots=True)
class PluginGraph:
    """A graph with plugin nodes, the LRN nodes that became such, and those that did not."""

    onnx: bytes
    lowered: tuple[str, ...]
    left_alone: tuple[LeftAlone, ...]


def plugin_graph(model: ExportedModel, stages: Stages) -> PluginGraph:
    """A graph as TensorRT is to read it, with the plugin's nodes in the place of LRN.

    Raises:
        SpecError: The plugin can take none of its LRN nodes.
    """

    def make() -> dict[str, bytes]:
        from onnx import load_model_from_string

        from .graph.lrn import lower_lrn

        result = lower_lrn(load_model_from_string(model.onnx))
        notes = {"lowered": result.lowered, "left_alone": document.plain(result.left_alone)}
        onnx = result.model.SerializeToString(deterministic=True)
        return {"model.onnx": onnx, "notes.json": json.dumps(notes).encode()}

    files = stages.run("lower", make, onnx=model.onnx)
    notes = json.loads(files["notes.json"])
    left_alone = tuple(LeftAlone(**entry) for entry in notes["left_alone"])
    if not notes["lowered"]:
        why = f": {left_alone[0].node}: {left_alone[0].reason}" if left_alone else ""
        raise SpecError(f"the plugin can compute no LRN of {model.name}{why}", fix="leave --lrn out")
    return PluginGraph(files["model.onnx"], tuple(notes["lowered"]), left_alone)
