"""Concurrent requests share one trip to the database.

A request joins the next batch, never one already sent: what it reads is as of its own arrival or later. A lone request
goes out at once. Under load a batch lingers, so that the cost of a trip is divided by many: the CPU that a query costs
on both sides is the same for one id as for thirty. It lingers in turns of the event loop and not by a timer: a busy
loop gathers while it does other work, and no thread falls asleep that the next call would have to wake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from watchword_server.store.contract import StoreError, StoreOverloadedError, StoreUnavailableError

Q = TypeVar("Q")
A = TypeVar("A")

QUEUE_MAX: Final = 10_000
"""How many requests wait for the database. The next one is refused."""


class Gatherer(Generic[Q, A]):
    """Gathers requests of type Q into batches, of which up to `lanes` are under way, and deals out the answers.

    A batch weighs at most `batch_max`, or holds a single request that is heavier.

    `send` answers a batch with one answer for each request, in order; an answer that is a StoreError is raised for
    that request alone. An exception of `send` itself is raised for all. Callers may be cancelled at any time: the batch
    goes on without them.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[A | StoreError]]],
        *,
        batch_max: int,
        queue_max: int = QUEUE_MAX,
        lanes: int = 1,
        quiet_turns: int = 20,
        linger_seconds_max: float = 0.004,
        weigh: Callable[[Q], int] = lambda request: 1,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._send = send
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._lanes = lanes
        self._quiet_turns = quiet_turns
        self._linger_seconds_max = linger_seconds_max
        self._weigh = weigh
        self._observe = observe
        self._pending: list[tuple[Q, asyncio.Future[A]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._scheduled: asyncio.Handle | None = None
        self._last_size = 1
        self._closed = False

    def submit(self, request: Q) -> asyncio.Future[A]:
        """Puts a request into the next batch. Raises StoreOverloadedError when the queue is full."""
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        if len(self._pending) >= self._queue_max:
            raise StoreOverloadedError("too many requests wait for the database")
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._pending.append((request, future))
        if self._scheduled is None and len(self._under_way) < self._lanes:
            self._schedule()
        return future

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._last_size > 1:
            self._linger(len(self._pending), self._quiet_turns, loop.time() + self._linger_seconds_max)
        else:
            # At the end of this turn of the loop: whatever arrives in the same turn is in the same batch.
            self._scheduled = loop.call_soon(self._dispatch)

    def _linger(self, gathered: int, quiet_turns: int, until: float) -> None:
        """Goes around until as many turns of the loop as `quiet_turns` bring nothing new, the batch is full, or it is
        `until`."""
        loop = asyncio.get_running_loop()
        size = len(self._pending)
        if size > gathered:
            quiet_turns = self._quiet_turns
        if quiet_turns and size < self._batch_max and loop.time() < until:
            self._scheduled = loop.call_soon(self._linger, size, quiet_turns - 1, until)
        else:
            self._dispatch()

    def _dispatch(self) -> None:
        self._scheduled = None
        batch = self._take()
        if batch:
            self._last_size = len(batch)
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._under_way.add(task)
            task.add_done_callback(self._finished)
        self._next()

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        """The oldest that fit a batch, at least one; those whose callers left are dropped."""
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        taken = weight = 0
        for item in self._pending:
            if not item[1].done():
                weight += self._weigh(item[0])
                if batch and weight > self._batch_max:
                    break
                batch.append(item)
            taken += 1
        del self._pending[:taken]
        return batch

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._next()

    def _next(self) -> None:
        if self._pending and self._scheduled is None and len(self._under_way) < self._lanes:
            self._schedule()

    async def _run(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        self._observe(len(batch))
        try:
            answers = await self._send([request for request, _ in batch])
            if len(answers) != len(batch):
                # Whose answer is whose? Nobody's, or one caller would get another's.
                raise StoreError(f"{len(answers)} answers to {len(batch)} requests")
        except BaseException as error:
            failure = error if isinstance(error, Exception) else StoreUnavailableError("the store is closing")
            for _, future in batch:
                if not future.done():
                    future.set_exception(failure)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, StoreError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def close(self) -> None:
        """Refuses new requests and waits for the batches under way and waiting. Cancelled, it gives those up."""
        self._closed = True
        try:
            while self._pending or self._under_way:
                if self._under_way:
                    await asyncio.wait(self._under_way)
                else:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            for _, future in self._pending:
                future.cancel()
            self._pending.clear()
            for task in self._under_way:
                task.cancel()
            raise
