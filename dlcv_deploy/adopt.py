"""The way over from TensorRT's calibrators: their caches as tables of this tool, and its tables as caches."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic import write_whole
from .calibration.caches import (
    METHOD,
    Matched,
    TrtCache,
    from_cache,
    of_equalized,
    read_names,
    read_trt_cache,
    write_modelopt,
    write_trt_cache,
)
from .calibration.recipe import recipe
from .calibration.table import CalibrationTable
from .digest import digest
from .errors import ArtifactError, SpecError
from .progress import Progress
from .sources import open_calibration, recipe_of
from .spec import BuildSpec
from .stages import Stages
from .subject import Subject, graph_sha256

if TYPE_CHECKING:
    from onnx import ModelProto


@dc.dataclass(frozen=True, slots=True)
class CacheFiles:
    """Files of other tools that a calibration reads and writes besides its table."""

    from_trt: Path | None = None
    names: Path | None = None
    to_trt: Path | None = None
    to_modelopt: Path | None = None

    def check(self, spec: BuildSpec) -> None:
        """Refuse what does not go together.

        Raises:
            SpecError: Neither images nor a cache; names without a cache; a cache and corrections; ranges of an
                equalized network for a cache.
        """
        if self.from_trt is None and spec.calib is None:
            raise SpecError(
                "nothing is given to calibrate on",
                fix="--calib DIR with some hundred typical images, or --from-trt-cache FILE",
            )
        if self.from_trt is None and self.names is not None:
            raise SpecError("--trt-names says what names in a cache mean", fix="add --from-trt-cache FILE")
        said = dc.replace(spec, method=None).calibration_words()  # a method may fill in what the cache lacks
        if self.from_trt is not None and said:
            raise SpecError(
                f"{said} says how to calibrate, and the cache's ranges are taken as they are",
                fix="leave it out, or leave --from-trt-cache out",
            )

        if (self.to_trt or self.to_modelopt) and self.from_trt is None and recipe_of(spec).equalize:
            raise of_equalized()

    def export(self, table: CalibrationTable) -> None:
        """Write a table's ranges for TensorRT up to 10 and for ModelOpt, where that is asked for.

        Raises:
            SpecError: The ranges hold for an equalized network alone.
        """
        for path, write in ((self.to_trt, write_trt_cache), (self.to_modelopt, write_modelopt)):
            if path is not None:
                write_whole(path, write(table).encode())


def adopt(
    files: CacheFiles, spec: BuildSpec, subject: Subject, stages: Stages, progress: Progress
) -> tuple[CalibrationTable, Matched]:
    """The table of a TensorRT cache's ranges; says what matched, and each name in the cache that did not.

    Ranges that the cache lacks are measured on the images of ``spec``, without corrections, where it has some.

    Raises:
        ArtifactError: A file is absent or damaged; the cache has no range for any tensor that needs one, or lacks
            some, and there are no images.
    """
    from onnx import load_model_from_string

    from .graph.qdq import quantizable

    assert files.from_trt is not None
    name, data = files.from_trt.name, _read(files.from_trt)
    cache = read_trt_cache(data, name)
    names = {} if files.names is None else read_names(_read(files.names), files.names.name)
    model = subject.exported(stages)
    proto = load_model_from_string(model.onnx)
    tensors = quantizable(proto)
    matched = from_cache(cache, proto, tensors, names)
    stages.say(
        f"{name}: {matched.matched} of {len(cache.scales)} names mean tensors of {model.name}; "
        f"{len(matched.amax)} of the {len(tensors)} ranges that INT8 needs are theirs"
    )
    for unmatched in matched.unmatched:
        stages.say(f"  not matched: {unmatched}")
    _check(matched, cache, name, tensors, proto, has_images=spec.calib is not None)
    table = CalibrationTable(
        model=model.name,
        weights_sha256=model.weights_sha256,
        graph_sha256=graph_sha256(model),
        preprocess=subject.preprocess,
        method=METHOD,
        samples=f"scales of the TensorRT cache {name} ({cache.version})",
        samples_sha256=digest(cache=data, names=names),
        images=0,
        random=False,
        amax=matched.amax,
    )
    if matched.missing:
        samples = open_calibration(spec, subject.preprocess, spec.calib_count, subject.classes, progress)
        plain = recipe("fast", spec.method, {"pixels": False})
        table = _filled(table, subject.calibrated(model, samples, plain, stages, progress), matched.missing)
    return table, matched


def _check(
    matched: Matched, cache: TrtCache, name: str, tensors: Sequence[str], model: ModelProto, *, has_images: bool
) -> None:
    example = '--trt-names FILE.json, as {"images": "input"} where the cache calls the input images'
    if not matched.amax:
        raise ArtifactError(
            f"no name in {name} means a tensor of this network that needs a range; the first is "
            f"{next(iter(cache.scales))!r}",
            fix=f"{example}; the tensors are {_described(tensors, model)}",
        )
    if matched.missing and not has_images:
        others = f"; names in it that mean no tensor: {', '.join(matched.unmatched[:3])}" if matched.unmatched else ""
        raise ArtifactError(
            f"{name} has no range for {len(matched.missing)} of the {len(tensors)} tensors that need one: "
            f"{_described(matched.missing, model)}{others}",
            fix=f"{example}; or --calib DIR too, to measure them on images",
        )


def _filled(table: CalibrationTable, measured: CalibrationTable, missing: tuple[str, ...]) -> CalibrationTable:
    return dc.replace(
        table,
        method=f"{METHOD} and {measured.method}",
        samples=f"{table.samples}; {', '.join(missing)} measured on {measured.samples}",
        samples_sha256=digest(cache=table.samples_sha256, measured=measured.samples_sha256),
        images=measured.images,
        random=measured.random,
        amax={**table.amax, **{tensor: measured.amax[tensor] for tensor in missing}},
        statistics={tensor: seen for tensor, seen in measured.statistics.items() if tensor in missing},
        versions=measured.versions,
    )


def _described(tensors: Iterable[str], model: ModelProto, most: int = 8) -> str:
    """Tensors with the operators and modules that they stem from."""
    from .graph.modules import path_of

    nodes = {tensor: node for node in model.graph.node for tensor in node.output}
    words = []
    for tensor in tensors:
        node = nodes.get(tensor)
        if node is None:
            words.append(f"{tensor} (what the network reads)")
        else:
            words.append(f"{tensor} ({node.op_type}{f' of {path_of(node)}' if path_of(node) else ''})")
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise ArtifactError(f"{path} cannot be read: {e.strerror}", fix="give a file that is there") from e
