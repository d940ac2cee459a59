"""Runs TensorRT's engines, and TensorRT for RTX's, on a GPU."""

from __future__ import annotations

import dataclasses as dc
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import ArtifactError, DeployError, MissingBackend, ToolError
from ..log import NativeLog, tensorrt_logger
from ..types import Engine, TensorSpec
from . import _plugin
from ._cuda import Bytes, Cuda, PyCuda, SharedCuda, capability
from ._trt import Trt, describe, given, sizes
from .base import Array, Timing
from .blame import cause
from .session import CheckedSession, damaged, file_of, ordered

if TYPE_CHECKING:
    import tensorrt  # type: ignore[import-untyped, import-not-found, unused-ignore]


_CAPTURED = "on"
_ALIGNMENT = 256  # bytes: IExecutionContext::setTensorAddress in NvInferRuntime.h


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
    on. There is one graph at a time, of one batch size and one place for each tensor: TensorRT's guide promises that
    one stays right as long as its context keeps its shapes, and a context for each batch size would need memory for
    the largest batch each. Where capturing fails, the
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
        plugin = _plugin.of_engine(engine, major=major, sm=capability(engine.device)) if engine.plugin else b""
        self._cuda, self._log, self._tool = cuda, NativeLog(engine.backend), engine.backend
        with cuda.current():
            self._open(trt, engine, engine_file, plugin, context)

    def _open(
        self, trt: Trt, engine: Engine, engine_file: str, plugin: bytes, context: Callable[[Any], Any] | None
    ) -> None:
        cuda = self._cuda
        self._logger = tensorrt_logger(trt, self._log)
        self._runtime = trt.Runtime(self._logger)
        if plugin:
            _plugin.register(trt, self._tool, plugin, self._log)
        plan: tensorrt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(file_of(engine, engine_file))
        if plan is None:
            errors = self._log.take_errors()
            here = f"compiled for {engine.target}, and this GPU is SM {capability(engine.device) / 10:.1f}"
            raise damaged(engine, f"{errors.splitlines()[0] if errors else 'no reason given'} ({here})", errors)
        self._engine = plan
        made = plan.create_execution_context() if context is None else context(plan)
        self._context: tensorrt.IExecutionContext = given(made, f"{self._tool} gave no execution context", self._log)
        inputs, outputs, batch = describe(trt, plan)
        super().__init__(inputs, outputs, batch, self._compute)
        self._closed = False
        self._stream = cuda.stream()
        self._events = [cuda.event() for _ in range(4)]
        self._slots: dict[str, Slot] = {}
        self._turn = threading.Lock()
        self._bound: tuple[int, dict[str, int]] | None = None  # batch size and addresses that the context has
        self._enqueued = False  # whether it ran at those
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
        with self._turn, self._cuda.current():
            if self._closed:
                self._infer(arrays)  # says so
            return self._timed(arrays)

    @property
    def shared(self) -> SharedCuda:
        """See ``OnDevice``."""
        if isinstance(self._cuda, PyCuda):
            raise MissingBackend("arrays on a GPU are taken through cuda-python", fix="pip install cuda-python")
        return cast("SharedCuda", self._cuda)

    @property
    def stream(self) -> int:
        """See ``OnDevice``."""
        if self._closed:
            self._infer([])  # says so
        return self._cuda.address(self._stream)

    def run_device(
        self,
        rows: int,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        *,
        after: Iterable[int],
        done: Any,  # noqa: ANN401 - an event, see Cuda
        then: int | None,
    ) -> None:
        """See ``OnDevice``."""
        cuda = self.shared
        with self._turn, cuda.current():
            if self._closed:
                self._infer([])  # says so
            must_wait = True
            try:
                for other in after:
                    cuda.record(done, other)
                    cuda.after(self._stream, done)
                for start in range(0, rows, self.batch.hi):
                    self._run_piece(cuda, start, min(self.batch.hi, rows - start), inputs, outputs)
                cuda.record(done, self._stream)
                if then is not None:
                    cuda.after(then, done)
                    must_wait = False
            finally:
                if must_wait:
                    cuda.wait(self._stream)

    def _run_piece(
        self, cuda: SharedCuda, start: int, rows: int, inputs: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        """Run some rows where they lie; through memory of its own where they are too few, or not where TensorRT can."""
        batch = max(rows, self.batch.lo)
        theirs, place = {}, {}
        for spec in (*self.inputs, *self.outputs):
            address = {**inputs, **outputs}[spec.name] + start * _row_bytes(spec)
            fits = batch == rows and address % _ALIGNMENT == 0
            theirs[spec.name], place[spec.name] = address, address if fits else int(self._slots[spec.name].memory)
        self._bind(batch, place)
        for spec in self.inputs:
            if (to := place[spec.name]) != theirs[spec.name]:
                cuda.copy(to, theirs[spec.name], rows * _row_bytes(spec), self._stream)
        self._execute()
        for spec in self.outputs:
            if (source := place[spec.name]) != theirs[spec.name]:
                cuda.copy(theirs[spec.name], source, rows * _row_bytes(spec), self._stream)

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
        with self._cuda.current():
            self._release()

    def _release(self) -> None:
        self._cuda.wait(self._stream)
        self._forget()
        slots, self._slots = self._slots, {}
        del self._context, self._engine, self._runtime  # in this order: each uses the next
        for slot in slots.values():
            self._cuda.free(slot.memory)
            self._cuda.unpin(slot.host)
        self._cuda.close(self._stream, self._events)

    def _reserve(self, spec: TensorSpec) -> None:
        """Memory for a tensor at the largest batch."""
        size_bytes = self.batch.hi * _row_bytes(spec)
        memory = self._cuda.malloc(size_bytes)  # first: it is what runs out
        self._slots[spec.name] = Slot(spec, self._cuda.pinned(size_bytes), memory)

    def _compute(self, arrays: list[Array]) -> list[Array]:
        with self._turn, self._cuda.current():
            batch = self._shape(arrays)
            self._copy_in(batch)
            self._execute()
            self._copy_out(batch)
            self._cuda.wait(self._stream)
            return [self._slots[spec.name].view(batch).copy() for spec in self.outputs]

    def _shape(self, arrays: list[Array]) -> int:
        """Put the inputs into pinned memory, and tell the engine what is new of its tensors; returns the batch."""
        batch = len(arrays[0])
        for spec, array in zip(self.inputs, arrays, strict=True):
            np.copyto(self._slots[spec.name].view(batch), array)
        self._bind(batch, {name: int(slot.memory) for name, slot in self._slots.items()})
        return batch

    def _bind(self, batch: int, place: dict[str, int]) -> None:
        """Tell the engine its batch size and where its tensors are, if that is new."""
        if self._bound == (batch, place):
            return
        self._forget()
        for spec in self.inputs:
            shape = (batch, *spec.shape)
            self._accepted(self._context.set_input_shape(spec.name, shape), f"the shape {shape}")
        for spec in self.outputs:
            found = sizes(self._context.get_tensor_shape(spec.name))
            self._accepted(found == [batch, *spec.shape], f"a batch of {batch}: output {spec.name!r} would be {found}")
        for name, address in place.items():
            self._accepted(self._context.set_tensor_address(name, address), f"the address of {name!r}")
        self._bound = batch, place

    def _copy_in(self, batch: int) -> None:
        for spec in self.inputs:
            slot = self._slots[spec.name]
            self._cuda.to_device(slot.memory, slot.part(batch), self._stream)

    def _execute(self) -> None:
        """Replay the graph of this batch size and place; else enqueue the work, captured where it has run before."""
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
        """Let the graph go, before the context gets other shapes or addresses."""
        graph, self._graph = self._graph, None
        self._bound, self._enqueued = None, False
        if graph is not None:
            self._cuda.drop(graph)

    def _copy_out(self, batch: int) -> None:
        for spec in self.outputs:
            slot = self._slots[spec.name]
            self._cuda.to_host(slot.part(batch), slot.memory, self._stream)

    def _accepted(self, ok: bool, what: str) -> None:
        if not ok:
            log = self._log.take_errors()
            found = cause(self._tool, log)
            why, fix = ("", "") if found is None else (f": {found.what}", found.fix)
            raise ToolError(f"{self._tool} refused {what}{why}", fix=fix, log=log)


def _row_bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
