"""A GPU that is not there, shared with other libraries, and an engine on it: see ``host_gpu``."""

import contextlib
import ctypes
from types import SimpleNamespace

import numpy as np
from helpers.host_gpu import HostGpu

from dlcv_deploy.backends import _trt_session
from dlcv_deploy.runtime import dlpack
from dlcv_deploy.types import Dim, Engine

ROW, CLASSES, BATCH = (3, 2, 2), 5, Dim(2, 3, 4)  # rows of answers are 20 bytes: pieces of them are not aligned
LEGACY, PER_THREAD = 1, 2


class HostCuda(HostGpu):
    """A ``SharedCuda``. As with CUDA, a stream waits for an event as it was last recorded when it was told to.

    ``strangers`` are addresses that cannot be used, with the reason and its fix; ``events`` those not given back;
    ``depth`` how often its context is on the thread's stack, and every call is made with it there.
    """

    name = "host"

    def __init__(self, index=0):
        super().__init__()
        self.index, self.strangers, self.said, self.events, self.depth = index, {}, [], 0, 0
        for _ in (LEGACY, PER_THREAD):
            self.stream()
        self._recording = None

    @contextlib.contextmanager
    def current(self):
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def malloc(self, size_bytes):
        """At addresses as aligned as CUDA's."""
        assert self.depth
        block = np.full(size_bytes + 255, 0x5A, np.uint8)
        block = block[-block.ctypes.data % 256 :][:size_bytes]
        self._memory[block.ctypes.data] = block
        return block.ctypes.data

    def event(self):
        assert self.depth
        self.events += 1
        return SimpleNamespace(ps=None, mark=None)

    def record(self, event, stream):
        event.mark = mark = SimpleNamespace(happened=False)
        super().record(event, stream)
        self._put(stream, 0, lambda: setattr(mark, "happened", True))

    def after(self, stream, event):
        assert self.depth
        self.said.append(("after", stream))
        if event.mark is not None:
            self._put(stream, 0, _Until(event.mark))

    def wait(self, stream):
        self.said.append(("wait", stream))
        while self._queues[stream]:
            able = [q for q in self._queues.values() if q and getattr(q[0][1], "able", lambda: True)()]
            assert able, "streams wait for each other"
            for queue in able:
                queue.pop(0)[1]()

    def to_host(self, host, memory, stream):
        assert self.depth
        self._check(memory, host.nbytes)
        self._put(stream, 0, lambda: ctypes.memmove(host.ctypes.data, memory, host.nbytes))

    def free(self, memory):
        assert self.depth
        for stream in self._queues:
            self.wait(stream)
        super().free(memory)

    def release(self, memory, event):
        self.free(memory)
        self.events -= 1

    def close(self, stream, events):
        self.events -= len(events)
        super().close(stream, events)

    def foreign(self, memory):
        return self.strangers.get(memory, ("", ""))

    def captured(self, stream, work):
        self._recording = recorded = []
        work()
        self._recording = None
        self.said.append(("captured", stream))
        return recorded

    def launch(self, graph, stream):
        self.said.append(("launch", stream))
        for item in graph:
            self._put(stream, *item)

    def drop(self, graph):
        self.said.append(("drop",))

    def _put(self, stream, picoseconds, work):
        if self._recording is None:
            super()._put(stream, picoseconds, work)
        else:
            self._recording.append((picoseconds, work))

    def array(self, values):
        """Memory of its own with values, for good."""
        with self.current():
            address = self.malloc(values.nbytes)
        self._memory[address][:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return address

    def written_late(self, address, values, stream):
        """Put values into memory, on a stream that has much to do before."""
        for _ in range(9):
            self._put(stream, 1, lambda: None)
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._put(stream, 1, lambda: ctypes.memmove(address, data.ctypes.data, data.nbytes))

    def seen(self, address, shape):
        """What lies there now."""
        return self._memory[address].view(np.float32)[: int(np.prod(shape))].reshape(shape).copy()


class _Until:
    """Work that is nothing, once an event has happened."""

    def __init__(self, mark):
        self.able = lambda: mark.happened

    def __call__(self):
        assert self.able()


def answers(x):
    """What the engine computes: k times a row's sum, plus k, for each class k."""
    return (x.reshape(len(x), -1).sum(1)[:, None] * np.arange(CLASSES) + np.arange(CLASSES)).astype(np.float32)


class HostTensorRT:
    """A module whose engine computes ``answers`` on a ``HostCuda``; ``faults`` name what it refuses."""

    def __init__(self, gpu, *faults, batch=BATCH):
        self.gpu, self.faults, self.TensorIOMode = gpu, faults, SimpleNamespace(INPUT="in", OUTPUT="out")
        self.ILogger = type("ILogger", (), {"__init__": lambda self: None})
        shapes = {"input": (-1, *ROW), "logits": (-1, CLASSES)}
        plan = SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=lambda i: list(shapes)[i],
            get_tensor_mode=lambda name: "in" if name == "input" else "out",
            get_tensor_shape=shapes.get,
            get_tensor_dtype=lambda name: SimpleNamespace(name="FLOAT"),
            get_tensor_profile_shape=lambda name, profile: [(n, *ROW) for n in (batch.lo, batch.opt, batch.hi)],
            create_execution_context=lambda: HostContext(self),
        )
        self.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: plan)


class HostContext:
    def __init__(self, trt):
        self.trt, self.address, self.shape = trt, {}, None

    def set_tensor_address(self, name, address):
        assert address % 256 == 0
        self.address[name] = address
        return True

    def set_input_shape(self, name, shape):
        self.shape = shape
        return True

    def get_tensor_shape(self, name):
        return (self.shape[0], CLASSES)

    def execute_async_v3(self, stream):
        if "execute" in self.trt.faults:
            return False
        (batch, *_), (x, y) = self.shape, self.address.values()
        self.trt.gpu._check(x, batch * 48)
        self.trt.gpu._check(y, batch * 20)

        def work():
            view = np.ctypeslib.as_array((ctypes.c_float * (batch * 12)).from_address(x)).reshape(batch, -1)
            ctypes.memmove(y, answers(view).ctypes.data, batch * 20)

        self.trt.gpu._put(stream, 1, work)
        return True


def session_of(gpu, *faults, batch=BATCH, **how):
    engine = Engine("tensorrt", "SM 8.9", "10.13", {"model.engine": b"plan"}, (), batch, device=gpu.index, **how)
    return _trt_session.DeviceSession(HostTensorRT(gpu, *faults, batch=batch), engine, "model.engine", "10.13", gpu)


class ByInterface:
    """An array as pycuda has it."""

    def __init__(self, address, shape, typestr="<f4", strides=None, **more):
        told = {"data": (address, True), "shape": shape, "typestr": typestr, "strides": strides, "version": 3}
        self.__cuda_array_interface__ = {**told, **more}


class ByDlpack:
    """An array as torch and CuPy have it: it is written on ``own``, and a stream that is asked for waits for that."""

    def __init__(self, gpu, values, own, device=None):
        self.gpu, self.values, self.own, self.device = gpu, values, own, device or (dlpack.CUDA, gpu.index)
        self.asked, self.alive = [], np.zeros(1)
        with gpu.current():
            self.address, self.event = gpu.malloc(values.nbytes), gpu.event()
        gpu.written_late(self.address, values, own)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        self.asked.append((stream, max_version))
        with self.gpu.current():
            self.gpu.record(self.event, self.own)
            self.gpu.after(stream, self.event)
        return dlpack.lent(self.alive, self.address, self.values.shape, "float32", self.device, max_version)
