"""What a machine says of itself while something is timed: read between rounds, parsed from text, judged elsewhere."""

from __future__ import annotations

import dataclasses as dc
import os
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path

from .gpu import Gpu, GpuLook

Read = Callable[[str], str | None]
"""The text of a file of the system, or None where there is no such file, or none that may be read."""

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_CPU = "/sys/devices/system/cpu/cpu"


@dc.dataclass(frozen=True, slots=True)
class Look:
    """One look at the machine; what cannot be read is None or empty.

    Counters (seconds of CPU time, times throttled, seconds of pressure) run since the machine was started, so that two
    looks say what lies between them. They are of the processors that this process may use.

    ``own_s`` is CPU time of this process and of children that have ended, ``busy_s`` that of all processes,
    ``stolen_s`` what a hypervisor gave to others. ``quota_stops`` counts how often a container's CPU quota stopped it,
    ``heat_stops`` how often a core throttled itself. ``waits_s`` is how long some process waited for memory (Linux's
    PSI). ``clock_mhz`` is the fastest processor's, that is, of one at work.
    """

    at_s: float
    own_s: float
    busy_s: float | None = None
    stolen_s: float | None = None
    load: float | None = None
    governors: tuple[str, ...] = ()
    clock_mhz: float | None = None
    heat_stops: int | None = None
    quota_stops: int | None = None
    waits_s: float | None = None
    gpu: GpuLook | None = None


class Watch:
    """Looks at the machine, in order; ``gpu`` is asked where given, and its text says why it is not looked at."""

    def __init__(
        self,
        gpu: Gpu | str | None = None,
        *,
        read: Read | None = None,
        cpus: Collection[int] | None = None,
        now: Callable[[], float] = time.monotonic,
        own: Callable[[], float] = lambda: sum(os.times()[:4]),
    ) -> None:
        self.looks: list[Look] = []
        self.gpu = gpu
        self.cpus = tuple(usable() if cpus is None else sorted(cpus))
        self._read, self._now, self._own = _text if read is None else read, now, own

    def look(self) -> None:
        """Look once; some hundreds of microseconds on a few processors."""
        read, cpus = self._read, self.cpus
        busy, stolen = cpu_seconds(read("/proc/stat") or "", cpus)
        self.looks.append(
            Look(
                self._now(),
                self._own(),
                busy,
                stolen,
                load(read("/proc/loadavg")),
                tuple(sorted({g.strip() for g in self._each("cpufreq/scaling_governor")})),
                clock_mhz(self._each("cpufreq/scaling_cur_freq"), read("/proc/cpuinfo") or ""),
                _sum([*self._each("thermal_throttle/core_throttle_count")]),
                quota_stops(read),
                waits_s(read("/proc/pressure/memory") or ""),
                self.gpu.look() if isinstance(self.gpu, Gpu) else None,
            )
        )

    def _each(self, file: str) -> list[str]:
        """What each processor says in a file of its folder, those that say nothing left out."""
        return [text for cpu in self.cpus if (text := self._read(f"{_CPU}{cpu}/{file}")) is not None]


def usable() -> tuple[int, ...]:
    """The processors this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_seconds(stat: str, cpus: Collection[int], ticks: int = _TICKS) -> tuple[float | None, float | None]:
    """Seconds that these processors were busy, and that a hypervisor took, by /proc/stat (proc(5)).

    Time of guests is within user's, so it is not added again.
    """
    rows = re.findall(r"^cpu(\d+) ([\d ]+)$", stat, re.M)
    fields = [[int(part) for part in counts.split()] for cpu, counts in rows if int(cpu) in cpus]
    if not fields or min(map(len, fields)) < 8:
        return None, None
    busy = sum(sum(f[:3]) + sum(f[5:7]) for f in fields)
    return busy / ticks, sum(f[7] for f in fields) / ticks


def load(loadavg: str | None) -> float | None:
    """Processes that ran or waited in the last minute: /proc/loadavg's first number, or the system's own call."""
    if loadavg:
        return float(loadavg.split()[0])
    try:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    except OSError:
        return None


def clock_mhz(scaling: Collection[str], cpuinfo: str) -> float | None:
    """The fastest clock: of cpufreq's kilohertz, else of /proc/cpuinfo's megahertz."""
    found = [int(text) / 1000 for text in scaling if text.strip().isdecimal()]
    found = found or [float(mhz) for mhz in re.findall(r"^cpu MHz\s*: ([\d.]+)$", cpuinfo, re.M)]
    return max(found, default=None)


def quota_stops(read: Read) -> int | None:
    """How often the CPU quota of this process's control group stopped it (nr_throttled, versions 1 and 2)."""
    groups = re.findall(r"^(?:0:|\d+:[\w,]*\bcpu\b[\w,]*):(.*)$", read("/proc/self/cgroup") or "", re.M)
    places = [f"/sys/fs/cgroup{kind}{group.rstrip('/')}" for group in (*groups, "") for kind in ("", "/cpu")]
    for place in places:
        found = re.search(r"^nr_throttled (\d+)$", read(f"{place}/cpu.stat") or "", re.M)
        if found:
            return int(found[1])
    return None


def waits_s(pressure: str) -> float | None:
    """Seconds that some process waited, by a file of /proc/pressure (Linux's PSI)."""
    found = re.search(r"^some .*\btotal=(\d+)$", pressure, re.M)
    return int(found[1]) / 1e6 if found else None


def _sum(texts: list[str]) -> int | None:
    counts = [int(text) for text in texts if text.strip().isdecimal()]
    return sum(counts) if counts else None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
