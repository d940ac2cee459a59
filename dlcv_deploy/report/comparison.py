"""Two reports held against each other, engine by engine: A is the old one, B the new.

Only what can be compared is. Accuracy: on the same source of images, as many, with as many crops, averaged alike.
Latency: as a share of the PyTorch original's in the same run where both ran the same original on the same version of
PyTorch and as many threads, since a machine is not the same from one day to the next and what slows both cancels; else
in milliseconds on one machine; else not at all. Shares of two machines compare what each gains over PyTorch there.
"""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Iterator, Mapping

from ..latency.values import LatencyReport
from ..parity.compare import NONE
from ..parity.gate import failures
from ..parity.statistics import Z95, loss
from ..parity.values import Flip, Leg, ParityReport
from .changes import AccuracyChange, Basis, Comparison, LatencyChange, SizeChange
from .document import REFERENCE, Report, engine_name


def between(a: Report, b: Report, names: tuple[str, str], only: tuple[str, ...] = ()) -> Comparison:
    """What became of A's engines in B.

    Args:
        a: The old report.
        b: The new one.
        names: What they are called.
        only: Backends, where not all are to be compared.
    """
    found = pairs(a, b, only)
    engines = {
        name: (engine_name(a.precision, one), engine_name(b.precision, other)) for name, (one, other) in found.items()
    }
    sizes = [{engine.backend: sum(file.size_bytes for file in engine.files) for engine in r.engines} for r in (a, b)]
    asked = [engine.backend for engine in a.engines if not only or engine.backend in only]
    paired = {one for one, _ in found.values()}
    return Comparison(
        *names,
        tuple(engines),
        tuple(row for name, legs in engines.items() for row in accuracy_changes(a, b, name, legs)),
        tuple(row for name, legs in engines.items() for row in latency_changes(a, b, name, legs)),
        tuple(_size(name, sizes[0][one], sizes[1][other]) for name, (one, other) in found.items()),
        lacking=tuple(engine_name(a.precision, backend) for backend in asked if backend not in paired),
        notes=tuple(_notes(a, b, found, only)),
        broken=tuple(dict.fromkeys(said for parity in b.parity for said in failures(parity))),
    )


def _size(name: str, a: int, b: int) -> SizeChange:
    return SizeChange(name, (a, b), b / a if a else None)


def _notes(a: Report, b: Report, found: Mapping[str, tuple[str, str]], only: tuple[str, ...]) -> Iterator[str]:
    if a.model != b.model:
        yield f"A is of {a.model}, B of {b.model}"
    elif a.weights.sha256 != b.weights.sha256:
        yield f"the weights are not the same: {a.weights.source} in A, {b.weights.source} in B"
    paired = {other for _, other in found.values()}
    new = [e.backend for e in b.engines if e.backend not in paired and (not only or e.backend in only)]
    if new:
        yield f"only B has {', '.join(new)}"
    if a.latency is None or b.latency is None:
        return
    if a.latency.machine != b.latency.machine:
        yield (
            f"timed on two machines, {a.latency.machine} and {b.latency.machine}: milliseconds do not compare,"
            " and the ratio is of what each engine gains over PyTorch on its own"
        )
    if a.latency.threads != b.latency.threads:
        yield f"timed on {a.latency.threads} threads in A and {b.latency.threads} in B: latency does not compare"
    for side, latency in (("A", a.latency), ("B", b.latency)):
        if reasons := latency.validity.reasons:
            more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
            yield f"the latency of {side} is not to be trusted: {reasons[0]}{more}"


