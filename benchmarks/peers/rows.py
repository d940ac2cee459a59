"""The rows of the comparison: what was done already, and the page that they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlcv_deploy.atomic import write_whole

from .quantizers import OURS

SCHEMA = 1
KEY = ("network", "tool", "setting", "images", "tests")
Row = dict[str, Any]


class Rows:
    """Rows in a JSON file, which has each as soon as it is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, Any] = {}
        self.all: list[Row] = []
        if path.is_file():
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.get("schema") != SCHEMA:
                raise SystemExit(f"{path} has another schema; remove it, or name another --output")
            self.about, self.all = value["about"], value["rows"]

    def done(self, key: Row, versions: Mapping[str, str]) -> bool:
        """Whether there is a row of this key, made by these versions; one that only lacked its package is not."""
        return any(_same(row, key) and row["versions"] == versions and not row.get("absent") for row in self.all)

    def put(self, row: Row) -> None:
        """Add a row in the place of an older one, and write."""
        self.forget(lambda other: _same(other, row))
        self.all.append(row)
        self.write()

    def forget(self, wrong: Callable[[Row], bool]) -> None:
        """Drop rows, in memory."""
        self.all = [row for row in self.all if not wrong(row)]

    def write(self) -> None:
        """Write the file, whole or not at all."""
        value = {"schema": SCHEMA, "about": self.about, "rows": self.all}
        write_whole(self.path, (json.dumps(value, indent=1, allow_nan=True) + "\n").encode())


def _same(one: Row, other: Row) -> bool:
    return all(one[name] == other[name] for name in KEY)


HEAD = ("tool", "setting", "top-1 %", "lost, 95 % interval", "flips", "KL, nats", "in INT8", "s", "CPU s", "MB")
BARE_HEAD = ("tool", "setting", "images", "s", "CPU s", "process s", "MB")


def page(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """All rows as Markdown: how they were made, one table a network, and how far this project is from the best peer."""
    parts = ["# INT8: this tool beside its peers", *_preface(about)]
    scored = [row for row in rows if row["tests"]]
    for network, own in _by(scored, "network").items():
        parts += [f"## {network}", _table(HEAD, [_accuracy(row) for row in own])]
    if scored:
        parts += _summary(scored)
    bare = [row for row in rows if not row["tests"]]
    for network, own in _by(bare, "network").items():
        parts += [f"## {network}: time and memory", _table(BARE_HEAD, [_bare(row) for row in own])]
    return "\n\n".join(parts) + "\n"


def _preface(about: Mapping[str, Any]) -> list[str]:
    lines = [f"`{about['command']}`"] if about.get("command") else []
    versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    lines += [f"{about[name]}" for name in ("machine", "system") if about.get(name)] + ([versions] if versions else [])
    return [
        *lines,
        "All calibrate on the same training images, and answer for the same test images on OpenVINO in the precision of"
        " their graph. Flips are images that got another class than from the fp32 graph; KL is the mean divergence of"
        " the softmax from the fp32 graph's; lost is top-1 in points, with Tango's paired interval. `s` is from the fp32"
        " graph on the disk to the INT8 model on the disk, without imports; MB the peak of resident memory of the whole"
        " process and those it starts. Each ran in a process of its own, one after the other.",
    ]


def _accuracy(row: Row) -> tuple[str, ...]:
    start = (row["tool"], row["setting"])
    if row["error"]:
        return (*start, row["error"], *("-",) * 5, *_cost(row))
    low, high = row["interval"]
    share = row.get("int8_share")
    return (
        *start,
        f"{row['top1_fp32']:.2f} -> {row['top1']:.2f}",
        f"{_signed(row['loss'])} [{_signed(low)}, {_signed(high)}]",
        f"{row['flips']:,}",
        f"{row['kl']:.2e}",
        "-" if share is None else f"{100 * share:.1f} %",
        *_cost(row),
    )


def _cost(row: Row) -> tuple[str, str, str]:
    if row["error"]:
        return "-", "-", _megabytes(row)
    return f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", _megabytes(row)


def _bare(row: Row) -> tuple[str, ...]:
    start = (row["tool"], row["setting"], str(row["images"]))
    if row["error"]:
        return (*start, row["error"], "-", "-", _megabytes(row))
    return (
        *start,
        f"{row['seconds']:.1f}",
        f"{row['cpu_seconds']:.1f}",
        f"{row['process_seconds']:.1f}",
        _megabytes(row),
    )


def _megabytes(row: Row) -> str:
    return f"{row['peak_bytes'] / 1e6:,.0f}" if row.get("peak_bytes") else "-"


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"


def _summary(rows: Sequence[Row]) -> list[str]:
    """Flips as a share of the best peer's, a network a row."""
    answered = [row for row in rows if not row["error"]]
    settings = list(dict.fromkeys(row["setting"] for row in answered if row["tool"] == OURS))
    lines = []
    ratios: dict[str, list[float]] = {}
    for network, own in _by(answered, "network").items():
        peers = [row for row in own if row["tool"] != OURS]
        if not peers:
            continue
        best = min(peers, key=lambda row: row["flips"])
        cells = []
        for setting in settings:
            (row,) = [r for r in own if (r["tool"], r["setting"]) == (OURS, setting)] or [None]
            if row is None:
                cells.append("-")
                continue
            ratio = row["flips"] / best["flips"] if best["flips"] else float("nan")
            ratios.setdefault(setting, []).append(ratio)
            cells.append(f"{row['flips']} ({ratio:.2f}), {_signed(row['loss'])}")
        lines.append((network, f"{best['tool']} {best['setting']}, {best['flips']}, {_signed(best['loss'])}", *cells))
    if not settings or not lines:
        return []
    means = [sum(ratios[s]) / len(ratios[s]) if s in ratios else float("nan") for s in settings]
    lines.append(("mean share", "1", *(f"{mean:.2f}" for mean in means)))
    head = ("network", "best peer: flips, points lost", *(f"{OURS} {setting}" for setting in settings))
    return ["## Flips beside the best peer's", _table(head, lines)]


def _by(rows: Sequence[Row], field: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[field], []).append(row)
    return found


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (head, rule, *rows)]
    return "\n".join(f"| {line} |" for line in lines)
