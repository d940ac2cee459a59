"""The calibration table: the largest magnitude of each tensor, and all that says which network it belongs to."""

from __future__ import annotations

import dataclasses as dc
import json
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from ..errors import ArtifactError, SpecError
from ..report.document import plain, read
from ..study import QuantizationStudy
from ..types import Corrections, Preprocess

SCHEMA = 2
_AGAIN = "calibrate again: dlcv-deploy calibrate MODEL --calib DIR -o TABLE.json"


@dc.dataclass(frozen=True, slots=True)
class Statistics:
    """What was seen of a tensor: its largest magnitude, and how many of its values were zero, and not.

    ``constant`` says that all of them were the same.
    """

    largest: float
    zeros: int
    nonzero: int
    constant: bool = False


@dc.dataclass(frozen=True, slots=True)
class CalibrationTable:
    """Ranges of a network's activations, measured on sample images, and the corrections made with them.

    ``amax`` holds, for each tensor in order of its name, the largest magnitude that INT8 keeps, in the tensor's unit;
    0 for a tensor that was always zero. ``weights_sha256`` and ``graph_sha256`` name the network, ``preprocess`` what
    it was fed; ``samples`` says in words on what it was measured, ``samples_sha256`` exactly. ``random`` marks a table
    made on noise instead of images. ``versions`` are those of the tools that measured, ``statistics`` what they saw
    where they did; a table made from another tool's scales has none, and 0 images.
    """

    model: str
    weights_sha256: str
    graph_sha256: str
    preprocess: Preprocess
    method: str
    samples: str
    samples_sha256: str
    images: int
    random: bool
    amax: Mapping[str, float]
    corrections: Corrections = dc.field(default_factory=Corrections)
    statistics: Mapping[str, Statistics] = dc.field(default_factory=dict)
    versions: Mapping[str, str] = dc.field(default_factory=dict)
    study: QuantizationStudy | None = None

    def __post_init__(self) -> None:
        for name, value in self.amax.items():
            if not (math.isfinite(value) and value >= 0):
                raise SpecError(f"the largest magnitude of tensor {name!r} cannot be {value}")
        if not self.amax or self.images < 0:
            raise SpecError(f"a table of {len(self.amax)} tensors measured on {self.images} images says nothing")
        object.__setattr__(self, "amax", {name: float(self.amax[name]) for name in sorted(self.amax)})

    def warnings(self) -> tuple[str, ...]:
        """What the images leave in doubt: tensors of which they show one value, or too few images to show ranges."""
        zero = [name for name, seen in self.statistics.items() if not seen.nonzero]
        same = [name for name, seen in self.statistics.items() if seen.nonzero and seen.constant]
        found = []
        if self.images == 1:
            found.append("calibrated on 1 image: ranges of one say little; some hundred are usual")
        if zero:
            found.append(f"always 0 in calibration, so what reads it stays in floating point: {_some(sorted(zero))}")
        if same:
            found.append(f"the same number everywhere in calibration, so its range says little: {_some(sorted(same))}")
        return tuple(found)

    def to_json(self) -> str:
        """The table as text, one tensor or node a line; floats are written so that they read back as they were."""
        own = ("preprocess", "amax", "corrections", "statistics", "versions", "study")
        head = {f.name: getattr(self, f.name) for f in dc.fields(self) if f.name not in own}
        lines = [f'"{name}": {json.dumps(value)}' for name, value in {"schema": SCHEMA, **head}.items()]
        lines += [
            f'"versions": {json.dumps(dict(self.versions))}',
            f'"preprocess": {json.dumps(dc.asdict(self.preprocess))}',
        ]
        lines += [_lines("amax", self.amax)]
        lines += [_lines("statistics", {name: dc.astuple(seen) for name, seen in sorted(self.statistics.items())})]
        lines += [f'"corrections": {{\n{_corrections_text(self.corrections)}\n}}']
        if self.study is not None:
            lines += [f'"study": {json.dumps(plain(self.study), allow_nan=False)}']
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str = "the calibration table") -> CalibrationTable:
        """Read a table.

        Args:
            text: What ``to_json`` wrote.
            name: What to call it in errors.

        Raises:
            ArtifactError: Damaged, of another schema, a field missing or unknown, or a value that cannot be.
        """
        try:
            document = json.loads(text, object_pairs_hook=_once)
            if not isinstance(document, dict):
                raise TypeError("it is no JSON object")
            if document.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {document.get('schema')!r}, and this version reads {SCHEMA}")
            return _parse(document)
        except (ValueError, TypeError, RecursionError, SpecError, ArtifactError) as e:
            raise ArtifactError(f"{name} cannot be read: {e}", fix=_AGAIN) from e


def check_belongs(
    table: CalibrationTable,
    *,
    model: str,
    weights_sha256: str,
    graph_sha256: str,
    preprocess: Preprocess,
    tensors: Iterable[str],
) -> None:
    """Refuse a table that was measured on another network, or on one fed otherwise.

    Args:
        table: As read.
        model: Name of the network to quantize.
        weights_sha256: Of its weights.
        graph_sha256: Of its graph's structure.
        preprocess: What it is fed.
        tensors: Those that need a range.

    Raises:
        ArtifactError: Says everything that differs.
    """
    wanted, there = set(tensors), set(table.amax)
    differs = []
    if table.model != model:
        differs.append(f"it is of {table.model}, not {model}")
    if table.weights_sha256 != weights_sha256:
        differs.append(f"its weights are {table.weights_sha256[:12]}, not {weights_sha256[:12]}")
    if table.graph_sha256 != graph_sha256:
        differs.append(f"its graph is {table.graph_sha256[:12]}, not {graph_sha256[:12]}")
    for field in dc.fields(Preprocess):
        here, asked = getattr(table.preprocess, field.name), getattr(preprocess, field.name)
        if here != asked:
            differs.append(f"its images had {field.name} {here}, not {asked}")
    if missing := sorted(wanted - there):
        differs.append(f"it has no range for {_some(missing)}")
    if extra := sorted(there - wanted):
        differs.append(f"it has ranges for {_some(extra)}, which this graph does not quantize")
    if differs:
        raise ArtifactError(f"the calibration table does not belong to this network: {'; '.join(differs)}", fix=_AGAIN)


