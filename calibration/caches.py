"""Calibration caches of other tools: TensorRT's, which version 11 reads no more, and ModelOpt's."""

from __future__ import annotations

import dataclasses as dc
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, SpecError

if TYPE_CHECKING:
    from onnx import ModelProto

    from .table import CalibrationTable

METHOD = "trt-cache"
"""The method of a table whose ranges are a cache's."""
_TOP = 127
_HEAD = re.compile(r"TRT-\d+-\w+")
_WRITTEN = "TRT-8601-EntropyCalibration2"
_SAME = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that give the values they read, all of them."""


@dc.dataclass(frozen=True, slots=True)
class TrtCache:
    """A TensorRT calibration cache: ``version``, as "TRT-8601-EntropyCalibration2", and a scale for each tensor."""

    version: str
    scales: Mapping[str, float]


@dc.dataclass(frozen=True, slots=True)
class Matched:
    """The ranges that a cache gives a network.

    ``unmatched`` are names in the cache that mean no tensor of the network, ``missing`` tensors that need a range and
    have none, both in their order. ``matched`` counts the names that mean one.
    """

    amax: Mapping[str, float]
    unmatched: tuple[str, ...]
    missing: tuple[str, ...]
    matched: int


def read_trt_cache(data: bytes | str, name: str = "the cache") -> TrtCache:
    """Read what ``writeCalibrationCache`` of TensorRT up to 10 was given.

    A line with TensorRT's version and the algorithm; then one for each tensor with its scale, which is the largest
    magnitude over 127, as the hexadecimal digits of a float32, the highest first (TensorRT, sampleINT8, "Calibration
    file"). Names may hold blanks, colons and brackets.

    Args:
        data: The whole file.
        name: What to call it in errors.

    Raises:
        ArtifactError: It is no such file; a line is damaged or a name stands twice; a scale is negative or no number.
    """
    fix = "give the file that TensorRT's calibrator wrote, as it is"
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ArtifactError(f"{name} is no calibration cache: it is not text", fix=fix) from e
    head, *lines = [line.rstrip("\r") for line in text.split("\n")]
    if not _HEAD.fullmatch(head):
        what = f"its first line is {head[:80]!r}, and not as TRT-8601-EntropyCalibration2"
        raise ArtifactError(f"{name} is no calibration cache of TensorRT: {what}", fix=fix)
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        tensor, colon, digits = line.rpartition(": ")
        if not (tensor and colon and re.fullmatch(r"[0-9a-fA-F]{1,8}", digits)):
            raise ArtifactError(f"{name}, line {number} is damaged: {line[:80]!r}", fix=fix)
        (scale,) = struct.unpack(">f", bytes.fromhex(digits.zfill(8)))
        if not math.isfinite(scale) or math.copysign(1, scale) < 0:
            raise ArtifactError(
                f"{name}, line {number}: the scale of {tensor!r} is {scale}", fix="calibrate again; this one failed"
            )
        if tensor in scales:
            raise ArtifactError(f"{name}, line {number}: {tensor!r} stands in it twice", fix=fix)
        scales[tensor] = scale
    if not scales:
        raise ArtifactError(f"{name} has no scales", fix=fix)
    return TrtCache(head, scales)


def write_trt_cache(table: CalibrationTable) -> str:
    """A table's ranges as a calibration cache, by the tensor names of this tool's own fp32 ONNX file.

    TensorRT up to 10 reads it for that file, with a calibrator of the first line's algorithm; corrections of weights
    have no place in it.

    Raises:
        SpecError: The ranges are of an equalized network, which that file is not.
    """
    if table.corrections.equalization:
        raise of_equalized()
    lines = (f"{tensor}: {struct.pack('>f', amax / _TOP).hex()}\n" for tensor, amax in table.amax.items())
    return "".join([f"{_WRITTEN}\n", *lines])


def of_equalized() -> SpecError:
    """The error for ranges that no cache can hold."""
    return SpecError(
        "the table's ranges hold for the network after equalization, and not for the ONNX file that a cache is for",
        fix="calibrate without it: --quality fast",
    )


def write_modelopt(table: CalibrationTable) -> str:
    """A table's ranges as ``python -m modelopt.onnx.quantization --calibration_cache_path`` reads them.

    That is TensorRT's format, read more strictly: the first line is passed over, every other one is split at ": " and
    has eight digits, and the scale goes to the tensor's QuantizeLinear (``import_scales_from_calib_cache`` in
    modelopt/onnx/quantization/calib_utils.py and ``replace_scale_values`` in qdq_utils.py, ModelOpt 0.47). A tensor
    that was always 0 is left out, since a scale of 0 is none; ModelOpt leaves what reads it in floating point.

    Raises:
        SpecError: The ranges are of an equalized network.
    """
    lines = write_trt_cache(table).splitlines(keepends=True)
    return "".join(line for line in lines if not line.endswith(": 00000000\n"))


def from_cache(
    cache: TrtCache, model: ModelProto, tensors: Sequence[str], names: Mapping[str, str] | None = None
) -> Matched:
    """The ranges that a cache gives the tensors of a network: 127 times their scale.

    A name in the cache means a tensor by ``names``, else the one of that very name, else what ``scoped`` makes of it:
    nothing is guessed. A tensor that only holds the values of another, in another shape, has its range.

    Args:
        cache: Of this network, whoever exported it.
        model: As exported by this tool, in fp32.
        tensors: Those that need a range.
        names: Tensors of ``model`` by names in the cache, for what is not certain.

    Raises:
        ArtifactError: ``names`` has a name that is not in the cache, or a tensor that is not in the network or twice.
    """
    from ..graph.index import index, is_op
    from .scoped import scoped

    at = index(model.graph)
    there = {i.name for i in model.graph.input} | set(at.producer)
    given = dict(names or {})
    _check_names(given, cache, there, tensors)
    found = {name: name for name in cache.scales if name in there and name not in given.values()} | given
    for name, tensor in scoped([name for name in cache.scales if name not in found], model).items():
        if tensor not in found.values():
            found[name] = tensor
    known = {tensor: cache.scales[name] * _TOP for name, tensor in found.items()}
    amax = {}
    for tensor in tensors:
        source = tensor
        while source not in known and source in at.producer and is_op(at.producer[source], *_SAME):
            source = at.producer[source].input[0]
        if source in known:
            amax[tensor] = known[source]
    unmatched = tuple(name for name in cache.scales if name not in found)
    return Matched(amax, unmatched, tuple(t for t in tensors if t not in amax), len(found))


def read_names(text: bytes | str, name: str = "the names") -> dict[str, str]:
    """A mapping from names in a cache to this network's tensors, from a JSON object.

    Raises:
        ArtifactError: It is no such object, or a name stands in it twice.
    """
    fix = 'write it as {"name in the cache": "tensor of the network", ...}'
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as e:
        raise ArtifactError(f"{name} cannot be read: {e}", fix=fix) from e
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ArtifactError(f"{name} cannot be read: it does not give each name a tensor", fix=fix)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _check_names(names: Mapping[str, str], cache: TrtCache, there: set[str], tensors: Sequence[str]) -> None:
    for name, tensor in names.items():
        if name not in cache.scales:
            raise ArtifactError(
                f"{name!r} is not in the cache", fix=f"its names are {', '.join(list(cache.scales)[:5])} ..."
            )
        if tensor not in there:
            raise ArtifactError(
                f"{tensor!r}, which {name!r} is to mean, is no tensor of the network",
                fix=f"those that need a range are {', '.join(tensors)}",
            )
    if len(set(names.values())) < len(names):
        twice = next(t for t in names.values() if list(names.values()).count(t) > 1)
        raise ArtifactError(f"two names in the cache are to mean {twice!r}", fix="leave one of them out")
