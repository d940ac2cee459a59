"""Which layers lose by INT8, and the fewest multiply-adds to leave in floating point so that little enough is lost."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Callable, Sequence
from functools import partial

from ..errors import SpecError
from ..parity import compare
from ..progress import Advance, Progress, silent
from ..study import LayerDamage, Measure, Mixed, Point, Score, lost
from .score import score
from .tournament import Run, answer_of, scored

Quantize = Callable[[Sequence[str]], bytes]
"""The INT8 graph that some nodes, by name, make: those alone in INT8, or those alone left in floating point."""
SHARES = (0.95, 0.9, 0.75, 0.5, 0.25)
"""Near these shares of multiply-adds in INT8 the curve is measured in any case, and with all and none of the layers."""


@dc.dataclass(frozen=True, slots=True)
class Layer:
    """A node that can compute in INT8, its module's name in PyTorch, and its multiply-adds for one image."""

    node: str
    module: str
    multiply_adds: int


def sensitivity(
    layers: Sequence[Layer],
    quantize_only: Quantize,
    run: Run,
    reference: compare.Scores,
    labels: compare.Classes | None = None,
    *,
    progress: Progress = silent,
) -> tuple[LayerDamage, ...]:
    """The damage that each layer does alone, all others in floating point: the most damaging first.

    The SQNR of the logits ranks, not the flips, of which a single layer causes few. A layer that makes answers NaN or
    infinite comes first; one that cannot be in INT8 by itself comes last, with the reason.

    Args:
        layers: In the order of the graph.
        quantize_only: The graph with these nodes in INT8 and no others.
        run: Runs it on the held-out images.
        reference: Logits of the fp32 network, (N, classes).
        labels: (N,) classes, where they are known.
        progress: Told of each layer.

    Raises:
        SpecError: No layers.
    """
    if not layers:
        raise SpecError("the network has no layer that can be in INT8", fix="build it in fp16 or fp32")
    found = []
    with progress("sensitivity", len(layers)) as advance:
        for layer in layers:
            answer = answer_of(partial(quantize_only, (layer.node,)), run)
            alone = scored(layer.module, reference, answer, labels)
            found.append(LayerDamage(layer.node, layer.module, layer.multiply_adds, alone))
            advance(1)
    return tuple(sorted(found, key=lambda damage: -_damage(damage.score)))


def mixed(
    ranked: Sequence[LayerDamage],
    quantize_without: Quantize,
    run: Run,
    reference: compare.Scores,
    labels: compare.Classes | None = None,
    *,
    max_drop: float,
    multiply_adds: int | None = None,
    progress: Progress = silent,
) -> Mixed:
    """The mixture of INT8 and floating point that keeps the most multiply-adds in INT8 and loses at most ``max_drop``.

    Layers leave INT8 in the order of their damage alone per multiply-add. The first so many that suffice are found by
    a few points of the curve and bisection between them; then each of them, the largest first, is put back into INT8
    where the mixture still holds without it. Every mixture that is returned was itself measured. On a few hundred
    images one image is a good part of a point: the drop has an interval, and a mixture that holds may do so by luck.

    Args:
        ranked: What ``sensitivity`` found, of every layer in INT8.
        quantize_without: The INT8 graph with these nodes left in floating point.
        run: Runs it on the held-out images.
        reference: Logits of the fp32 network, (N, classes).
        labels: (N,) classes; without them, what must not exceed ``max_drop`` is the percent of images that flipped.
        max_drop: The most that may be lost, in points of top-1.
        multiply_adds: Of the whole network for one image, where there are more than the layers'.
        progress: Told of each mixture, of which there are at most as many as layers, their binary logarithm and 7.

    Raises:
        SpecError: A drop that cannot be asked for, or no layers.
    """
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise SpecError(f"no mixture can lose at most {max_drop} points", fix="--max-drop 0.1, or another from 0 on")
    if not ranked:
        raise SpecError("the network has no layer that can be in INT8", fix="build it in fp16 or fp32")
    layers = sorted(ranked, key=lambda layer: -_worth(layer))
    total = max(multiply_adds or 0, sum(layer.multiply_adds for layer in layers))
    with progress("mixed precision", len(layers) + len(layers).bit_length() + len(SHARES) + 2) as advance:
        tried = _Mixtures(layers, total, quantize_without, run, reference, labels, max_drop, advance)
        chosen = _search(tried)
    curve = sorted(tried.points.values(), key=lambda point: (-point.share_int8, point.float_nodes))
    least = min(curve, key=lambda point: (tried.lost(point), _damage(point.score), -point.share_int8))
    return Mixed(max_drop, tried.measure, chosen is not None, chosen or least, tuple(curve))


