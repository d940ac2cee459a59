"""What Triton is told of a model: its ``config.pbtxt``, a ModelConfig of ``model_config.proto`` as text.

What each backend does with it was read in its source (backends of release 26.08). That of OpenVINO computes a batch of
``max_batch_size`` whatever comes, and refuses less unless it may pad; with 0 it computes what comes. So a model for it
has 0 and a free first axis, unless a batch is asked for.
"""

from __future__ import annotations

import dataclasses as dc
import json
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ..errors import SpecError
from ..types import Dim, Precision, TensorSpec

Device = Literal["cpu", "gpu"]
CONFIG, LABELS = "config.pbtxt", "labels.txt"
FILES = {"tensorrt": ("model.plan",), "openvino": ("model.xml", "model.bin"), "onnxruntime": ("model.onnx",)}
"""The backends of Triton that serve engines, best first, and what each calls an engine's files."""
_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
_LEVELS = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}


@dc.dataclass(frozen=True, slots=True)
class Served:
    """A model as Triton serves it.

    ``batch`` are the rows that its engine takes; ``max_batch`` how many of them the server may put together, 0 where it
    is to pass on what comes. ``instances`` run at a time, each with ``threads`` of a CPU (0 for the runtime's choice).
    ``plugin`` is the library that the server has to open for it, empty where there is none.
    """

    name: str
    backend: str
    device: Device
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: Dim
    max_batch: int
    instances: int = 1
    threads: int = 0
    queue_delay_us: int = 500
    plugin: str = ""

    def __post_init__(self) -> None:
        if self.instances < 1 or self.threads < 0 or self.queue_delay_us < 0:
            raise SpecError("a model is served by one instance or more, and no number is below 0")
        if self.max_batch > self.batch.hi:
            raise SpecError(
                f"a batch of {self.max_batch} was asked for, and the engine takes {self.batch.hi}",
                fix="give --max-batch a smaller number",
            )

    @property
    def optimum(self) -> int:
        """The batch that the engine is fastest at, as far as the server may form it."""
        return min(self.batch.opt, self.max_batch) if self.max_batch else self.batch.opt

    @property
    def preferred(self) -> tuple[int, ...]:
        """The batches that the server should form."""
        padded = self.backend == "openvino"
        sizes = {self.max_batch} if padded else {self.optimum, self.max_batch}
        return tuple(sorted(size for size in sizes if size > 1))


class _Word(str):
    """The name of an enumeration's value."""

    __slots__ = ()


Fields: TypeAlias = Sequence["tuple[str, _Value]"]
_Value: TypeAlias = "str | int | bool | _Word | Sequence[int] | Sequence[Fields] | _Message"


@dc.dataclass(frozen=True, slots=True)
class _Message:
    """A message inside another."""

    fields: Fields = ()


def config(model: Served, head: str) -> str:
    """The text of ``config.pbtxt``.

    Args:
        model: What it is for.
        head: One line of comment.

    Raises:
        SpecError: A tensor's type has no name in Triton.
    """
    kind = _Word("KIND_GPU" if model.device == "gpu" else "KIND_CPU")
    fields: list[tuple[str, _Value]] = [("name", model.name), ("backend", model.backend)]
    if model.backend == "tensorrt":
        fields.append(("platform", "tensorrt_plan"))
    fields += [("max_batch_size", model.max_batch)]
    fields += [("input", _tensor(model, spec)) for spec in model.inputs]
    for place, spec in enumerate(model.outputs):
        fields.append(("output", _tensor(model, spec, labels=place == 0)))
    fields.append(("version_policy", _Message([("latest", _Message([("num_versions", 1)]))])))
    fields.append(("instance_group", _Message([("count", model.instances), ("kind", kind)])))
    if model.preferred:
        batching: list[tuple[str, _Value]] = [
            ("preferred_batch_size", model.preferred),
            ("max_queue_delay_microseconds", model.queue_delay_us),
        ]
        fields.append(("dynamic_batching", _Message(batching)))
    if (optimization := _optimization(model)) is not None:
        fields.append(("optimization", optimization))
    fields += [("parameters", _entry(key, value)) for key, value in _parameters(model).items()]
    fields += [("model_warmup", _warmup(model, size)) for size in sorted({1, model.optimum})]
    return f"# {head}\n{_written(fields)}\n"