def pairs(a: Report, b: Report, only: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    """The backends to compare, by the engine's name: that of both, or "A's -> B's" where those differ.

    Engines of one backend belong together, whatever their precision. Where A and B have one engine each these do too.
    """
    backends = [[e.backend for e in side.engines if not only or e.backend in only] for side in (a, b)]
    both = [(name, name) for name in backends[0] if name in backends[1]]
    if not both and len(backends[0]) == len(backends[1]) == 1:
        both = [(backends[0][0], backends[1][0])]
    found = {}
    for one, other in both:
        names = engine_name(a.precision, one), engine_name(b.precision, other)
        found[names[0] if names[0] == names[1] else " -> ".join(names)] = one, other
    return found


def accuracy_changes(a: Report, b: Report, engine: str, names: tuple[str, str]) -> Iterator[AccuracyChange]:
    """How an engine's accuracy changed on each set of images that both reports measured it on; one row at least."""
    unlike = _unlike(a, b)
    why = "A measured no parity" if not a.parity else "B measured no parity" if not b.parity else ""
    found = False
    for one in a.parity:
        other = next((parity for parity in b.parity if _setting(parity) == _setting(one)), None)
        if other is None:
            continue
        legs = _leg(one, names[0]), _leg(other, names[1])
        if legs[0] is None or legs[1] is None:
            why = f"{'A' if legs[0] is None else 'B'} did not run it"
            continue
        found = True
        yield _accuracy(engine, (one, legs[0]), (other, legs[1]), unlike)
    if not found:
        yield AccuracyChange(engine, why=why or "A and B were measured on different images, crops or averages")


def _setting(parity: ParityReport) -> tuple[object, ...]:
    return parity.source, parity.images, parity.crops, parity.average, parity.labelled


def _leg(parity: ParityReport, name: str) -> Leg | None:
    return next((leg for leg in parity.legs if leg.name == name and not leg.not_run), None)


def _unlike(a: Report, b: Report) -> str:
    if a.model != b.model or a.weights.sha256 != b.weights.sha256:
        return "the originals are other networks or have other weights"
    return "" if a.preprocess == b.preprocess else "the originals see other pixels"


def _accuracy(engine: str, a: tuple[ParityReport, Leg], b: tuple[ParityReport, Leg], unlike: str) -> AccuracyChange:
    (one, old), (_, new) = a, b
    row = AccuracyChange(
        engine, one.source, one.images, one.crops, (old.top1, new.top1), (old.top5, new.top5), (old.drop, new.drop)
    )
    if old.top1 is not None and new.top1 is not None:
        row = dc.replace(row, drop=old.top1 - new.top1)
    else:
        row = dc.replace(row, why="the images carry no labels")
    found = unlike or discordance(a, b)
    if isinstance(found, str):
        return dc.replace(row, unpaired=found)
    differ, lost, gained = found
    if row.drop is None:
        return dc.replace(row, differ=differ)
    paired = loss(1, lost, gained, one.images)
    return dc.replace(row, differ=differ, loss=paired, drop=paired.drop)


def discordance(a: tuple[ParityReport, Leg], b: tuple[ParityReport, Leg]) -> tuple[int, int, int] | str:
    """How B's answers differ from A's, from the flips of both against one original; or why that cannot be said.

    An image in neither list of flips has the original's answer from both. One in a single list has it from the other,
    and one in both lists has either's own. So the flips of both hold all that differs, exactly, if the original
    answered alike in both runs; that it did is checked as far as the reports show it.

    Returns:
        The images that A and B answer differently (one that either answers with NaN among them), those that only A has
        right, and those that only B has; the last two are 0 without labels.
    """
    (one, old), (other, new) = a, b
    if (one.top1, one.top5, one.non_finite) != (other.top1, other.top5, other.non_finite):
        return "the original's accuracy is not the same in A and B"
    sides = [{flip.index: flip for flip in leg.flips} for leg in (old, new)]
    if any(len(flips) != _flips(one.images, leg) for flips, leg in zip(sides, (old, new), strict=True)):
        return "a report does not list all of its flips"
    differ = lost = gained = 0
    for index in sides[0].keys() | sides[1].keys():
        before, after = sides[0].get(index), sides[1].get(index)
        if before and after and _asked(before) != _asked(after):
            return f"image {index} ({before.name}) is not the same image, or the original answers it otherwise"
        flip = before or after
        assert flip is not None
        answers = [flip.reference if side is None else side.candidate for side in (before, after)]
        differ += answers[0] != answers[1] or answers[0] == NONE
        right = [flip.label >= 0 and answer == flip.label for answer in answers]
        lost += right[0] and not right[1]
        gained += right[1] and not right[0]
    if one.labelled and lost - gained != _right(one.images, old) - _right(one.images, new):
        return "flips and accuracies of the reports do not add up"
    return differ, lost, gained


def _asked(flip: Flip) -> tuple[str, int, int]:
    return flip.name, flip.label, flip.reference


def _flips(images: int, leg: Leg) -> int:
    return -1 if leg.agreement is None else images - round(images * leg.agreement / 100)


def _right(images: int, leg: Leg) -> int:
    return -1 if leg.top1 is None else round(images * leg.top1 / 100)


def latency_changes(a: Report, b: Report, engine: str, names: tuple[str, str]) -> Iterator[LatencyChange]:
    """How an engine's median changed at each batch size that both reports timed it at; one row at least."""
    if a.latency is None or b.latency is None:
        yield LatencyChange(engine, why=f"{'A' if a.latency is None else 'B'} measured no latency")
        return
    sides = (_Times(a.latency, names[0]), _Times(b.latency, names[1]))
    batches = [row.batch for row in a.latency.rows if row.name == names[0] and sides[0].p50(row.batch) is not None]
    found = False
    for batch in dict.fromkeys(batches):
        if sides[1].p50(batch) is not None:
            found = True
            yield _latency(engine, batch, sides, bases(a, b))
    if not found:
        yield LatencyChange(engine, why="no batch size was timed in both")


def bases(a: Report, b: Report) -> tuple[Basis, ...]:
    """On what times of the two reports can be compared, the better first; nothing where neither is possible."""
    one, other = a.latency, b.latency
    if one is None or other is None or one.threads != other.threads:
        return ()
    torch = [side.environment.packages.get("torch") for side in (a, b)]
    alike = a.model == b.model and a.preprocess.size == b.preprocess.size and torch[0] is not None
    share: tuple[Basis, ...] = ("share of PyTorch's",) if alike and torch[0] == torch[1] else ()
    return (*share, "milliseconds") if one.machine == other.machine else share


@dc.dataclass(frozen=True, slots=True)
class _Times:
    report: LatencyReport
    name: str

    def p50(self, batch: int, name: str = "") -> float | None:
        wanted = name or self.name
        found = (row.p50_ms for row in self.report.rows if (row.name, row.batch) == (wanted, batch))
        return next((p50 for p50 in found if p50 is not None and p50 > 0), None)

    def share(self, batch: int) -> float | None:
        own, original = self.p50(batch), self.p50(batch, REFERENCE)
        return None if own is None or original is None else own / original

    def spread(self, batch: int) -> float | None:
        """Standard error of the logarithm of the share, from the interval of the ratio to the original."""
        for ratio in self.report.ratios:
            if (ratio.name, ratio.against, ratio.batch) == (
                self.name,
                REFERENCE,
                batch,
            ) and 0 < ratio.low <= ratio.high:
                return math.log(ratio.high / ratio.low) / (2 * Z95)
        return None


def _latency(engine: str, batch: int, sides: tuple[_Times, _Times], possible: tuple[Basis, ...]) -> LatencyChange:
    old, new = sides
    row = LatencyChange(engine, batch, (old.p50(batch), new.p50(batch)), (old.share(batch), new.share(batch)))
    for basis in possible:
        one, other = row.shares if basis == "share of PyTorch's" else row.p50_ms
        if one is None or other is None:
            continue
        row = dc.replace(row, basis=basis, ratio=other / one)
        spreads = old.spread(batch), new.spread(batch)
        if basis == "milliseconds" or spreads[0] is None or spreads[1] is None:
            return row
        factor = math.exp(Z95 * math.hypot(spreads[0], spreads[1]))  # the two runs are independent
        return dc.replace(row, low=other / one / factor, high=other / one * factor)
    return dc.replace(row, why="not the same machine and threads, nor the same original on the same PyTorch")
