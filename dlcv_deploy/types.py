"""The frozen values that pass between stages. None needs a machine, a device or a heavy package to exist."""

from __future__ import annotations

import dataclasses as dc
import math
import re
from collections.abc import Mapping
from typing import Literal

from .errors import SpecError

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dc.dataclass(frozen=True, slots=True)
class Dim:
    """One axis length, in elements: fixed when ``lo == hi``, else free between them."""

    lo: int
    opt: int
    hi: int

    def __post_init__(self) -> None:
        if not 1 <= self.lo <= self.opt <= self.hi:
            raise SpecError(
                f"dimension {self.lo}:{self.opt}:{self.hi} is not ordered",
                fix="write it as lo:opt:hi with 1 <= lo <= opt <= hi",
            )


_SM = re.compile(r"\b(\d+)\.(\d)\b")

BATCH = Dim(1, 10, 64)
"""Batch sizes an engine takes: one image, ten crops, and room for throughput."""


@dc.dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a graph or engine; ``shape`` leaves the batch axis, which comes first, out."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dc.dataclass(frozen=True, slots=True)
class Preprocess:
    """How a photograph becomes a network's input: RGB, a square canvas, crops of it, /255, minus mean, over std.

    ``fit`` makes the canvas: "resize" scales the shorter side to ``canvas`` and cuts the centre square;
    "pad" puts black pixels evenly around an image of ``size`` x ``size``. ``mean`` and ``std`` are RGB in [0, 1].
    """

    size: int
    canvas: int
    fit: Literal["resize", "pad"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.canvas:
            raise SpecError(f"a crop of {self.size} pixels does not fit a canvas of {self.canvas}")
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise SpecError(
                f"mean {self.mean} and std {self.std} do not normalize an image",
                fix="give three numbers each, in [0, 1], std above 0: --mean .485,.456,.406 --std .229,.224,.225",
            )


@dc.dataclass(frozen=True, slots=True)
class ExportedModel:
    """A network as ONNX: standard operators, dynamic batch, every tensor named by this tool.

    ``onnx`` is a serialized ModelProto. ``weights_sha256`` names the PyTorch weights, whatever file they came from.
    """

    name: str
    onnx: bytes = dc.field(repr=False)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights_sha256: str
    precision: Precision = "fp32"


@dc.dataclass(frozen=True, slots=True)
class LeftAlone:
    """A node that keeps its precision, and why."""

    node: str
    op_type: str
    reason: str


@dc.dataclass(frozen=True, slots=True)
class Corrections:
    """What is changed in a network before and while it is written in INT8, so that rounding costs less.

    ``pixels`` are mean and standard deviation of the input (RGB, of values in [0, 1]): the image is then quantized in
    steps of its own 256 levels, which loses nothing. ``equalization`` gives, for tensors by name, what each channel is
    divided by; ``gain`` and ``bias``, for nodes by name, what each output channel's weights and bias are multiplied by
    and what is then added to its bias, in units after the equalization. ``rounding`` are nodes whose weights are not
    rounded to the nearest step: what is added to the nearest, output channel by output channel, as signed bytes,
    compressed by zlib and written in base64. ``float_sums`` leaves residual sums in floating
    point, ``float_nodes`` the nodes that it names.
    """

    pixels: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    equalization: Mapping[str, tuple[float, ...]] = dc.field(default_factory=dict)
    gain: Mapping[str, tuple[float, ...]] = dc.field(default_factory=dict)
    bias: Mapping[str, tuple[float, ...]] = dc.field(default_factory=dict)
    rounding: Mapping[str, str] = dc.field(default_factory=dict, repr=False)
    float_sums: bool = False
    float_nodes: tuple[str, ...] = ()


@dc.dataclass(frozen=True, slots=True)
class QuantizedModel:
    """An INT8 graph (explicit symmetric Q/DQ), the nodes that compute in INT8, and those left alone."""

    model: ExportedModel
    quantized: tuple[str, ...]
    left_alone: tuple[LeftAlone, ...]


@dc.dataclass(frozen=True, slots=True)
class Ability:
    """What a backend can do on this machine; ``no_compile`` and ``no_run`` say why it cannot, empty where it can.

    ``device`` is the architecture that engines are tied to where the backend compiles for this machine's alone.
    """

    version: str
    no_compile: str
    no_run: str
    device: str = ""

    @property
    def can_compile(self) -> bool:
        """Whether an engine can be built here."""
        return not self.no_compile

    @property
    def can_run(self) -> bool:
        """Whether an engine can be run here."""
        return not self.no_run


@dc.dataclass(frozen=True, slots=True)
class CompileOptions:
    """What a compiler may be told. ``sm`` are GPU architectures (89 for SM 8.9), empty for the backend's default.

    ``plugin`` is the LRN plugin's library, for a graph with its nodes, which the two TensorRTs alone can read.
    ``streams`` is how many threads will call the session at once, on a CPU: each call gets its share of the cores.
    """

    batch: Dim = BATCH
    sm: tuple[int, ...] = ()
    workspace_bytes: int = 1 << 30
    timing_cache: str = ""
    timeout_s: float = 1800.0
    plugin: bytes = dc.field(default=b"", repr=False)
    streams: int = 1


@dc.dataclass(frozen=True, slots=True)
class PluginNeed:
    """The LRN plugin's library that an engine calls: one of its files, and what that file says of itself.

    ``tensorrt`` is the version of the headers it was compiled against, ``architectures`` the GPUs it has code for (89
    for SM 8.9), ``ops`` the plugins that it brings.
    """

    file: str
    sha256: str
    tensorrt: str
    architectures: tuple[int, ...]
    ops: tuple[str, ...]


@dc.dataclass(frozen=True, slots=True)
class Engine:
    """What a backend compiled: its files as the vendor's own tools read them, and what it was compiled with.

    ``target`` says for what in words ("CPU", "SM 8.6, 8.9"); ``notes`` are warnings worth keeping; ``batch`` are the
    batch sizes it takes; ``plugin`` is the library without which it cannot run. Bundles do not keep the rest, which is
    how it is loaded: ``streams`` as in ``CompileOptions``; ``threads`` that it may use of a CPU, 0 for the runtime's
    own choice; ``cuda_graphs``, whether a GPU's work is recorded once and then replayed; ``device``, on
    which GPU.
    """

    backend: str
    target: str
    version: str
    files: Mapping[str, bytes] = dc.field(repr=False)
    notes: tuple[str, ...] = ()
    batch: Dim = BATCH
    plugin: PluginNeed | None = None
    streams: int = 1
    threads: int = 0
    cuda_graphs: bool = True
    device: int = 0

    @property
    def sm(self) -> tuple[int, ...]:
        """The GPU architectures that ``target`` names (89 for SM 8.9); empty for a CPU's."""
        return tuple(int(major + minor) for major, minor in _SM.findall(self.target))

    @property
    def later(self) -> bool:
        """Whether it runs on architectures above these too."""
        return self.target.endswith(" and later")


@dc.dataclass(frozen=True, slots=True)
class NotInt8:
    """A product that an engine of an INT8 build does not compute in INT8.

    ``module`` is the PyTorch module that it stems from, where that is known, else the node's name; ``runs_in`` as NumPy
    names types, "unknown" where the backend does not say. ``asked`` says that it was to stay in floating point.
    """

    node: str
    module: str
    op_type: str
    multiply_adds: int
    runs_in: str
    reason: str
    asked: bool = False


@dc.dataclass(frozen=True, slots=True)
class PrecisionAudit:
    """What share of an engine's multiply-adds really runs in INT8, for one image, and how that is known.

    ``asked_share`` is what is left of 1 by the products that were to stay in floating point.
    """

    engine: str
    int8_share: float
    asked_share: float
    total_multiply_adds: int
    not_int8: tuple[NotInt8, ...]
    evidence: str


@dc.dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage took, and whether its result was taken from an earlier run."""

    name: str
    seconds: float
    reused: bool