def dtype(spec: TensorSpec) -> str:
    """A tensor's type by its name in Triton.

    Raises:
        SpecError: It has none there.
    """
    if spec.dtype not in _TYPES:
        raise SpecError(f"tensor {spec.name!r} is {spec.dtype}, which Triton has no name for")
    return _TYPES[spec.dtype]


def dims(model: Served, spec: TensorSpec) -> tuple[int, ...]:
    """A tensor's shape as the server has it: without the batch axis where it forms batches, else with a free one."""
    return spec.shape if model.max_batch else (-1, *spec.shape)


def _tensor(model: Served, spec: TensorSpec, *, labels: bool = False) -> _Message:
    fields: list[tuple[str, _Value]] = [("name", spec.name), ("data_type", _Word(dtype(spec)))]
    if model.max_batch and spec in model.inputs:  # the server takes a format of three axes alone
        fields.append(("format", _Word("FORMAT_NHWC" if spec.shape[-1] == 3 else "FORMAT_NCHW")))
    fields.append(("dims", dims(model, spec)))
    return _Message([*fields, ("label_filename", LABELS)] if labels else fields)


def _warmup(model: Served, size: int) -> _Message:
    """One request of zeros; where the server forms no batches, the batch is in the shape."""
    rows, shown = (size, ()) if model.max_batch else (1, (size,))
    inputs = [
        _Message(
            [
                ("key", spec.name),
                (
                    "value",
                    _Message([("data_type", _Word(dtype(spec))), ("dims", shown + spec.shape), ("zero_data", True)]),
                ),
            ]
        )
        for spec in model.inputs
    ]
    return _Message([("name", f"batch of {size}"), ("batch_size", rows), *(("inputs", entry) for entry in inputs)])


def _parameters(model: Served) -> dict[str, str]:
    """What the backend of OpenVINO or of ONNX Runtime reads; all instances of the first share its streams."""
    if model.backend == "openvino":
        told = {"NUM_STREAMS": str(model.instances)}
        if model.instances == 1:
            told["PERFORMANCE_HINT"] = "LATENCY"
        if model.threads:
            told["INFERENCE_NUM_THREADS"] = str(model.threads * model.instances)
        if model.max_batch > 1:
            told["ENABLE_BATCH_PADDING"] = "YES"
        return told
    if model.backend == "onnxruntime" and model.threads:
        return {"intra_op_thread_count": str(model.threads)}
    return {}


def _optimization(model: Served) -> _Message | None:
    if model.backend == "tensorrt" and not model.plugin:  # a plugin's kernels may not be recorded
        return _Message([("cuda", _Message([("graphs", True)]))])
    if model.backend != "onnxruntime" or model.device != "gpu":
        return None
    (spec,) = model.inputs
    sizes = {"min": model.batch.lo, "opt": model.optimum, "max": model.max_batch}
    shapes = {f"trt_profile_{name}_shapes": _shape(spec, size) for name, size in sizes.items()}
    told = {"precision_mode": _LEVELS[model.precision], **shapes}
    accelerator = _Message([("name", "tensorrt"), *(("parameters", _plain(k, v)) for k, v in told.items())])
    return _Message([("execution_accelerators", _Message([("gpu_execution_accelerator", accelerator)]))])


def _shape(spec: TensorSpec, size: int) -> str:
    return f"{spec.name}:{'x'.join(map(str, (size, *spec.shape)))}"


def _plain(key: str, value: str) -> _Message:
    return _Message([("key", key), ("value", value)])


def _entry(key: str, value: str) -> _Message:
    return _Message([("key", key), ("value", _Message([("string_value", value)]))])


def _written(fields: Fields, depth: int = 0) -> str:
    """Fields as protobuf's text format has them."""
    lines = []
    for name, value in fields:
        if isinstance(value, _Message):
            text = f" {{\n{_written(value.fields, depth + 1)}\n{'  ' * depth}}}"
        elif isinstance(value, _Word):
            text = f": {value}"
        elif isinstance(value, bool):
            text = f": {str(value).lower()}"
        elif isinstance(value, str):
            text = f": {json.dumps(value, ensure_ascii=False)}"
        elif isinstance(value, int):
            text = f": {value}"
        else:
            text = f": [ {', '.join(map(str, value))} ]"
        lines.append(f"{'  ' * depth}{name}{text}")
    return "\n".join(lines)
