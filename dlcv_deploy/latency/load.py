"""What latency becomes when several ask at once: clients that wait for their answers, and requests that do not wait.

Both are needed, and they differ (Schroeder, Wierman and Harchol-Balter, Open versus closed: a cautionary tale, NSDI
2006). A client that waits asks less often of a slow engine, so a closed loop shows the throughput and hides the queue.
In an open loop requests arrive when they arrive; their times run from arrival, not from when a worker took them up,
for else those that waited longest would count least (Tene, How not to measure latency: coordinated omission).
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from ..errors import SpecError
from .statistics import percentile
from .values import ClientRow, LoadRow

SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
"""Arrival rates of a curve, as shares of what the engine can serve."""
KEPT_UP = 0.95
"""The share of the arrival rate that must be served. At 110 % of what can be, it is 0.91 at most."""

Call = Callable[[], object]
Clock = Callable[[], float]
T = TypeVar("T")


def closed(
    name: str,
    call: Call,
    clients: int,
    *,
    seconds: float = 1.0,
    at_least: int = 10,
    now: Clock = time.perf_counter,
) -> ClientRow:
    """So many threads that call again as soon as they have their answer; the first call of each is not counted.

    Throughput is the sum of what each client got in its own time.

    Args:
        name: What is called.
        call: Asks for one image and returns when the answer is on the host. May be called from several threads.
        clients: How many threads.
        seconds: How long each goes on,
        at_least: but for no fewer calls than this.
        now: The clock, in seconds.

    Raises:
        SpecError: counts or times that measure nothing.
    """
    if clients < 1 or at_least < 1 or not math.isfinite(seconds):
        raise SpecError(
            f"cannot time {at_least} calls of {clients} clients in {seconds} seconds",
            fix="one client or more, one call or more, a finite time",
        )

    def client(_: float, stop: threading.Event) -> list[float]:
        times: list[float] = []
        start = before = now()
        while not stop.is_set() and (len(times) < at_least or before - start < seconds):
            call()
            after = now()
            times.append(after - before)
            before = after
        return times

    found = _together(clients, call, client, now)
    pooled = [s for times in found for s in times]
    rate = math.fsum(len(times) / max(math.fsum(times), 1e-9) for times in found)
    return ClientRow(name, clients, 1e3 * percentile(pooled, 50), 1e3 * percentile(pooled, 99), rate)


def arrivals(rate_per_s: float, count: int, seed: int = 0) -> tuple[float, ...]:
    """Seconds at which ``count`` requests of a Poisson process arrive, given that so many do in count / rate seconds.

    Given their number, they are independent and uniform, in order: so the mean rate of a short run is exact.

    Args:
        rate_per_s: Mean rate.
        count: How many.
        seed: The same seed gives the same times.

    Raises:
        SpecError: nothing would arrive, or never.
    """
    if not (math.isfinite(rate_per_s) and rate_per_s > 0) or count < 1:
        raise SpecError(f"{count} requests cannot arrive at {rate_per_s:g} a second", fix="a rate and a count above 0")
    draw = random.Random(seed)
    return tuple(sorted(draw.uniform(0, count / rate_per_s) for _ in range(count)))


def opened(
    name: str,
    call: Call,
    times: Sequence[float],
    rate_per_s: float,
    workers: int,
    *,
    now: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> LoadRow:
    """Requests at given times, served in their order by so many threads, each from its arrival to its answer.

    A free worker sleeps until the next request arrives, as a server does; that it wakes late is part of the answer.
    It kept up where answers came at ``KEPT_UP`` of the rate of requests or faster, from the start to the last answer.

    Args:
        name: What is called.
        call: Serves one request. May be called from several threads.
        times: When requests arrive, in seconds from the start, ascending.
        rate_per_s: Their mean rate, for the row.
        workers: How many threads.
        now: The clock, in seconds.
        sleep: Waits so many seconds.

    Raises:
        SpecError: no requests, or none to serve them.
    """
    if workers < 1 or not times:
        raise SpecError(f"{workers} workers cannot serve {len(times)} requests", fix="one or more of each")
    turn, coming = threading.Lock(), iter(times)

    def worker(begun: float, stop: threading.Event) -> list[tuple[float, float]]:
        served: list[tuple[float, float]] = []
        while not stop.is_set():
            with turn:
                arrival = next(coming, None)
            if arrival is None:
                break
            if (early := begun + arrival - now()) > 0:
                sleep(early)
            call()
            answer = now() - begun
            served.append((answer, answer - arrival))
        return served

    served = [row for rows in _together(workers, call, worker, now) for row in rows]
    took = [seconds for _, seconds in served]
    p50, p99 = (1e3 * percentile(took, p) for p in (50, 99))
    rate = len(served) / max(1e-9, *(answer for answer, _ in served))
    return LoadRow(name, rate_per_s, rate, p50, p99, rate >= KEPT_UP * rate_per_s)


def curve(
    name: str,
    call: Call,
    capacity_per_s: float,
    workers: int,
    *,
    shares: Sequence[float] = SHARES,
    seconds: float = 2.0,
    at_least: int = 200,
    seed: int = 0,
    now: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    done: Callable[[int], object] = lambda rows: None,
) -> tuple[LoadRow, ...]:
    """Latency against load: a row for each share of the capacity, in this order.

    Args:
        name: What is called.
        call: Serves one request.
        capacity_per_s: Requests a second that it can serve, as ``closed`` measures them.
        workers: Threads that serve.
        shares: Arrival rates, as shares of the capacity.
        seconds: How long requests arrive at each rate,
        at_least: but for no fewer requests than this.
        seed: Of the arrival times.
        now: The clock, in seconds.
        sleep: Waits so many seconds.
        done: Told 1 after each row.
    """
    rows = []
    for share in shares:
        rate = share * capacity_per_s
        times = arrivals(rate, max(at_least, round(rate * seconds)), seed)
        rows.append(opened(name, call, times, rate, workers, now=now, sleep=sleep))
        done(1)
    return tuple(rows)


def _together(count: int, first: Call, work: Callable[[float, threading.Event], T], now: Clock) -> list[T]:
    """What ``work`` returns in each of so many threads, which begin at one time, once each has made a first call.

    It is given that time, and an event that is set when an error or Ctrl-C ends it all.
    """
    stop, begun = threading.Event(), [0.0]

    def begin() -> None:
        begun[0] = now()

    start = threading.Barrier(count, begin)

    def one() -> T:
        try:
            first()
        except BaseException:
            start.abort()
            raise
        start.wait()
        return work(begun[0], stop)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(one) for _ in range(count)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after an error or Ctrl-C those that are left need not go on
            stop.set()
            start.abort()
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
