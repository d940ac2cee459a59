"""What is measured of latency: times in milliseconds, host to host unless they say otherwise."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping

POINTS = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
"""The percentiles of a report; the hundredth is the slowest call."""

ALSO = ("batches", "compile", "threads", "clients", "load", "breakdown")
"""What can be measured besides latency at some batch sizes."""


@dc.dataclass(frozen=True, slots=True)
class Quantile:
    """A percentile of the calls' times, by nearest rank, with a bootstrap 95 % interval.

    Where too few calls were made for the percentile to be below the slowest, its interval has no upper end (infinite).
    """

    p: float
    ms: float
    low_ms: float
    high_ms: float


@dc.dataclass(frozen=True, slots=True)
class DeviceTimes:
    """Medians of what the device's own clock says of a call, in trtexec's words; latency is H2D + compute + D2H."""

    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    enqueue_ms: float
    latency_ms: float


@dc.dataclass(frozen=True, slots=True)
class Latency:
    """Wall-clock times of one session at one batch size, host to host; ``not_run`` says why there are none.

    ``settled`` says that the interval of the median became as narrow as was asked for, before time ran out. ``shape``
    are times of the calls, evenly spaced in rank, for a picture of their distribution.
    """

    name: str
    batch: int
    calls: int = 0
    mean_ms: float | None = None
    quantiles: tuple[Quantile, ...] = ()
    images_per_s: float | None = None
    settled: bool = True
    device: DeviceTimes | None = None
    shape: tuple[float, ...] = ()
    not_run: str = ""

    def at(self, p: float) -> Quantile | None:
        """A percentile, where it was measured."""
        return next((quantile for quantile in self.quantiles if quantile.p == p), None)

    @property
    def p50_ms(self) -> float | None:
        """The median."""
        found = self.at(50)
        return None if found is None else found.ms


@dc.dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast as ``against`` a session is, by medians of calls made in turn; 95 % bootstrap interval."""

    name: str
    against: str
    batch: int
    ratio: float
    low: float
    high: float


@dc.dataclass(frozen=True, slots=True)
class Cold:
    """What a process pays before the first answer, measured in a process of its own.

    ``import_ms`` is the runtime's import, ``load_ms`` making the engine ready, ``first_ms`` the first call at batch 1.
    ``memory_bytes`` is what the process holds once it has answered, ``engine_bytes`` the part of it that loading and
    the first call added.
    """

    name: str
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    memory_bytes: int | None = None
    engine_bytes: int | None = None
    not_run: str = ""


@dc.dataclass(frozen=True, slots=True)
class ThreadRow:
    """One session at batch 1 on so many threads."""

    name: str
    threads: int
    p50_ms: float
    p99_ms: float
    images_per_s: float


@dc.dataclass(frozen=True, slots=True)
class ClientRow:
    """So many clients, each of which calls again as soon as it has its answer (closed loop), batch 1."""

    name: str
    clients: int
    p50_ms: float
    p99_ms: float
    images_per_s: float


@dc.dataclass(frozen=True, slots=True)
class LoadRow:
    """Requests of one image that arrive at random at a mean rate, whether or not earlier ones are done (open loop).

    Times run from a request's arrival to its answer, its wait included. ``kept_up`` says that the queue did not grow.
    """

    name: str
    rate_per_s: float
    served_per_s: float
    p50_ms: float
    p99_ms: float
    kept_up: bool


@dc.dataclass(frozen=True, slots=True)
class Part:
    """A part of what an application waits for, for one image: "decode", "resize and crop", "normalize", "engine"."""

    name: str
    part: str
    p50_ms: float


@dc.dataclass(frozen=True, slots=True)
class Validity:
    """Whether a run's times can be trusted; ``reasons`` why not, a sentence each. ``facts`` is what was looked at.

    Facts are in words by what they are about: "governor", "clock", "load", "other processes", "throttling", "GPU".
    """

    reasons: tuple[str, ...] = ()
    facts: Mapping[str, str] = dc.field(default_factory=dict)

    @property
    def trustworthy(self) -> bool:
        """Whether nothing speaks against the run."""
        return not self.reasons


@dc.dataclass(frozen=True, slots=True)
class LatencyReport:
    """Sessions measured in turn within one run on one machine.

    ``settings`` are what each session's runtime was told or says of itself, in its own words.
    """

    machine: str
    threads: int
    rows: tuple[Latency, ...]
    ratios: tuple[Ratio, ...] = ()
    cold: tuple[Cold, ...] = ()
    thread_sweep: tuple[ThreadRow, ...] = ()
    clients: tuple[ClientRow, ...] = ()
    load: tuple[LoadRow, ...] = ()
    parts: tuple[Part, ...] = ()
    validity: Validity = dc.field(default_factory=Validity)
    settings: Mapping[str, Mapping[str, str]] = dc.field(default_factory=dict)
