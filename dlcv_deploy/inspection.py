"""What a build looks into besides accuracy: how far layers drift from fp32, whether engines agree with themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from . import backends
from .calibration.collect import observed
from .engines import TENSORRT, identity
from .parity.consistency import consistency
from .parity.drift import TensorError, outlier
from .parity.values import Consistency, Drift, LayerError
from .proof import measured_on, part_of, pixels_of
from .report import document
from .report.document import engine_name
from .sources import QUICK_SIDE
from .stages import Stages
from .types import Corrections, Engine, ExportedModel, Precision, Preprocess

if TYPE_CHECKING:
    from .backends.base import Array
    from .calibration.samples import Samples
    from .calibration.table import CalibrationTable
    from .graph.equalize import Floats
    from .graph.layers import Layer

QUICK_IMAGES, SLOW_IMAGES = 32, 8
"""Images that drift is measured on: of networks with inputs up to ``QUICK_SIDE``, and of larger ones."""
QUICK_ROWS, SLOW_ROWS = 5, 3
"""Different images that an engine's consistency is tried with."""
_VALUES = 1 << 23
"""Activations held at once of one graph: 32 MiB in float32."""


def drifts(
    exported: ExportedModel,
    lowered: ExportedModel,
    table: CalibrationTable | None,
    samples: Samples,
    pre: Preprocess,
    stages: Stages,
) -> tuple[Drift, ...]:
    """How far each layer of a build's FP16 or INT8 graph is from the fp32 graph's; none of a build in fp32.

    Args:
        exported: The fp32 graph.
        lowered: The same network in FP16 or INT8.
        table: What ``lowered`` was made with, where it is INT8.
        samples: Images, of which the first few are taken.
        pre: How they become inputs.
        stages: Those of the build.
    """
    if lowered.precision == "fp32":
        return ()
    corrections = Corrections() if table is None else table.corrections
    count = QUICK_IMAGES if pre.size <= QUICK_SIDE else SLOW_IMAGES

    def make() -> dict[str, bytes]:
        drift = drift_of(exported.onnx, lowered.onnx, pixels_of(samples, pre, count), corrections, lowered.precision)
        return {"drift.json": json.dumps(document.plain(drift)).encode()}

    files = stages.run(
        "drift",
        make,
        exported=exported.onnx,
        lowered=lowered.onnx,
        equalization=corrections.equalization,
        preprocess=pre,
        samples=samples.sha256(),
        machine=measured_on(),
    )
    return (document.read(Drift, json.loads(files["drift.json"]), "drift"),)


def drift_of(exported: bytes, lowered: bytes, images: Array, corrections: Corrections, precision: Precision) -> Drift:
    """Each layer of an FP16 or INT8 graph beside the fp32 graph's, on inputs (N, ...); both run on this CPU.

    Channels that the equalization divided by a factor are multiplied by it before they are compared. As many images
    run at once as keep the activations of a graph small.
    """
    from onnx import load_model_from_string

    from .graph.equalize import divisors
    from .graph.index import types
    from .graph.layers import INPUT, counterparts, layers

    model, other = load_model_from_string(exported), load_model_from_string(lowered)
    whole = layers(model)
    there = counterparts(model, other, tuple(layer.tensor for layer in whole))
    places = {old: new for new, old in enumerate(i for i, layer in enumerate(whole) if layer.tensor in there)}
    matched = [whole[old] for old in places]
    reads = [_matched(layer, whole, places) for layer in matched]
    shapes = types(model)
    values = sum(int(np.prod([int(n or 1) for n in (shapes[layer.tensor][1] or ())[1:]])) for layer in matched)
    errors = _errors(
        observed(exported, [layer.tensor for layer in matched]),
        observed(lowered, list(there.values())),
        there,
        divisors(model, corrections.equalization),
        images,
        max(1, min(64, _VALUES // max(1, values))),
    )
    found = [errors[layer.tensor] for layer in matched]
    worst = outlier(found, reads)
    return Drift(
        f"{precision} graph",
        len(images),
        tuple(
            LayerError(layer.node, layer.module, layer.op_type, error.sqnr_db, error.cosine)
            for layer, error in zip(matched, found, strict=True)
            if layer.op_type != INPUT or error.noise != 0
        ),
        "" if worst is None else matched[worst].module,
        len(whole) - len(matched),
    )


def _matched(layer: Layer, whole: tuple[Layer, ...], places: Mapping[int, int]) -> tuple[int, ...]:
    """The places of the layers that a layer reads; through one that has no counterpart, of those that it reads."""
    through = (
        (places[i],) if i in places else _matched(whole[i], whole, places)  # in a graph without circles
        for i in layer.reads
    )
    return tuple(dict.fromkeys(place for found in through for place in found))


def _errors(
    exact: bytes,
    lowered: bytes,
    there: Mapping[str, str],
    divided: Mapping[str, Floats],
    images: Array,
    rows: int,
) -> dict[str, TensorError]:
    """The error of each tensor over all images, ``rows`` at a time."""
    errors = dict.fromkeys(there, TensorError())
    with part_of(exact) as one, part_of(lowered) as other:
        name = one.inputs[0].name
        for start in range(0, len(images), rows):
            batch = images[start : start + rows]
            expected, found = {name: batch, **one.run({name: batch})}, {name: batch, **other.run({name: batch})}
            for tensor, own in there.items():
                y = np.asarray(found[own], np.float64)
                if tensor in divided:
                    y = y * divided[tensor].reshape(1, -1, *[1] * (y.ndim - 2))
                errors[tensor] = errors[tensor].merge(TensorError.of(expected[tensor], y))
    return errors


def consistencies(
    engines: tuple[Engine, ...], precision: Precision, samples: Samples, pre: Preprocess, stages: Stages
) -> tuple[Consistency, ...]:
    """Whether each engine agrees with itself (``parity.consistency``); why not tried, of one that cannot run here.

    The largest batch is tried of small networks, and of engines of TensorRT, which are compiled for a range of batches.
    """
    quick = pre.size <= QUICK_SIDE

    def make() -> dict[str, bytes]:
        images = pixels_of(samples, pre, QUICK_ROWS if quick else SLOW_ROWS)
        found = [_consistency(engine, precision, images, quick=quick) for engine in engines]
        return {"consistency.json": json.dumps(document.plain(found)).encode()}

    files = stages.run(
        "consistency",
        make,
        engines=identity(engines),
        precision=precision,
        preprocess=pre,
        samples=samples.sha256(),
        machine=measured_on(),
    )
    found = json.loads(files["consistency.json"])
    return tuple(document.read(Consistency, value, "consistency") for value in found)


def _consistency(engine: Engine, precision: Precision, images: Array, *, quick: bool) -> Consistency:
    name, backend = engine_name(precision, engine.backend), backends.get(engine.backend)
    if reason := backend.ability().no_run:
        return Consistency(name, (), reason)
    device = engine.backend in TENSORRT
    return consistency(
        name,
        lambda: backend.load(engine),
        images,
        precision=precision,
        edges=quick or device,
        exact=not device,  # a GPU's kernels may share work out between blocks that finish in any order
        shared=not device,  # a session there has one stream and one set of buffers
    )


def inconsistent(found: tuple[Consistency, ...]) -> tuple[str, ...]:
    """A warning for each check that an engine failed."""
    return tuple(
        f"{one.engine} does not agree with itself ({check.name}): {check.said}" for one in found for check in one.failed
    )
