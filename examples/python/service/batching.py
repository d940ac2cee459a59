"""Dynamic batching: requests that arrive while the engine is at work go through it together afterwards."""

from __future__ import annotations

import asyncio
import dataclasses as dc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


class Overloaded(Exception):
    """As many inputs wait as may; the request was not taken."""


@dc.dataclass(slots=True, eq=False)
class _Request:
    rows: Array
    answer: asyncio.Future[Array]
    since: float


class Batcher:
    """Calls ``run`` on one thread, with the inputs of all that wait.

    The engine is never kept waiting longer than ``delay_s`` for more inputs than there are; under load nothing waits
    for the sake of a batch, because requests gather while the engine is at work. A request whose client has gone is
    left out.

    Args:
        run: Network inputs (N, 3, S, S) to logits (N, classes); called on a thread of its own.
        max_rows: Inputs in one call, at the most. A request of more goes alone.
        delay_s: How long to wait for others once the first request of a batch is there.
        queue_rows: Inputs that may wait; ``infer`` refuses more.
        observe: Told of each call: its rows, how long it took and how long its first request had waited, in seconds.
    """

    def __init__(
        self,
        run: Callable[[Array], Array],
        *,
        max_rows: int,
        delay_s: float,
        queue_rows: int,
        observe: Callable[[int, float, float], None] = lambda rows, took, waited: None,
    ) -> None:
        self._run, self._observe = run, observe
        self._max_rows, self._delay_s, self._queue_rows = max_rows, delay_s, queue_rows
        self._waiting: list[_Request] = []
        self._arrived, self._closing = asyncio.Event(), False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._task = asyncio.get_running_loop().create_task(self._serve())

    @property
    def waiting_rows(self) -> int:
        """Inputs that wait for the engine."""
        return sum(len(request.rows) for request in self._waiting)

    async def infer(self, rows: Array) -> Array:
        """The logits of some inputs.

        Raises:
            Overloaded: Too many wait.
        """
        if self._closing or (self._waiting and self.waiting_rows + len(rows) > self._queue_rows):
            raise Overloaded
        request = _Request(rows, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._waiting.append(request)
        self._arrived.set()
        return await request.answer

    async def close(self) -> None:
        """Answer what waits, take no more, and end the thread."""
        self._closing = True
        self._arrived.set()
        await self._task
        self._thread.shutdown()

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            if self._delay_s and not self._closing:
                await self._gather()
            batch = self._take()
            if batch:
                await self._answer(batch)
            elif self._closing:
                return

    async def _gather(self) -> None:
        """Wait until the batch is full, or its first request has waited long enough."""
        while self._waiting and self.waiting_rows < self._max_rows:
            left = self._waiting[0].since + self._delay_s - time.perf_counter()
            if left <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except asyncio.TimeoutError:
                return

    def _take(self) -> list[_Request]:
        """The requests of the next batch, in the order of their arrival."""
        self._waiting = [request for request in self._waiting if not request.answer.done()]
        count, rows = 0, 0
        for request in self._waiting:
            if count and rows + len(request.rows) > self._max_rows:
                break
            count, rows = count + 1, rows + len(request.rows)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if not self._waiting and not self._closing:
            self._arrived.clear()
        return batch

    async def _answer(self, batch: list[_Request]) -> None:
        start = time.perf_counter()
        inputs = batch[0].rows if len(batch) == 1 else np.concatenate([request.rows for request in batch])
        try:
            logits = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, inputs)
        except Exception as e:  # whatever it is, each client hears of it, and the next batch is served
            for request in batch:
                if not request.answer.done():
                    request.answer.set_exception(e)
            return
        self._observe(len(inputs), time.perf_counter() - start, start - batch[0].since)
        first = 0
        for request in batch:
            last = first + len(request.rows)
            if not request.answer.done():
                request.answer.set_result(logits[first:last])
            first = last
