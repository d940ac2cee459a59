"""From a bundle to the files of a model that Triton serves: which engine, what before it, and whether it holds."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .. import backends
from ..bundle import Bundle
from ..engines import Lowered, between, compiled, said_of
from ..errors import MissingBackend, SpecError, ToolError
from ..lrn import plugin_graph
from ..parity import compare
from ..parity.contract import golden_images
from ..parity.crops import Pixels, canvas, crops, to_input
from ..stages import Stages
from ..types import BATCH, CompileOptions, Dim, Engine, ExportedModel, Precision, TensorSpec
from .config import FILES, Served
from .register import FILE as REGISTER
from .register import register_library

if TYPE_CHECKING:
    from ..backends.base import Array

_RTX = "tensorrt_rtx"
_DRAWN = 12
"""Images that a baked engine is checked on besides the golden ones."""
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3, "int8": 2e-2}
"""How far a baked engine's probabilities may be from those of engine and preprocessing apart. A runtime may take the
normalization into the first convolution, and another order of rows moves a float by its last digits; in INT8 such a
digit may round one step further."""


@dc.dataclass(frozen=True, slots=True)
class Wanted:
    """How models are to be served; ``max_batch`` None is the engine's own, and for OpenVINO none at all."""

    targets: tuple[str, ...] = ()
    uint8: bool = False
    ten_crop: bool = False
    gpu: bool = False
    instances: int = 1
    threads: int = 0
    max_batch: int | None = None
    queue_delay_us: int = 500

    @property
    def baked(self) -> bool:
        """Whether anything is put before the network."""
        return self.uint8 or self.ten_crop


@dc.dataclass(frozen=True, slots=True)
class Check:
    """A baked engine beside the bundle's own with preprocessing in Python; ``not_run`` says why they were not run."""

    images: int = 0
    same_bits: bool = False
    greatest_difference: float = 0.0
    tolerance: float = 0.0
    not_run: str = ""


@dc.dataclass(frozen=True, slots=True)
class Made:
    """A model and what goes into the folder of its version; ``notes`` are what its users must know."""

    served: Served
    engine: Engine
    files: Mapping[str, bytes] = dc.field(repr=False)
    check: Check | None = None
    notes: tuple[str, ...] = ()


