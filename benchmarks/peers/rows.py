"""The rows of the comparison: what was done already, and the page that they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlcv_deploy.atomic import write_whole

from .quantizers import OURS

SCHEMA = 1
CASE = ("network", "images", "tests")
KEY = (*CASE, "tool", "setting")
Row = dict[str, Any]


class Rows:
    """Rows in a JSON file, which has each as soon as it is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, Any] = {"commands": []}
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


HEAD = ("tool", "setting", "top-1 %", "points lost, 95 % interval", "flips", "KL, nats", "in INT8", "s", "CPU s", "MB")
BARE_HEAD = ("tool", "setting", "images", "s", "CPU s", "process s", "MB")
NOTES = (
    "All calibrate on the same images and answer for the same test images on OpenVINO, each in a process of its own,"
    " one after the other. Flips are images that got another class than from the fp32 graph, KL is the mean divergence"
    " of the softmax from the fp32 graph's, points lost are the fall of top-1 with Tango's paired interval, and in INT8"
    " is the share of multiply-adds that OpenVINO computes so.",
    "TensorRT takes activations in symmetric int8 alone. ONNX Runtime's uint8 and NNCF's models have twice the levels"
    " for what is never below 0, and cannot be built for it.",
    "Seconds are from the fp32 graph on the disk to the INT8 model on the disk, without imports; CPU seconds are the"
    " processor time of all threads with them, process seconds all there is to wait for. MB are the peak of resident"
    " memory of the process and those it starts.",
)


def page(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """All rows as Markdown: how they were made, one table a network, and how far this project is from the best peer."""
    parts = ["# INT8: this tool beside its peers", *_preface(rows, about), *NOTES]
    scored = [row for row in rows if row["tests"]]
    for (network, images, tests), own in _by(scored, *CASE).items():
        title = f"## {network}: {images:,} images to calibrate on, {tests:,} to test on"
        parts += [title, _table(HEAD, [_accuracy(row) for row in own])]
    parts += _summary(scored)
    for (network,), own in _by([row for row in rows if not row["tests"]], "network").items():
        parts += [f"## {network}: time and memory", _table(BARE_HEAD, [_bare(row) for row in own])]
    return "\n\n".join(parts) + "\n"


def _preface(rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    """The commands, the machine, and all versions that any row was made by."""
    versions: dict[str, list[str]] = {name: [version] for name, version in about["versions"].items()}
    for row in rows:
        for name, version in row["versions"].items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    commands = "\n".join(f"    {command}" for command in about["commands"])
    named = ", ".join(f"{name} {' and '.join(each)}" for name, each in sorted(versions.items()))
    return [commands, f"{about['machine']}. {about['system']}. {named}."]


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
    """This project's flips as a share of the best peer's: a row a network, and the mean."""
    answered = [row for row in rows if not row["error"]]
    ours = [row for row in answered if row["tool"] == OURS]
    peers = [row for row in answered if row["tool"] != OURS]
    return [
        *_beside("Beside the best peer of each network", ours, peers),
        *_beside("Beside the best that TensorRT takes", ours, [row for row in peers if row["symmetric"]]),
    ]


def _beside(title: str, ours: Sequence[Row], peers: Sequence[Row]) -> list[str]:
    shares: dict[str, list[float]] = {row["setting"]: [] for row in ours}
    theirs, lines = _by(peers, *CASE), []
    for case, mine in _by(ours, *CASE).items():
        if case not in theirs:
            continue
        best = min(theirs[case], key=lambda row: row["flips"])
        line = [f"{case[0]}, {case[1]:,} images", f"{_found(best)}: {best['tool']} {best['setting']}"]
        for setting, each in shares.items():
            row = next((row for row in mine if row["setting"] == setting), None)
            if row is not None and best["flips"]:
                each.append(row["flips"] / best["flips"])
                line.append(f"{_found(row)}: {each[-1]:.2f}")
            else:
                line.append("-" if row is None else _found(row))
        lines.append(line)
    if not lines:
        return []
    means = [f"{sum(each) / len(each):.2f}" if each else "-" for each in shares.values()]
    head = ("flips (points lost)", "best peer", *(f"{OURS} {setting}: share of it" for setting in shares))
    return [f"## {title}", _table(head, [*lines, ["mean share", "1", *means]])]


def _found(row: Row) -> str:
    return f"{row['flips']:,} ({_signed(row['loss'])})"


def _by(rows: Sequence[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[field] for field in fields), []).append(row)
    return found


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {line} |" for line in lines)
