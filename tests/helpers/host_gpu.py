"""A GPU that is not there: memory and streams are the host's, and the kernels are those compiled for the host.

It shows that code written for a GPU waits where it must and stays within its memory. What is put on a stream happens
when somebody waits for a stream, the streams taking turns, and not before. A copy outside one allocation, and memory
that is given back twice, or while something on a stream may use it, is an error. Memory is full of 0x5A at first.

Its clock is exact: a byte that is copied takes two ``PS_A_BYTE`` (it is read and written), a byte that is filled one, a
kernel ``LAUNCH_PS`` and ``SLOWNESS`` times what a copy of its two tensors would.
"""

import contextlib
import ctypes
import itertools
import types

import numpy as np

from dlcv_deploy.plugin.formats import FORMATS, to_memory
from dlcv_deploy.plugin.interface import Operator, load

PS_A_BYTE, LAUNCH_PS, SLOWNESS = 1000, 1_000_000, 2


class HostGpu:
    """A ``Device`` and its ``Cuda`` in one; ``library`` has the kernels, where a ``path`` to them is given."""

    multiprocessors, l2_bytes = 6, 1 << 16

    def __init__(self, path=None, launch_error=0):
        self.cuda, self.launch_error = self, launch_error
        if path is not None:
            self._kernels = load(path)
            self.library = types.SimpleNamespace(dlcv_lrn=self._launch, dlcv_problem=self._kernels.dlcv_problem)
        self._memory, self._queues, self._now_ps = {}, {}, 0
        self._numbers = itertools.count(1)

    def current(self):
        return contextlib.nullcontext()

    def malloc(self, size_bytes):
        block = np.full(size_bytes, 0x5A, np.uint8)
        self._memory[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, memory):
        assert not any(self._queues.values()), "memory is given back while a stream is at work"
        del self._memory[memory]

    def pinned(self, size_bytes):
        return self._memory[self.malloc(size_bytes)]

    def unpin(self, host):
        self.free(host.ctypes.data)

    @property
    def left(self):
        """How many allocations were not given back."""
        return len(self._memory)

    def stream(self):
        number = next(self._numbers)
        self._queues[number] = []
        return number

    def streams(self, count):
        while len(self._queues) < count:
            self.stream()
        return list(self._queues)[:count]

    def event(self):
        return types.SimpleNamespace(ps=None)

    def address(self, handle):
        return handle

    def close(self, stream, events):
        del self._queues[stream]

    def to_device(self, memory, host, stream):
        self.copy(memory, host.ctypes.data, host.nbytes, stream)

    def to_host(self, host, memory, stream):
        self.copy(host.ctypes.data, memory, host.nbytes, stream)

    def copy(self, to, source, size_bytes, stream):
        self._check(to, size_bytes)
        self._check(source, size_bytes)
        self._put(stream, 2 * size_bytes * PS_A_BYTE, lambda: ctypes.memmove(to, source, size_bytes))

    def fill(self, memory, value, size_bytes, stream):
        self._check(memory, size_bytes)
        self._put(stream, size_bytes * PS_A_BYTE, lambda: ctypes.memset(memory, value, size_bytes))

    def record(self, event, stream):
        event.ps = None
        self._put(stream, 0, lambda: setattr(event, "ps", self._now_ps))

    def wait(self, stream):
        while self._queues[stream]:
            for queue in self._queues.values():
                if queue:
                    picoseconds, work = queue.pop(0)
                    self._now_ps += picoseconds
                    work()

    def elapsed_ms(self, start, end):
        assert start.ps is not None, "the event has not happened"
        assert end.ps is not None, "the event has not happened"
        return (end.ps - start.ps) / 1e9

    def about(self):
        return {"name": "a GPU that is not there", "nvidia_smi": {"clocks.sm": None}}

    def _put(self, stream, picoseconds, work):
        self._queues[stream].append((picoseconds, work))

    def _check(self, address, size_bytes):
        assert any(start <= address and address + size_bytes <= start + len(b) for start, b in self._memory.items())

    def _launch(self, x, y, form, shape, size, numbers, pool, multiprocessors, stream):
        """As the real one: what is wrong with the call is said at once, the rest happens later."""
        if self.launch_error:
            return self.launch_error
        none = (ctypes.c_int * 4)(0, *shape[1:])
        if code := self._kernels.dlcv_lrn(x, y, form, none, size, numbers, pool, multiprocessors, None):
            return code
        kept = [type(array).from_buffer_copy(array) if array is not None else None for array in (shape, numbers, pool)]
        bytes_moved = self._tensor_bytes(x, y, list(FORMATS.values())[form], kept)

        def work():
            assert self._kernels.dlcv_lrn(x, y, form, kept[0], size, kept[1], kept[2], multiprocessors, None) == 0

        self._put(stream, LAUNCH_PS + SLOWNESS * bytes_moved * PS_A_BYTE, work)
        return 0

    def _tensor_bytes(self, x, y, form, given):
        shape, _, pool = given
        answers = Operator(1, 0, 0, 1, pool=None if pool is None else tuple(pool)).answers(tuple(shape))
        sizes = [to_memory(np.zeros(s, form.dtype), form).nbytes for s in (tuple(shape), answers)]
        self._check(x, sizes[0])
        self._check(y, sizes[1])
        return sum(sizes)
