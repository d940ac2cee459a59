"""Two bundles or reports held against each other, for the CI of those who deploy one after the other."""

from __future__ import annotations

import math
from pathlib import Path

from .bundle import open_bundle
from .errors import ArtifactError, SpecError
from .report.changes import Comparison
from .report.comparison import between
from .report.document import Report, from_json


def compare(a: Path, b: Path, *, targets: tuple[str, ...] = ()) -> Comparison:
    """What became of the old bundle or report ``a`` in the new one ``b``.

    Args:
        a: A bundle's folder, or a report.json.
        b: Another.
        targets: Backends to compare; all by default.

    Raises:
        SpecError: a backend that neither has.
        ArtifactError: no bundle, or no report.
    """
    old, new = read_report(a), read_report(b)
    known = {engine.backend for side in (old, new) for engine in side.engines}
    if unknown := [name for name in targets if name not in known]:
        raise SpecError(
            f"neither {a} nor {b} has an engine for {', '.join(unknown)}", fix=f"choose from {', '.join(sorted(known))}"
        )
    return between(old, new, (str(a), str(b)), targets)


def read_report(path: Path) -> Report:
    """The report of a bundle, all of whose files are verified, or of a report.json by itself."""
    if path.is_dir():
        return from_json(open_bundle(path).read("report.json").decode())
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ArtifactError(f"cannot read {path} ({e})", fix="give a bundle or its report.json") from e
    return from_json(text)


def failures(
    comparison: Comparison,
    *,
    max_drop: float | None = None,
    max_latency_ratio: float | None = None,
    max_size_ratio: float | None = None,
) -> tuple[str, ...]:
    """What stands against B, a sentence each; none where it keeps to all limits.

    NaN or infinity in B's answers always does. A limit holds for every engine of A, on every set of images and at every
    batch size that both reports have; what it needs and is not there is a failure. Figures are held against it as they
    were measured, without their intervals.

    Args:
        comparison: As measured.
        max_drop: Points of top-1 that B may be below A, 0 or more.
        max_latency_ratio: B's median over A's, above 0.
        max_size_ratio: The size of B's engine over A's, above 0.

    Raises:
        SpecError: a limit that is none.
    """
    limits = {"--max-drop": max_drop, "--max-latency-ratio": max_latency_ratio, "--max-size-ratio": max_size_ratio}
    asked = {name: limit for name, limit in limits.items() if limit is not None}
    for name, limit in asked.items():
        if not math.isfinite(limit) or limit < 0:
            raise SpecError(f"{name} {limit} is no limit", fix="give a number, 0 or more")
    found = [f"in B {said}" for said in comparison.broken]
    if asked:
        found += [f"only A has {name}, so B has not kept to any limit there" for name in comparison.lacking]
        found += [] if comparison.engines else ["there is no engine that A and B both have"]
    found += [] if max_drop is None else _drops(comparison, max_drop)
    found += [] if max_latency_ratio is None else _latencies(comparison, max_latency_ratio)
    found += [] if max_size_ratio is None else _sizes(comparison, max_size_ratio)
    return tuple(found)


def _drops(comparison: Comparison, limit: float) -> list[str]:
    found = []
    measured = {row.engine for row in comparison.accuracy if row.drop is not None}
    for row in comparison.accuracy:
        if row.drop is None and row.engine not in measured:
            found.append(f"{row.engine}: accuracy was not compared: {row.why}")
        elif row.drop is not None and not row.drop <= limit:  # a NaN fails here
            ends = f" (95 %: {row.loss.low:.2f} to {row.loss.high:.2f})" if row.loss else ""
            where = f"{row.engine}, {row.source}, crops {row.crops}"
            found.append(f"{where}: {row.drop:.2f} points of top-1 below A{ends}, and at most {limit:g} may be lost")
    return list(dict.fromkeys(found))


def _latencies(comparison: Comparison, limit: float) -> list[str]:
    found = []
    for row in comparison.latency:
        where = f"{row.engine}, batch {row.batch}" if row.batch else row.engine
        if row.ratio is None:
            found.append(f"{where}: latency was not compared: {row.why}")
        elif not row.ratio <= limit:
            found.append(f"{where}: {row.ratio:.3f} times A's latency ({row.basis}), and at most {limit:g} is allowed")
    return found


def _sizes(comparison: Comparison, limit: float) -> list[str]:
    found = []
    for row in comparison.sizes:
        if row.ratio is None:
            found.append(f"{row.engine}: size was not compared: A's files are empty")
        elif not row.ratio <= limit:
            found.append(f"{row.engine}: {row.ratio:.3f} times A's size, and at most {limit:g} is allowed")
    return found