@dc.dataclass(slots=True)
class _Mixtures:
    """The mixtures measured so far, each once, by the nodes that they leave in floating point."""

    layers: Sequence[LayerDamage]
    total: int
    quantize_without: Quantize
    run: Run
    reference: compare.Scores
    labels: compare.Classes | None
    max_drop: float
    advance: Advance
    points: dict[frozenset[str], Point] = dc.field(default_factory=dict)

    def first(self, count: int) -> frozenset[str]:
        """The first so many layers in floating point."""
        return frozenset(layer.node for layer in self.layers[:count])

    def share(self, floats: frozenset[str]) -> float:
        """The share of multiply-adds that is in INT8 then."""
        kept = sum(layer.multiply_adds for layer in self.layers if layer.node not in floats)
        return kept / self.total if self.total else 0.0

    def at(self, floats: frozenset[str]) -> Point:
        """A mixture with its score."""
        if floats not in self.points:
            left = sorted((layer for layer in self.layers if layer.node in floats), key=lambda layer: layer.node)
            nodes, modules = tuple(layer.node for layer in left), tuple(layer.module for layer in left)
            self.points[floats] = Point(self.share(floats), nodes, modules, self._score(nodes))
            self.advance(1)
        return self.points[floats]

    def holds(self, floats: frozenset[str]) -> bool:
        """Whether a mixture loses little enough."""
        return self.lost(self.at(floats)) <= self.max_drop

    def lost(self, point: Point) -> float:
        """What a mixture loses, in what there is to tell it by."""
        return lost(point.score, self.measure)

    @property
    def measure(self) -> Measure:
        """What there is to tell losses by."""
        return "flips" if self.labels is None else "top-1"

    def _score(self, nodes: tuple[str, ...]) -> Score:
        name = "all layers in INT8" if not nodes else f"{len(nodes)} of {len(self.layers)} layers in floating point"
        try:
            onnx = self.quantize_without(nodes)
        except SpecError as e:
            if len(nodes) < len(self.layers):
                return Score(name, failed=e.what)
            return score(name, self.reference, self.reference, self.labels)  # nothing is left that could be in INT8
        return scored(name, self.reference, answer_of(lambda: onnx, self.run), self.labels)


def _search(tried: _Mixtures) -> Point | None:
    counts = range(len(tried.layers) + 1)
    nearest = (min(counts, key=lambda n: abs(tried.share(tried.first(n)) - share)) for share in SHARES)
    grid = sorted({0, *nearest, len(tried.layers)})
    held = [count for count in grid if tried.holds(tried.first(count))]
    if not held:
        return None
    high = held[0]
    low = max((count for count in grid if count < high), default=-1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tried.holds(tried.first(middle)) else (middle, high)
    floats = tried.first(high)
    for layer in sorted(tried.layers[:high], key=lambda layer: -layer.multiply_adds):
        if tried.holds(floats - {layer.node}):
            floats -= {layer.node}
    return tried.at(floats)


def _damage(score: Score) -> float:
    """Power of the noise over that of the signal, which adds up over layers; below 0 where it is not known."""
    if score.non_finite:
        return math.inf
    return -1.0 if score.sqnr_db is None else 10 ** (-score.sqnr_db / 10)


def _worth(layer: LayerDamage) -> float:
    """Damage that is undone for each multiply-add that leaves INT8."""
    return _damage(layer.score) / max(1, layer.multiply_adds)
