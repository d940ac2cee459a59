"""What an application waits for, for one image: from the bytes of a file to the answer, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..backends.base import DeviceTimed
from ..errors import SpecError
from .statistics import percentile
from .values import Part

if TYPE_CHECKING:
    from ..backends.base import Session

ENGINE, WHOLE = "engine", "sum"
COPY_IN, COPY_OUT, HOST = "copy in", "copy out", "launch and wait"


def breakdown(
    sessions: Mapping[str, Session | str],
    files: Sequence[bytes],
    steps: Mapping[str, Callable[[Any], Any]],
    *,
    rounds: int = 10,
    now: Callable[[], float] = time.perf_counter,
) -> tuple[Part, ...]:
    """Medians of each part of an answer, in their order, and of the whole, by session; the sessions in turn.

    Each file goes through the steps and the session in one go, so that a part meets the caches as it would in an
    application; the first file of each session's turn is not counted. The parts' medians add up to the whole's but for
    what varies. A CPU's runtime reads the step's array where it lies, so there are no copies. On a device, ``engine``
    is the time on its own clock, beside the copies in and out and what is left of the call: putting the image into
    pinned memory, launching, and waiting.

    Args:
        sessions: By name, each with one input; a text in place of one that cannot be run leaves it out.
        files: Contents of image files, one or more.
        steps: From a file's content to the input of a session, batch 1; by the names that the parts get.
        rounds: How often each session meets all files.
        now: The clock, in seconds.

    Raises:
        SpecError: nothing to measure.
    """
    if not files or rounds < 1:
        raise SpecError(
            f"cannot break {rounds} rounds of {len(files)} images down", fix="one image or more, one round or more"
        )
    ready = {name: session for name, session in sessions.items() if not isinstance(session, str)}
    times: dict[str, dict[str, list[float]]] = {name: {} for name in ready}
    order = list(ready)
    for _ in range(rounds):
        for name in order:
            found = times[name]
            for i, file in enumerate((files[-1], *files)):
                for part, seconds in _one(ready[name], file, steps, now).items():
                    if i > 0:
                        found.setdefault(part, []).append(seconds)
        order.reverse()
    return tuple(
        Part(name, part, 1e3 * percentile(seconds, 50)) for name in ready for part, seconds in times[name].items()
    )


def _one(
    session: Session, value: object, steps: Mapping[str, Callable[[Any], Any]], now: Callable[[], float]
) -> dict[str, float]:
    """Seconds of each part for one file."""
    found: dict[str, float] = {}
    start = before = now()
    for part, step in steps.items():
        value = step(value)
        after = now()
        found[part] = after - before
        before = after
    feed: Any = {session.inputs[0].name: value}
    session.run(feed)
    end = now()
    if isinstance(session, DeviceTimed):
        timing = session.run_timed(feed)
        parts = {COPY_IN: timing.h2d_ms, ENGINE: timing.compute_ms, COPY_OUT: timing.d2h_ms}
        found |= {part: ms / 1e3 for part, ms in parts.items()}
        found[HOST] = max(0.0, end - before - sum(parts.values()) / 1e3)
    else:
        found[ENGINE] = end - before
    found[WHOLE] = end - start
    return found
