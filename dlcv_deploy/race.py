"""The race between TensorRT's own LRN and the plugin: both built, held against each other, timed in one run."""

from __future__ import annotations

import dataclasses as dc
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from . import backends
from .engines import Compiled, Lowered, between, compiled, identity, lower, said_of
from .errors import ToolError
from .latency.measure import Effort, latency
from .latency.values import Latency
from .lrn import TARGETS, PluginGraph, plugin_graph
from .plugin.network import differs, feeds, network
from .progress import Progress, silent
from .proof import measured_on, pixels_of
from .report import document
from .spec import BuildSpec
from .stages import Stages
from .types import CompileOptions, Engine, ExportedModel, Precision, Preprocess

if TYPE_CHECKING:
    from .backends.base import Array, Session
    from .calibration.table import CalibrationTable

BATCHES = (1, 10)
ALIKE: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""The greatest L2 norm of the difference of two variants' answers, over that of the answers.

It is wide for INT8, where values on the edge of a step fall to the other one: AlexNet's graph on ONNX Runtime with LRNs
that are off by 1e-5 answers 0.6 % otherwise with CIFAR-10's weights, and 6 % with drawn ones. So the kernels themselves
are held against float64, step by step, before a network's answers are compared.
"""
_DTYPES: Mapping[Precision, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_EFFORT = Effort(limit_s=5.0)


def raced(
    spec: BuildSpec,
    model: ExportedModel,
    table: CalibrationTable | None,
    options: Mapping[str, CompileOptions],
    library: bytes,
    stages: Stages,
    *,
    pre: Preprocess,
    progress: Progress,
) -> Compiled:
    """An engine for each target, those of TensorRT with the faster LRN.

    In fp32 and fp16 both variants are of one graph. In INT8 each runs on the graph that suits it, for anything else
    would decide the race beforehand: TensorRT's own LRN, which computes in floating point, on that without Q/DQ pairs
    before LRN, the plugin, which takes int8, on that with them. The winner's is the bundle's graph, so one build races
    one target in INT8. What the plugin answers is always held against TensorRT's own LRN on the plugin's graph, which
    in INT8 is a third engine: it judges and is not timed.

    Raises:
        ToolError: The plugin's kernels are wrong, or its answers are not those of TensorRT's own LRN.
    """
    own = lower(model, spec, table, stages)
    suited = lower(model, spec, table, stages, through_lrn=True) if spec.precision == "int8" else own
    read, other = between(own, stages), between(suited, stages)
    graph = plugin_graph(other.model, stages)
    portable, kept, graphs = own, dict[str, Engine](), dict[str, bytes]()
    uses: dict[str, document.Lrn] = {}
    for name in (name for name in options if name in TARGETS):
        runners = _runners(name, read, other, graph, options[name], library, stages)
        prove = functools.partial(check_computes, name, spec.precision, dc.replace(options[name], plugin=library))
        rows = _run(runners, spec.precision, prove, pre, stages, progress)
        choice = faster(rows)
        if choice == "plugin":
            portable, graphs[name] = suited, graph.onnx
            kept[name] = said_of(runners[choice], other, suited, graph.lowered)
            uses[name] = document.Lrn(choice, graph.lowered, graph.left_alone, rows)
        else:
            graphs[name] = read.model.onnx
            kept[name] = said_of(runners[choice], read, own)
            uses[name] = document.Lrn(choice, race=rows)
    for name, told in options.items():
        if name not in kept:
            graphs[name] = portable.model.onnx
            kept[name] = compiled(name, graphs[name], told, stages)
    return Compiled(portable, tuple(kept[name] for name in options), uses, graphs)


def _runners(
    name: str,
    own: Lowered,
    suited: Lowered,
    graph: PluginGraph,
    options: CompileOptions,
    library: bytes,
    stages: Stages,
) -> dict[str, Engine]:
    """The two variants, and the engine that judges the plugin's."""
    native = compiled(name, own.model.onnx, options, stages, note=" native")
    same = own.model.onnx == suited.model.onnx
    judge = native if same else compiled(name, suited.model.onnx, options, stages, note=" judge")
    plugin = compiled(name, graph.onnx, dc.replace(options, plugin=library), stages, note=" plugin")
    return {"native": native, "plugin": plugin, "judge": judge}


