"""Runs TensorRT's engines, and TensorRT for RTX's, on the first GPU."""

from __future__ import annotations

import dataclasses as dc
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArtifactError, DeployError, ToolError
from ..log import NativeLog, tensorrt_logger
from ..types import Dim, Engine, TensorSpec
from . import _plugin
from ._cuda import Bytes, Cuda, capability
from ._trt import Trt, dtype_of, given, sizes
from .base import Array, Timing
from .session import CheckedSession, damaged, file_of, ordered, spec_of

if TYPE_CHECKING:
    import tensorrt  # type: ignore[import-untyped, import-not-found, unused-ignore]


_CAPTURED = "on"


@dc.dataclass(frozen=True, slots=True)
class Slot:
    """Where a tensor lives: pinned memory on the host and memory on the device, for the largest batch."""

    spec: TensorSpec
    host: Bytes
    memory: Any

    def view(self, batch: int) -> Array:
        """The host memory as the tensor, for a batch."""
        return self.part(batch).view(self.spec.dtype).reshape(batch, *self.spec.shape)

    def part(self, batch: int) -> Bytes:
        """The host memory that a batch takes."""
        return self.host[: batch * _row_bytes(self.spec)]


class DeviceSession(CheckedSession):
    """An engine on the GPU with its buffers, its stream and four events. Calls from several threads wait in turn.

    The engine's work is captured as a CUDA graph at the second call in a row of one batch size, and replayed from then
    on. There is one graph at a time: TensorRT's guide promises that one stays right as long as its context keeps its
    shapes, and a context for each batch size would need memory for the largest batch each. Where capturing fails, the
    work is enqueued anew each time, as without graphs; ``settings`` says so.

    ``major`` is the TensorRT that a plugin's library must be built against; None where any will do. ``context`` makes
    the execution context of an engine whose TensorRT captures graphs itself, which then is not done here.

    Raises:
        ArtifactError: The engine is damaged, or was compiled by another version or for another GPU; the library of the
            plugin that it needs is missing, altered, or for others.
        ToolError: The runtime or CUDA failed.
    """

    def __init__(
        self,
        trt: Trt,
        engine: Engine,
        engine_file: str,
        version: str,
        cuda: Cuda,
        *,
        major: int | None = None,
        context: Callable[[Any], Any] | None = None,
    ) -> None:
        if engine.version != version:
            raise ArtifactError(
                f"the {engine.backend} engine was compiled by version {engine.version}, and {version} is installed",
                fix="build it again, or install that version",
            )
        plugin = _plugin.of_engine(engine, major=major, sm=capability()) if engine.plugin else b""
        self._cuda, self._log, self._tool = cuda, NativeLog(engine.backend), engine.backend
        self._logger = tensorrt_logger(trt, self._log)
        self._runtime = trt.Runtime(self._logger)
        if plugin:
            _plugin.register(trt, self._tool, plugin, self._log)
        plan: tensorrt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(file_of(engine, engine_file))
        if plan is None:
            errors = self._log.take_errors()
            here = f"compiled for {engine.target}, and this GPU is SM {capability() / 10:.1f}"
            raise damaged(engine, f"{errors.splitlines()[0] if errors else 'no reason given'} ({here})")
        self._engine = plan
        made = plan.create_execution_context() if context is None else context(plan)
        self._context: tensorrt.IExecutionContext = given(made, f"{self._tool} gave no execution context", self._log)
        inputs, outputs, batch = _describe(trt, plan)
        super().__init__(inputs, outputs, batch, self._compute)
        self._closed = False
        self._stream = cuda.stream()
        self._events = [cuda.event() for _ in range(4)]
        self._slots: dict[str, Slot] = {}
        self._turn = threading.Lock()
        self._shaped, self._enqueued = 0, False  # the batch size that the context has, and whether it ran at that
        self._graph: Any = None
        self._graphs = (_CAPTURED if context is None else "on, the runtime's own") if engine.cuda_graphs else "off"
        try:
            for spec in (*inputs, *outputs):
                self._reserve(spec)
        except DeployError:
            self.close()
            raise

    def run_timed(self, feeds: Mapping[str, Array]) -> Timing:
        arrays = ordered(feeds, self.inputs, self.batch)
        with self._turn:
            if self._closed:
                self._infer(arrays)  # says so
            return self._timed(arrays)

    @property
    def settings(self) -> Mapping[str, str]:
        """See ``Described``."""
        return {
            "CUDA graphs": self._graphs,
            "CUDA streams": "1",
            "host memory": "pinned",
            "CUDA through": self._cuda.name,
        }

    def _timed(self, arrays: list[Array]) -> Timing:
        cuda, stream = self._cuda, self._stream
        batch = self._shape(arrays)
        cuda.record(self._events[0], stream)
        self._copy_in(batch)
        cuda.record(self._events[1], stream)
        start = time.perf_counter()
        self._execute()
        enqueue_ms = (time.perf_counter() - start) * 1e3
        cuda.record(self._events[2], stream)
        self._copy_out(batch)
        cuda.record(self._events[3], stream)
        cuda.wait(stream)
        h2d, compute, d2h = (cuda.elapsed_ms(a, b) for a, b in zip(self._events, self._events[1:], strict=False))
        return Timing(h2d, compute, d2h, enqueue_ms)

    def close(self) -> None:
        super().close()
        if self._closed:
            return
        self._closed = True
        self._cuda.wait(self._stream)
        self._forget()
        slots, self._slots = self._slots, {}
        del self._context, self._engine, self._runtime  # in this order: each uses the next
        for slot in slots.values():
            self._cuda.free(slot.memory)
            self._cuda.unpin(slot.host)
        self._cuda.close(self._stream, self._events)

    def _reserve(self, spec: TensorSpec) -> None:
        """Memory for a tensor at the largest batch, which the engine is told of once."""
        size_bytes = self.batch.hi * _row_bytes(spec)
        memory = self._cuda.malloc(size_bytes)  # first: it is what runs out
        slot = Slot(spec, self._cuda.pinned(size_bytes), memory)
        self._slots[spec.name] = slot
        self._accepted(self._context.set_tensor_address(spec.name, int(slot.memory)), f"the address of {spec.name!r}")

    def _compute(self, arrays: list[Array]) -> list[Array]:
        with self._turn:
            batch = self._shape(arrays)
            self._copy_in(batch)
            self._execute()
            self._copy_out(batch)
            self._cuda.wait(self._stream)
            return [self._slots[spec.name].view(batch).copy() for spec in self.outputs]

    def _shape(self, arrays: list[Array]) -> int:
        """Put the inputs into pinned memory, and tell the engine their shapes if they are new; returns the batch."""
        batch = len(arrays[0])
        for spec, array in zip(self.inputs, arrays, strict=True):
            np.copyto(self._slots[spec.name].view(batch), array)
        if batch == self._shaped:
            return batch
        self._forget()
        for spec, array in zip(self.inputs, arrays, strict=True):
            self._accepted(self._context.set_input_shape(spec.name, array.shape), f"the shape {array.shape}")
        for spec in self.outputs:
            shape = sizes(self._context.get_tensor_shape(spec.name))
            self._accepted(shape == [batch, *spec.shape], f"a batch of {batch}: output {spec.name!r} would be {shape}")
        self._shaped = batch
        return batch

    def _copy_in(self, batch: int) -> None:
        for spec in self.inputs:
            slot = self._slots[spec.name]
            self._cuda.to_device(slot.memory, slot.part(batch), self._stream)

    def _execute(self) -> None:
        """Replay the graph of this batch size; else enqueue the work, captured where it has run before."""
        if self._enqueued and self._graph is None and self._graphs == _CAPTURED:
            try:
                self._graph = self._cuda.captured(self._stream, self._enqueue)
            except ToolError as e:
                self._graphs = f"none: {e.what}"
                self._log.take_errors()
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
            return
        self._enqueue()
        self._enqueued = True

    def _enqueue(self) -> None:
        self._accepted(self._context.execute_async_v3(self._cuda.address(self._stream)), "to run")

    def _forget(self) -> None:
        """Let the graph go, before the context gets other shapes."""
        graph, self._graph = self._graph, None
        self._shaped, self._enqueued = 0, False
        if graph is not None:
            self._cuda.drop(graph)

    def _copy_out(self, batch: int) -> None:
        for spec in self.outputs:
            slot = self._slots[spec.name]
            self._cuda.to_host(slot.part(batch), slot.memory, self._stream)

    def _accepted(self, ok: bool, what: str) -> None:
        if not ok:
            raise ToolError(f"{self._tool} refused {what}", log=self._log.take_errors())


def _row_bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def _describe(trt: Trt, plan: tensorrt.ICudaEngine) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], Dim]:
    """Inputs, outputs and the batch sizes that all inputs take (the first profile's)."""
    names = [plan.get_tensor_name(i) for i in range(plan.num_io_tensors)]
    inputs = [name for name in names if plan.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    shapes = {name: sizes(plan.get_tensor_shape(name)) for name in names}
    bounds = []
    for name in inputs:
        fixed = shapes[name][0]
        profile = [shape[0] for shape in plan.get_tensor_profile_shape(name, 0)] if fixed is None else [fixed] * 3
        bounds.append(profile)
    batch = Dim(max(b[0] for b in bounds), max(b[1] for b in bounds), min(b[2] for b in bounds))

    def spec(name: str) -> TensorSpec:
        return spec_of(name, shapes[name], dtype_of(name, plan.get_tensor_dtype(name)), batch)

    return tuple(map(spec, inputs)), tuple(spec(name) for name in names if name not in inputs), batch
