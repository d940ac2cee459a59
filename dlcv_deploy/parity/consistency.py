"""Whether an engine agrees with itself: neighbours, batch sizes, sessions and threads must not change an answer."""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import numpy as np

from ..backends.base import Array, Session
from ..errors import DeployError
from ..types import BATCH, Dim, Precision
from .values import Check, Consistency

Load = Callable[[], Session]
Answers = Mapping[str, Array]

LIMITS: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-2}
"""How far answers may differ between batch sizes, as a share of the spread of the answers (largest less smallest).

Another size may run other kernels, which add in another order; in half precision and INT8 that may round a value the
other way. On CPUs (ONNX Runtime 1.31 and OpenVINO 2026.4, four networks) it came to 3e-7 at most in any precision;
the rest is room for GPUs. Within one size kernels on a CPU are the same, and so must be the answers, bit for bit."""
ODD = 3
THREADS, ROUNDS = 4, 2


@dc.dataclass(frozen=True, slots=True)
class Apart:
    """How far rows are from those they should equal: a fold.

    ``share`` is the greatest difference over the spread of the answers, ``changed`` the rows whose top-1 changed.
    ``finite`` is false once an answer is NaN or infinite, which never passes.
    """

    rows: int = 0
    share: float = 0.0
    changed: int = 0
    equal: bool = True
    finite: bool = True

    def merge(self, other: Apart) -> Apart:
        """Both."""
        return Apart(
            self.rows + other.rows,
            max(self.share, other.share),
            self.changed + other.changed,
            self.equal and other.equal,
            self.finite and other.finite,
        )

    def within(self, limit: float) -> bool:
        """Whether that is no more than may be; with a limit of 0, whether all is equal bit for bit."""
        return self.finite and (self.equal or (limit > 0 and self.share <= limit))

    def words(self) -> str:
        """In words, with the figures."""
        if not self.finite:
            return "an answer is NaN or infinite"
        if self.equal:
            return f"{self.rows} rows equal bit for bit"
        moved = f"top-1 changed in {self.changed} of {self.rows} rows"
        return f"answers differ by up to {self.share:.1e} of their spread, {moved}"


def consistency(
    engine: str,
    load: Load,
    images: Array,
    *,
    precision: Precision = "fp32",
    edges: bool = True,
    exact: bool = True,
    shared: bool = True,
) -> Consistency:
    """Try an engine against itself.

    Its batch holds the images forth and back: each is in it twice, at other places and with other neighbours.

    Args:
        engine: What it is called in reports.
        load: Makes a session; called twice, both are open at once.
        images: (N, ...) inputs, all different, N from 2 on.
        precision: Of the engine: sets how far batch sizes may differ (``LIMITS``).
        edges: Whether the largest batch is tried too.
        exact: Whether answers at one batch size must be equal bit for bit, not within the limit alone.
        shared: Whether threads may call one session at once; else each has its own.

    Raises:
        DeployError: It cannot be loaded, or does not run that batch at all.
    """
    with ExitStack() as stack:
        session = stack.enter_context(load())
        trial = _Trial(session, images, getattr(session, "batch", BATCH), LIMITS[precision], exact=exact)
        checks = [trial.equal_rows(), trial.permuted_rows(), trial.batch_sizes(edges=edges)]
        second: Session | None = None
        try:
            second = stack.enter_context(load())
            checks.append(trial.two_sessions(second))
        except DeployError as e:  # of loading alone: what running raises is a failed check
            checks.append(Check("two sessions", None, f"a second session cannot be opened: {e.what}"))
        if shared:
            checks.append(trial.threads([session] * THREADS))
        elif second is not None:
            checks.append(trial.threads([session, second]))
        else:
            checks.append(Check("threads", None, "each thread needs a session of its own"))
    return Consistency(engine, tuple(checks))


