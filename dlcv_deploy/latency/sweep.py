"""What a session's speed depends on: the batch size, and on CPUs the number of threads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from ..errors import SpecError
from .measure import BRIEF, Effort, measure
from .statistics import percentile
from .values import ThreadRow

if TYPE_CHECKING:
    from ..backends.base import Array, Session


def doublings(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8 and so on, up to a number and with it.

    Raises:
        SpecError: it is below 1.
    """
    if most < 1:
        raise SpecError(f"cannot go from 1 up to {most}", fix="1 or more")
    return tuple(sorted({*(1 << i for i in range(most.bit_length())), most}))


def threads(
    loaded: Callable[[int], AbstractContextManager[Mapping[str, Session | str]]],
    feed: Mapping[str, Array],
    counts: Sequence[int],
    *,
    effort: Effort = BRIEF,
    now: Callable[[], float] = time.perf_counter,
    done: Callable[[int], object] = lambda rows: None,
) -> tuple[ThreadRow, ...]:
    """Latency of one image on each number of threads; the sessions in turn at each, so that they compare.

    Args:
        loaded: Sessions by name, loaded anew to use so many threads.
        feed: Inputs of one image, for all of them.
        counts: Numbers of threads.
        effort: How long to measure at each.
        now: The clock, in seconds.
        done: Told 1 after each of them.
    """
    rows: list[ThreadRow] = []
    for count in counts:
        with loaded(count) as sessions:
            ready = {name: session for name, session in sessions.items() if not isinstance(session, str)}
            run = measure({name: partial(session.run, feed) for name, session in ready.items()}, effort, now=now)
        for name in ready:
            seconds = run.seconds(name)
            p50, p99 = (1e3 * percentile(seconds, p) for p in (50, 99))
            rows.append(ThreadRow(name, count, p50, p99, len(seconds) / max(math.fsum(seconds), 1e-9)))
        done(1)
    return tuple(rows)