def targets_of(bundle: Bundle, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The engines of a bundle to serve: those asked for, else the best that Triton loads, else its ONNX graph.

    Raises:
        SpecError: Triton does not load such an engine, or the bundle holds none.
    """
    held = bundle.manifest.engines
    if not asked:
        return (next((name for name in FILES if name in held), "onnxruntime"),)
    for name in asked:
        if name == _RTX:
            raise SpecError(
                "Triton's TensorRT backend does not load engines of TensorRT for RTX",
                fix="--target onnxruntime serves the same graph; build --target tensorrt on the GPU that is to serve",
            )
        if name not in FILES:
            raise SpecError(f"Triton serves no engine for {name!r}", fix=f"use some of {', '.join(FILES)}")
        if name not in held and name != "onnxruntime":  # which runs the graph that every bundle holds
            raise SpecError(
                f"{bundle.path.name} holds no engine for {name!r}", fix=f"build it again with --target {name}"
            )
    return tuple(dict.fromkeys(asked))


def made(bundle: Bundle, name: str, target: str, wanted: Wanted, stages: Stages) -> Made:
    """A bundle's engine as a model of Triton's.

    Args:
        bundle: Where the engine is.
        name: The model's.
        target: Which engine.
        wanted: How it is to be served.
        stages: What is compiled is kept there.

    Raises:
        SpecError: What is asked for does not fit the network or the engine.
        MissingBackend: The baked graph cannot be compiled here.
        ToolError: It was refused, or the baked engine answers otherwise.
    """
    own = _engine(bundle, target)
    inputs, outputs, engine, check = bundle.manifest.inputs, bundle.manifest.outputs, own, None
    if wanted.baked:
        graph = _baked(bundle.model(), bundle, wanted, stages)
        inputs, outputs = _tensors(graph.onnx)
        engine = _compiled(graph, own, _rows(own.batch, bundle, wanted), stages)
        check = _checked(bundle, own, engine, wanted)
    served = Served(
        name,
        target,
        "gpu" if target == "tensorrt" or engine.target == "CUDA" or (wanted.gpu and target == "onnxruntime") else "cpu",
        bundle.manifest.precision,
        inputs,
        outputs,
        engine.batch,
        _server_batch(target, engine.batch, wanted.max_batch),
        wanted.instances,
        wanted.threads,
        wanted.queue_delay_us,
        REGISTER if engine.plugin is not None else "",
    )
    if wanted.gpu and served.device != "gpu":
        raise SpecError("OpenVINO serves from a CPU alone", fix="leave --gpu out, or add --target onnxruntime")
    return Made(served, engine, _files(engine), check, _notes(bundle, served, engine, wanted))


def _engine(bundle: Bundle, target: str) -> Engine:
    """A bundle's engine; for ONNX Runtime its graph, where it holds none."""
    if target in bundle.manifest.engines:
        return bundle.engine(target)
    batch = next((Dim(*entry["batch"]) for entry in bundle.manifest.engines.values()), BATCH)
    return Engine(target, "CPU", "", {"model.onnx": bundle.read("model.onnx")}, (), batch)


def _rows(batch: Dim, bundle: Bundle, wanted: Wanted) -> Dim:
    """The rows that a baked engine takes; each is ten of the network's where it cuts ten crops."""
    if not wanted.ten_crop:
        return batch
    if batch.hi < 10:
        raise SpecError(
            f"an engine of {bundle.path.name} takes {batch.hi} rows, and ten crops of an image are 10",
            fix="build it with a larger batch",
        )
    least, most = -(-batch.lo // 10), batch.hi // 10
    return Dim(least, min(most, max(least, batch.opt // 10)), most)


def _server_batch(target: str, batch: Dim, asked: int | None) -> int:
    if asked is None:
        return 0 if target == "openvino" else batch.hi
    return asked


def _baked(model: ExportedModel, bundle: Bundle, wanted: Wanted, stages: Stages) -> ExportedModel:
    pre = bundle.manifest.preprocess

    def make() -> dict[str, bytes]:
        from onnx import load_model_from_string

        from ..graph.bake import bake

        proto = bake(load_model_from_string(model.onnx), pre, uint8=wanted.uint8, ten_crop=wanted.ten_crop)
        return {"model.onnx": proto.SerializeToString(deterministic=True)}

    files = stages.run("bake", make, onnx=model.onnx, pre=pre, uint8=wanted.uint8, ten_crop=wanted.ten_crop)
    return dc.replace(model, onnx=files["model.onnx"])


def _tensors(onnx: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a graph without their batch axis."""
    from onnx import ValueInfoProto, helper, load_model_from_string

    graph = load_model_from_string(onnx).graph
    held = {i.name for i in graph.initializer}

    def spec(value: ValueInfoProto) -> TensorSpec:
        tensor = value.type.tensor_type
        shape = tuple(int(d.dim_value) for d in tensor.shape.dim)[1:]
        return TensorSpec(value.name, shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)

    return tuple(spec(i) for i in graph.input if i.name not in held), tuple(map(spec, graph.output))


def _compiled(model: ExportedModel, own: Engine, batch: Dim, stages: Stages) -> Engine:
    """A baked graph's engine, lowered as the bundle's own was."""
    lowered = Lowered(model)
    read, plugged, options = lowered, tuple[str, ...](), CompileOptions(batch=batch)
    onnx = model.onnx
    if own.backend == "tensorrt":
        read = between(lowered, stages)
        onnx = read.model.onnx
        if own.plugin is not None:
            graph = plugin_graph(read.model, stages)
            onnx, plugged = graph.onnx, graph.lowered
            options = dc.replace(options, plugin=own.files[own.plugin.file])
    return said_of(compiled(own.backend, onnx, options, stages, note=", baked"), read, lowered, plugged)


def _checked(bundle: Bundle, own: Engine, engine: Engine, wanted: Wanted) -> Check:
    """Hold a baked engine against the bundle's own, on the golden images and on drawn ones.

    Raises:
        ToolError: Their probabilities differ by more than ``TOLERANCE``, or are not finite.
    """
    backend = backends.get(own.backend)
    if reason := backend.ability().no_run:
        return Check(not_run=reason)
    precision = bundle.manifest.precision
    images, same, worst = _canvases(bundle), True, 0.0
    try:
        with backend.load(own) as plain, backend.load(engine) as baked:
            for start in range(0, len(images), engine.batch.hi):
                fed, rows = _feeds(images[start : start + engine.batch.hi], bundle, wanted)
                expected = np.asarray(plain.run({plain.inputs[0].name: rows})[plain.outputs[0].name], np.float32)
                found = np.asarray(baked.run({baked.inputs[0].name: fed})[baked.outputs[0].name], np.float32)
                same &= not wanted.ten_crop and np.array_equal(expected, found)
                wanted_p = compare.softmax(expected)
                if wanted.ten_crop:  # crop by crop, as the baked graph has its rows
                    wanted_p = wanted_p.reshape(10, len(fed), -1).mean(0)
                found_p = found if wanted.ten_crop else compare.softmax(found)
                worst = float(np.maximum(worst, np.abs(found_p - wanted_p).max()))
    except MissingBackend as e:
        return Check(not_run=e.what)
    if not worst <= TOLERANCE[precision]:  # NaN is not
        raise ToolError(
            f"{own.backend} answers otherwise with preprocessing in the graph: probabilities differ by {worst:.2g}, "
            f"and {TOLERANCE[precision]:g} is the most that rounding explains in {precision}",
            fix="leave --input and --ten-crop out, or serve another --target",
        )
    return Check(len(images), same, worst, TOLERANCE[precision])


def _canvases(bundle: Bundle) -> Pixels:
    """(N, C, C, 3): the golden images and drawn ones."""
    from ..calibration.images import decode
    from ..calibration.samples import drawn

    pre = bundle.manifest.preprocess
    samples = drawn(_DRAWN, pre.size if pre.fit == "pad" else pre.canvas)
    images = [decode(bundle.path / name, name) for name in golden_images(bundle.manifest.files)]
    images += [samples.image(i) for i in range(_DRAWN)]
    return np.stack([canvas(image, pre) for image in images])


def _feeds(images: Pixels, bundle: Bundle, wanted: Wanted) -> tuple[Array, Array]:
    """What a baked engine takes of canvases, and the plain one's input for the same, crop by crop."""
    pre, count = bundle.manifest.preprocess, 10 if wanted.ten_crop else 1
    cut = np.stack([crops(image, pre, count) for image in images], axis=1)  # (count, N, S, S, 3)
    rows = to_input(cut.reshape(-1, *cut.shape[2:]), pre)
    pixels = images if wanted.ten_crop else cut[0]
    return (np.ascontiguousarray(pixels) if wanted.uint8 else to_input(pixels, pre)), rows


def _files(engine: Engine) -> dict[str, bytes]:
    """An engine's files as Triton calls them, with the plugin's library and what registers it."""
    library = engine.plugin.file if engine.plugin is not None else ""
    own = [data for name, data in engine.files.items() if name != library]
    if engine.backend == "openvino":
        return dict(engine.files)
    files = {FILES[engine.backend][0]: own[0]}
    if library:
        files |= {library: engine.files[library], REGISTER: register_library(library)}
    return files


def _notes(bundle: Bundle, served: Served, engine: Engine, wanted: Wanted) -> tuple[str, ...]:
    notes = []
    if served.backend == "tensorrt":
        notes.append(
            f"the plan loads where TensorRT is {engine.version} and the GPU is {engine.target}, and nowhere else"
        )
    if served.backend == "onnxruntime" and not wanted.targets and _RTX in bundle.manifest.engines:
        notes.append("the ONNX graph is served: Triton does not load the bundle's engine of TensorRT for RTX")
    if served.backend == "openvino":
        notes.append(
            "on a CPU with bf16 arithmetic (AVX512_BF16, AMX) Triton's OpenVINO computes in bf16 what is not INT8, and "
            "has no parameter against it: --target onnxruntime keeps to the precision of the graph"
        )
        if not served.max_batch:
            notes.append("the server forms no batches for OpenVINO: a request is computed as it comes, of any rows")
        elif served.max_batch > 1:
            notes.append(f"OpenVINO computes a batch of {served.max_batch} whatever comes: the rest is padding")
    if wanted.ten_crop and len(bundle.manifest.outputs) > 1:
        dropped = ", ".join(spec.name for spec in bundle.manifest.outputs[1:])
        notes.append(f"with ten crops the one output is probabilities; {dropped} left out")
    return tuple(notes)