class _Trial:
    """The batch, and what the session answers to it: what all else is held against."""

    def __init__(self, session: Session, images: Array, batch: Dim, limit: float, *, exact: bool) -> None:
        self._session, self._batch, self._limit = session, batch, limit
        self._alike = 0.0 if exact else limit
        self._images = images[: max(1, batch.hi // 2)]
        self._name = session.inputs[0].name
        self._rows = self._places(min(max(2 * len(self._images), batch.lo), batch.hi))
        self._base = self._run(session, self._rows)
        finite = {name: y[np.isfinite(y)].astype(np.float64) for name, y in self._base.items()}
        self._spread = {name: float(np.ptp(y)) if y.size else 0.0 for name, y in finite.items()}

    def equal_rows(self) -> Check:
        """Whether each image has the same answer at each of its places."""
        first = {row: place for place, row in reversed([*enumerate(self._rows)])}
        again = [(place, first[row]) for place, row in enumerate(self._rows) if place != first[row]]
        if not again:
            return Check("equal rows", None, "the engine takes one row at once")
        later, former = map(list, zip(*again, strict=True))
        return self._said(
            "equal rows", self._alike, lambda: self._apart(_at(self._base, later), _at(self._base, former))
        )

    def permuted_rows(self) -> Check:
        """Whether other places for the images are other places for their answers, and nothing else."""
        if len(self._rows) < 2:
            return Check("permuted rows", None, "the engine takes one row at once")
        order = np.random.default_rng(0).permutation(len(self._rows)).tolist()

        def apart() -> Apart:
            found = self._run(self._session, [self._rows[place] for place in order])
            return self._apart(found, _at(self._base, order))

        return self._said("permuted rows", self._alike, apart)

    def batch_sizes(self, *, edges: bool) -> Check:
        """Whether images have the same answers in batches of other sizes."""
        lo, hi = self._batch.lo, self._batch.hi
        asked = {1, ODD, lo, self._batch.opt, hi if edges else lo}
        sizes = sorted(size for size in asked if lo <= size <= hi and size != len(self._rows))
        if not sizes:
            return Check("batch sizes", None, f"the engine takes batches of {lo} alone")
        place = {row: place for place, row in enumerate(self._rows)}

        def apart() -> Iterable[Apart]:
            for size in sizes:
                for start in range(0, len(self._images), size):
                    rows = self._places(size, start)
                    yield self._apart(self._run(self._session, rows), _at(self._base, [place[row] for row in rows]))

        tried = f"batches of {', '.join(map(str, sizes))} beside {len(self._rows)}"
        return self._said("batch sizes", self._limit, lambda: _all(apart()), tried)

    def two_sessions(self, second: Session) -> Check:
        """Whether a second session answers alike, and the first one still does once the second has run."""

        def apart() -> Apart:
            other = self._apart(self._run(second, self._rows), self._base)
            return other.merge(self._apart(self._run(self._session, self._rows), self._base))

        return self._said("two sessions", self._alike, apart)

    def threads(self, sessions: Sequence[Session]) -> Check:
        """Whether threads that run at once, each on other images, get what they get alone."""
        own = [self._places(self._batch.lo, start) for start in range(len(sessions))]
        start = Barrier(len(sessions))

        def work(session: Session, rows: list[int], alone: Answers) -> Apart:
            start.wait()
            return _all(self._apart(self._run(session, rows), alone) for _ in range(ROUNDS))

        def apart() -> Apart:
            alone = [self._run(self._session, rows) for rows in own]
            with ThreadPoolExecutor(len(sessions)) as pool:
                return _all(list(pool.map(work, sessions, own, alone)))

        one = len({id(session) for session in sessions}) == 1
        how = f"{len(sessions)} threads at once on {'one session' if one else 'a session each'}"
        return self._said("threads", self._alike, apart, how)

    def _places(self, size: int, start: int = 0) -> list[int]:
        """So many images: forth and back, and again."""
        forth = list(range(len(self._images)))
        return ([*forth, *reversed(forth)] * (start + size))[start : start + size]

    def _run(self, session: Session, rows: Sequence[int]) -> Answers:
        return session.run({self._name: np.ascontiguousarray(self._images[list(rows)])})

    def _apart(self, found: Answers, expected: Answers) -> Apart:
        """How far answers are from those expected; classes are those of the first output."""
        first, *_ = expected
        kept = found[first].shape == expected[first].shape
        if not kept or any(not np.isfinite(y).all() for y in (*found.values(), *expected.values())):
            return Apart(len(expected[first]), math.inf, len(expected[first]), equal=False, finite=False)
        share = 0.0
        for name, y in expected.items():
            most = float(np.abs(np.subtract(found[name], y, dtype=np.float64)).max(initial=0.0))
            share = max(share, most / self._spread[name] if self._spread[name] else math.inf) if most else share
        changed = int((_classes(found[first]) != _classes(expected[first])).sum())
        equal = all(np.array_equal(found[name], y) for name, y in expected.items())
        return Apart(len(expected[first]), share, changed, equal)

    def _said(self, name: str, limit: float, measure: Callable[[], Apart], how: str = "") -> Check:
        try:
            apart = measure()
        except DeployError as e:
            return Check(name, False, _joined(how, f"the engine does not run: {e.what}"))
        passed = apart.within(limit)
        allowed = f"{limit:g} of it is allowed" if limit else "none may, bit for bit"
        return Check(
            name, passed, _joined(how, apart.words() + ("" if apart.equal or not apart.finite else f" ({allowed})"))
        )


def _at(answers: Answers, places: Sequence[int]) -> Answers:
    return {name: y[list(places)] for name, y in answers.items()}


def _all(parts: Iterable[Apart]) -> Apart:
    whole = Apart()
    for part in parts:
        whole = whole.merge(part)
    return whole


def _classes(y: Array) -> Array:
    return np.asarray(y.reshape(len(y), -1).argmax(1))


def _joined(how: str, what: str) -> str:
    return f"{how}: {what}" if how else what