def bundled(weights_sha256: str) -> CalibrationTable | None:
    """The table that comes with this package for these weights, or ``None``."""
    tables = files(__package__) / "tables"
    if not tables.is_dir():
        return None
    for file in sorted(tables.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            table = CalibrationTable.from_json(file.read_bytes(), name=f"the bundled table {file.name}")
            if table.weights_sha256 == weights_sha256:
                return table
    return None


def _lines(name: str, values: Mapping[str, object]) -> str:
    """A JSON object with a line for each of its members."""
    inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
    return f'"{name}": {{\n{inner}\n}}' if values else f'"{name}": {{}}'


_BY_CHANNEL = ("equalization", "gain", "bias")


def _corrections_text(made: Corrections) -> str:
    flat = {"pixels": made.pixels, "float_sums": made.float_sums, "float_nodes": made.float_nodes}
    lines = [f'"{name}": {json.dumps(value)}' for name, value in flat.items()]
    lines += [_lines(name, getattr(made, name)) for name in _BY_CHANNEL]
    return ",\n".join([*lines, _lines("rounding", made.rounding)])


def _parse(document: dict[str, Any]) -> CalibrationTable:
    """Raises ValueError or TypeError, saying which field is wrong."""
    kinds: dict[str, type] = {"model": str, "weights_sha256": str, "graph_sha256": str, "method": str, "samples": str}
    kinds |= {"samples_sha256": str, "images": int, "random": bool, "preprocess": dict, "amax": dict}
    kinds |= {"versions": dict, "statistics": dict, "corrections": dict}
    study = document.pop("study", None)
    _exactly(document, {"schema": int, **kinds}, "")
    pre = document["preprocess"]
    _exactly(pre, {"size": int, "canvas": int, "fit": str, "mean": list, "std": list}, "preprocess.")
    if pre["fit"] not in ("resize", "pad"):
        raise ValueError(f"preprocess.fit is {pre['fit']!r}")
    for name in ("mean", "std"):
        pre[name] = _triple(f"preprocess.{name}", pre[name])
    values = {
        "preprocess": Preprocess(**pre),
        "amax": {name: _number(name, value) for name, value in document["amax"].items()},
        "versions": {name: str(value) for name, value in document["versions"].items()},
        "statistics": {name: _statistics(name, value) for name, value in document["statistics"].items()},
        "corrections": _corrections(document["corrections"]),
        "study": None if study is None else read(QuantizationStudy, study, "study"),
    }
    return CalibrationTable(**{**{name: document[name] for name in kinds}, **values})


def _statistics(name: str, value: object) -> Statistics:
    match value:
        case [int() | float() as largest, int() as zeros, int() as nonzero, bool() as constant]:
            if min(largest, zeros, nonzero) >= 0:
                return Statistics(_number(name, largest), zeros, nonzero, constant)
    raise TypeError(f"statistics.{name} is {value!r:.60}")


def _corrections(made: dict[str, Any]) -> Corrections:
    kinds: dict[str, type] = dict.fromkeys((*_BY_CHANNEL, "rounding"), dict)
    _exactly(
        made, {**kinds, "pixels": type(made.get("pixels")), "float_sums": bool, "float_nodes": list}, "corrections."
    )
    pixels = made["pixels"]
    if pixels is not None:
        if not isinstance(pixels, list) or len(pixels) != 2:
            raise TypeError(f"corrections.pixels is {pixels!r:.60}")
        pixels = (_triple("corrections.pixels", pixels[0]), _triple("corrections.pixels", pixels[1]))
    if not all(isinstance(node, str) for node in made["float_nodes"]):
        raise TypeError(f"corrections.float_nodes is {made['float_nodes']!r:.60}")
    channels = {
        kind: {name: _numbers(f"corrections.{kind}.{name}", values) for name, values in made[kind].items()}
        for kind in _BY_CHANNEL
    }
    for node, text in made["rounding"].items():
        if not isinstance(text, str):
            raise TypeError(f"corrections.rounding.{node} is {text!r:.60}")
    return Corrections(
        pixels,
        **channels,
        rounding=made["rounding"],
        float_sums=made["float_sums"],
        float_nodes=tuple(made["float_nodes"]),
    )


def _numbers(name: str, values: object) -> tuple[float, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{name} is {values!r:.60}")
    return tuple(_number(name, value) for value in values)


def _triple(name: str, values: object) -> tuple[float, float, float]:
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError(f"{name} has {len(values) if isinstance(values, list) else 'no'} numbers")
    first, second, third = (_number(name, value) for value in values)
    return first, second, third


def _exactly(found: dict[str, Any], kinds: Mapping[str, type], where: str) -> None:
    for name, kind in kinds.items():
        if name not in found:
            raise ValueError(f"{where}{name} is missing")
        if type(found[name]) is not kind:
            raise TypeError(f"{where}{name} is {found[name]!r}")
    if unknown := sorted(set(found) - set(kinds)):
        raise ValueError(f"{where}{unknown[0]} is unknown")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r:.60}")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}")
    return float(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
