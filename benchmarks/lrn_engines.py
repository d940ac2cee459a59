"""AlexNet's and GoogLeNet's engines with the LRN plugin beside those with TensorRT's own LRN; see lrn_on_gpu.py."""

from __future__ import annotations

import dataclasses as dc
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda
from dlcv_deploy.build import sources_of, table_of
from dlcv_deploy.calibration.samples import drawn
from dlcv_deploy.engines import compiled, lower
from dlcv_deploy.errors import DeployError
from dlcv_deploy.latency.statistics import percentile
from dlcv_deploy.lrn import TARGETS, plugin_graph
from dlcv_deploy.progress import silent
from dlcv_deploy.proof import pixels_of
from dlcv_deploy.race import ALIKE, BATCHES, check_alike, times
from dlcv_deploy.spec import BuildSpec
from dlcv_deploy.stages import Stages
from dlcv_deploy.store import Store
from dlcv_deploy.subject import Subject
from dlcv_deploy.types import PRECISIONS, CompileOptions, Engine, Precision

NETWORKS: Mapping[str, str | None] = {
    "alexnet": "random",
    "googlenet": "random",
    "alexnet-cifar10": None,
    "googlenet-cifar10": None,
}
"""And their weights: the catalogue's where None is written. ImageNet's are no part of it, and time does not depend on
them; the small networks are trained, so that INT8's answers can be compared."""
_UNTRAINED_INT8 = 0.3
"""In the place of ``ALIKE``: with random weights, an LRN that is off by 1e-5 changes AlexNet's INT8 answers by 6 %, and
a window of 7 channels in the place of 5 by no more (ONNX Runtime). This finds a wrong layout and not a wrong window."""


@dc.dataclass(frozen=True)
class EngineRow:
    """One variant of one engine at one batch size; the wall clock's times, and the GPU's own without the copies."""

    network: str
    weights: str
    precision: str
    target: str
    lrn: str
    batch: int
    calls: int
    p50_ms: float | None
    p90_ms: float | None
    compute_p50_ms: float
    compute_p90_ms: float


def engines(library: bytes, *, runs: int, networks: Mapping[str, str | None] = NETWORKS) -> dict[str, Any]:
    """Their part of the document: what was timed, and what could not be, with the reason."""
    rows: list[EngineRow] = []
    not_run: list[dict[str, str]] = []

    def attempt(network: str, precision: Precision, target: str) -> None:
        try:
            rows.extend(raced(network, precision, target, library, stages, runs=runs, weights=networks[network]))
        except DeployError as e:
            not_run.append({"what": f"{network} in {precision} by {target}", "why": e.what})

    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(Store(Path(folder)), lambda line: None)
        for target in TARGETS:
            can = backends.get(target).ability()
            if reason := can.no_compile or can.no_run:
                not_run.append({"what": target, "why": reason})
                continue
            for network in networks:
                for precision in PRECISIONS:
                    attempt(network, precision, target)
    return {"engines": [dc.asdict(row) for row in rows], "not_run": not_run}


def raced(
    network: str,
    precision: Precision,
    target: str,
    library: bytes,
    stages: Stages,
    *,
    runs: int,
    weights: str | None,
) -> list[EngineRow]:
    """Both variants of an engine, compared and then timed in turn.

    Raises:
        DeployError: One cannot be built or run here, or their answers differ.
    """
    calib = "random" if weights and precision == "int8" else None
    spec = BuildSpec(network, precision, weights=weights, calib=calib, calib_count=16, targets=(target,))
    subject = Subject.load(spec)
    model = subject.exported(stages)
    table = table_of(subject, sources_of(spec, subject, silent), model, spec, stages, silent)
    own = lower(model, spec, table, stages).model.onnx
    suited = lower(model, spec, table, stages, through_lrn=precision == "int8").model
    options = CompileOptions(sm=(_cuda.capability(),) if target == "tensorrt_rtx" else ())

    def engine(variant: str, onnx: bytes, plugin: bytes = b"") -> Engine:
        return compiled(target, onnx, dc.replace(options, plugin=plugin), stages, note=f" {variant}")

    native = engine("native", own)
    judge = native if suited.onnx == own else engine("judge", suited.onnx)
    plugin = engine("plugin", plugin_graph(suited, stages).onnx, library)
    pixels = pixels_of(drawn(max(BATCHES), subject.preprocess.size), subject.preprocess, max(BATCHES))
    with ExitStack() as stack:
        start = backends.get(target).load
        sessions = {"native": stack.enter_context(start(native)), "plugin": stack.enter_context(start(plugin))}
        with start(judge) as of_judge:
            tolerance = _UNTRAINED_INT8 if calib else ALIKE[precision]
            check_alike(target, sessions["plugin"], of_judge, pixels, tolerance)
        walls = {(row.name, row.batch): row for row in times(sessions["native"], sessions["plugin"], pixels)}
        rows = []
        for batch in BATCHES:
            feeds = {sessions["native"].inputs[0].name: np.ascontiguousarray(pixels[:batch])}
            for lrn, spent in compute_ms(sessions, feeds, runs).items():
                wall, (p50, p90) = walls[lrn, batch], (percentile(spent, p) for p in (50, 90))
                about = (network, weights or "trained", precision, target, lrn, batch)
                rows.append(
                    EngineRow(*about, wall.calls, wall.p50_ms, wall.at(90).ms if wall.at(90) else None, p50, p90)
                )
    return rows


def compute_ms(sessions: Mapping[str, Any], feeds: Mapping[str, Any], runs: int) -> dict[str, tuple[float, ...]]:
    """The GPU's own time of each call, the sessions taking turns; as many calls as are counted come before."""
    found: dict[str, list[float]] = {name: [] for name in sessions}
    order = list(sessions)
    for _ in range(2 * runs):
        for name in order:
            found[name].append(sessions[name].run_timed(feeds).compute_ms)
        order.reverse()
    return {name: tuple(values[runs:]) for name, values in found.items()}
