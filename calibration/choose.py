"""Calibrations tried on held-out images: which is closest, how much the images matter, which layers stay in float."""

from __future__ import annotations

import dataclasses as dc
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import load_model_from_string

from ..errors import SpecError
from ..graph.macs import multiply_adds
from ..graph.modules import module_of
from ..graph.plan import PRODUCTS
from ..graph.qdq import quantize
from ..latency.measure import Effort, measure
from ..latency.statistics import percentile
from ..parity.compare import Scores
from ..progress import Progress, silent
from ..study import LayerDamage, Mixed, QuantizationStudy, Robustness, Tournament, lost
from ..types import BATCH, Corrections
from .calibrate import Observed, Runtimes, Subject, calibrate, first_inputs, observe, tabulated
from .recipe import PRESETS, Recipe
from .samples import Samples
from .sensitivity import Layer, mixed, sensitivity
from .subset import held_out
from .table import CalibrationTable
from .tournament import robustness, tournament

if TYPE_CHECKING:
    from ..backends.base import Session

METHODS = ("max", "mse", "entropy", "percentile:99.99", "percentile:99.999")
"""Tried in a tournament with the corrections of ``recipe``."""


@dc.dataclass(frozen=True, slots=True)
class Trials:
    """What to try: methods and corrections, ``robustness`` random subsets, precisions up to a loss of ``max_drop``."""

    tournament: bool = False
    robustness: int | None = None
    max_drop: float | None = None

    @property
    def asked(self) -> bool:
        """Whether anything is to be tried."""
        return self.tournament or self.robustness is not None or self.max_drop is not None


def choose(
    subject: Subject,
    samples: Samples,
    recipe: Recipe,
    trials: Trials,
    runtimes: Runtimes,
    *,
    progress: Progress = silent,
) -> CalibrationTable:
    """Calibrate as the trials on held-out images advise; the table holds what was tried.

    A quarter of the images is held out, and candidates are calibrated on the others; what won is then calibrated on all
    of them.

    Args:
        subject: The network.
        samples: The images; with labels, losses are of top-1, without, of agreement.
        recipe: What is not tried stays as it is here.
        trials: What to try.
        runtimes: What runs graphs.
        progress: Told of each step.

    Raises:
        SpecError: As ``calibrate``; images too few to hold some out.
        ToolError: As ``calibrate``; no candidate is of use.
        ArtifactError: An image cannot be read.
    """
    if not trials.asked:
        return calibrate(subject, samples, recipe, runtimes, progress=progress)
    kept, out = held_out(samples)
    judge = _Judge(subject, kept, out, runtimes, progress)
    study = QuantizationStudy(out.source)
    if trials.tournament:
        found, recipe = judge.tournament(recipe)
        study = dc.replace(study, tournament=found)
    if trials.robustness is not None:
        study = dc.replace(study, robustness=judge.robustness(recipe, trials.robustness))
    float_nodes: tuple[str, ...] = ()
    if trials.max_drop is not None:
        layers, chosen = judge.mixture(recipe, trials.max_drop)
        study = dc.replace(study, sensitivity=layers, mixed=chosen)
        float_nodes = chosen.chosen.float_nodes
    table = calibrate(subject, samples, recipe, runtimes, float_nodes=float_nodes, progress=progress)
    return dc.replace(table, study=study)


def candidates(recipe: Recipe) -> dict[str, Recipe]:
    """What a tournament tries, the cheapest first: the presets, and every method with the corrections of ``recipe``."""
    named = {f"{name}, {each.method}": each for name, each in PRESETS.items()}
    best = named.popitem()
    named |= {f"as asked, {method}": dc.replace(recipe, method=method) for method in METHODS}
    named |= dict([best])
    return {name: each for i, (name, each) in enumerate(named.items()) if each not in list(named.values())[:i]}