def _run(
    runners: Mapping[str, Engine],
    precision: Precision,
    prove: Callable[[], None],
    pre: Preprocess,
    stages: Stages,
    progress: Progress,
) -> tuple[Latency, ...]:
    """The times of both variants, at each batch size, once ``prove`` has let the plugin's kernels pass."""
    engines = tuple(runners.values())
    name = engines[0].backend

    def make() -> dict[str, bytes]:
        from .calibration.samples import drawn

        prove()
        most = max(BATCHES)
        pixels = pixels_of(drawn(most, pre.size), pre, most)
        with ExitStack() as stack:
            load = backends.get(name).load
            native, plugin = (stack.enter_context(load(runners[each])) for each in ("native", "plugin"))
            with load(runners["judge"]) as judge:
                check_alike(name, plugin, judge, pixels, ALIKE[precision])
            rows = times(native, plugin, pixels, progress)
        return {"race.json": json.dumps(document.plain(rows)).encode()}

    files = stages.run(
        f"race {name}", make, engines=identity(engines), precision=precision, preprocess=pre, machine=measured_on()
    )
    return tuple(document.read(Latency, row, "race") for row in json.loads(files["race.json"]))


def check_computes(name: str, precision: Precision, options: CompileOptions) -> None:
    """Refuse a plugin whose kernels, in a small network of this precision, do not give what float64 gives.

    Raises:
        ToolError: Says which operator is off, and by how much.
    """
    backend, dtype = backends.get(name), _DTYPES[precision]
    with backend.load(backend.compile(network(dtype), dc.replace(options, timing_cache=""))) as session:
        wrong = differs(session.run(feeds()), dtype)
    if wrong:
        raise ToolError(f"the LRN plugin on {name} is wrong: {wrong}", fix="build with --lrn native, and report this")


def check_alike(name: str, plugin: Session, judge: Session, pixels: Array, tolerance: float) -> None:
    """Refuse a plugin that answers otherwise than TensorRT's own LRN on the same graph.

    Raises:
        ToolError: Some output differs by more than ``tolerance``, or is finite where the other is not.
    """
    for batch in BATCHES:
        feeds = {judge.inputs[0].name: np.ascontiguousarray(pixels[:batch])}
        expected, answers = judge.run(feeds), plugin.run(feeds)
        for output, values in expected.items():
            error = _error(answers[output], values)
            if not error <= tolerance:
                raise ToolError(
                    f"the LRN plugin on {name} does not answer like TensorRT's own LRN: {output!r} differs by "
                    f"{100 * error:.3g} % at batch {batch}, and {100 * tolerance:g} % is what rounding explains",
                    fix="build with --lrn native, and report this",
                )


def _error(answers: Array, expected: Array) -> float:
    """L2 norm of the difference over that of what is expected; infinite where one of both alone is finite."""
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(answers)):
        return math.inf
    wanted = expected[finite].astype(np.float64)
    difference = float(np.linalg.norm(answers[finite].astype(np.float64) - wanted))
    size = float(np.linalg.norm(wanted))
    return difference / size if size else math.inf if difference else 0.0


def times(native: Session, plugin: Session, pixels: Array, progress: Progress = silent) -> tuple[Latency, ...]:
    """Both variants at each batch size, in turn."""

    def first(batch: int) -> Mapping[str, Array]:
        return {native.inputs[0].name: np.ascontiguousarray(pixels[:batch])}

    sessions = {"native": native, "plugin": plugin}
    return latency(sessions, first, BATCHES, effort=_EFFORT, progress=progress).rows


def faster(rows: Sequence[Latency]) -> document.LrnChoice:
    """The variant with the smaller p50, batch sizes counting alike (geometric mean); TensorRT's own where both tie."""
    p50 = {(row.name, row.batch): row.p50_ms for row in rows if row.p50_ms}
    ratios = [p50["plugin", b] / p50["native", b] for b in BATCHES if {("plugin", b), ("native", b)} <= p50.keys()]
    return "plugin" if math.prod(ratios) < 1 else "native"