class _Judge:
    """Scores graphs on the held-out images; what was observed for one candidate serves the next."""

    def __init__(self, subject: Subject, kept: Samples, out: Samples, runtimes: Runtimes, progress: Progress) -> None:
        self._subject, self._kept, self._runtimes, self._progress = subject, kept, runtimes, progress
        self._labels = out.labels
        self._inputs = first_inputs(out, subject.preprocess, len(out))
        self._seen: dict[bool, Observed] = {}
        self._reference = self._run(subject.model.onnx, runtimes.whole)

    def tournament(self, recipe: Recipe) -> tuple[Tournament, Recipe]:
        """Every candidate's score, and the winner."""
        tried = candidates(recipe)
        makers = {name: functools.partial(self._made, each) for name, each in tried.items()}
        found = tournament(makers, self._int8, self._reference, self._labels, progress=self._progress)
        return found, tried[found.winner]

    def _made(self, recipe: Recipe) -> bytes:
        return self._graph(self._table(recipe))

    def robustness(self, recipe: Recipe, k: int) -> Robustness:
        """How much the images matter."""

        def made(subset: Samples) -> tuple[bytes, dict[str, float]]:
            table = calibrate(self._subject, subset, recipe, self._runtimes)
            return self._graph(table), dict(table.amax)

        return robustness(made, self._kept, k, self._int8, self._reference, self._labels, progress=self._progress)

    def mixture(self, recipe: Recipe, max_drop: float) -> tuple[tuple[LayerDamage, ...], Mixed]:
        """Each layer's damage alone, and the mixture that keeps within ``max_drop``."""
        table = self._table(recipe)
        layers = _layers(self._subject, table)
        plain = dc.replace(table.corrections, gain={}, bias={}, rounding={}, float_sums=True)  # those suit all at once

        def only(nodes: Sequence[str]) -> bytes:
            rest = tuple(layer.node for layer in layers if layer.node not in nodes)
            return self._graph(table, dc.replace(plain, float_nodes=rest))

        made, times = list[str](), dict[frozenset[str], float]()

        def without(nodes: Sequence[str]) -> bytes:
            made[:] = nodes
            if len(nodes) == len(layers):
                return self._subject.model.onnx
            return self._graph(table, dc.replace(table.corrections, float_nodes=tuple(nodes)))

        def timed(onnx: bytes) -> Scores:
            with self._runtimes.int8(onnx) as session:
                logits, times[frozenset(made)] = self._answers(session), self._latency_ms(session)
            return logits

        judged = (self._reference, self._labels)
        ranked = sensitivity(layers, only, self._int8, *judged, progress=self._progress)
        total = sum(multiply_adds(load_model_from_string(self._subject.model.onnx)).values())
        found = mixed(ranked, without, timed, *judged, max_drop=max_drop, multiply_adds=total, progress=self._progress)
        curve = tuple(dc.replace(p, latency_ms=times.get(frozenset(p.float_nodes))) for p in found.curve)
        chosen = dc.replace(found.chosen, latency_ms=times.get(frozenset(found.chosen.float_nodes)))
        return ranked, _some_int8(dc.replace(found, chosen=chosen, curve=curve))

    def _table(self, recipe: Recipe) -> CalibrationTable:
        if recipe.equalize not in self._seen:
            self._seen[recipe.equalize] = observe(
                self._subject, self._kept, self._runtimes, equalized=recipe.equalize, progress=self._progress
            )
        return tabulated(self._subject, self._kept, self._seen[recipe.equalize], recipe, self._runtimes)

    def _graph(self, table: CalibrationTable, made: Corrections | None = None) -> bytes:
        return quantize(self._subject.model, table.amax, made or table.corrections).model.onnx

    def _int8(self, onnx: bytes) -> Scores:
        return self._run(onnx, self._runtimes.int8)

    def _run(self, onnx: bytes, load: Callable[[bytes], Session]) -> Scores:
        with load(onnx) as session:
            return self._answers(session)

    def _answers(self, session: Session) -> Scores:
        (source,), name, step = session.inputs, session.outputs[0].name, BATCH.opt
        parts = range(0, len(self._inputs), step)
        return np.concatenate([session.run({source.name: self._inputs[i : i + step]})[name] for i in parts])

    def _latency_ms(self, session: Session) -> float:
        """Median time of one image in a few calls: what a mixture costs, roughly."""
        feeds = {session.inputs[0].name: self._inputs[:1]}
        run = measure({"": lambda: session.run(feeds)}, Effort(limit_s=0, rounds=7))
        return 1000 * percentile(run.seconds(""), 50)


def _some_int8(found: Mixed) -> Mixed:
    """What was found, or, where nothing is in INT8 then, the mixture with INT8 that loses the least: not reached."""
    if found.chosen.share_int8:
        return found
    some = (point for point in found.curve if point.share_int8)
    best = min(some, key=lambda point: (lost(point.score, found.measure), -point.share_int8))
    return dc.replace(found, reached=False, chosen=best)


def _layers(subject: Subject, table: CalibrationTable) -> tuple[Layer, ...]:
    """The convolutions and matrix products that the table puts into INT8, in the order of the graph."""
    graph = load_model_from_string(subject.model.onnx)
    quantized = set(quantize(subject.model, table.amax, table.corrections).quantized)
    macs = multiply_adds(graph)
    found = tuple(
        Layer(node.name, module_of(node), macs[node.name])
        for node in graph.graph.node
        if node.op_type in PRODUCTS and node.name in quantized
    )
    if not found:
        raise SpecError("the network has no layer that can be in INT8", fix="build it in fp16 or fp32")
    return found
