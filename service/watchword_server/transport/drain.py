"""Going away without breaking a promise: first say so, then end the streams, then let the calls under way finish."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from watchword_server.transport.health import HealthService
from watchword_server.transport.server import BoundServer

STREAMS_END_SECONDS_MAX: Final = 5.0
SETTLE_SECONDS: Final = 0.2
"""How long new calls are refused by their handlers before the server stops taking them."""


class StopRequest:
    """Set by SIGTERM and SIGINT: once to drain, once more to be gone."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.hurried = asyncio.Event()

    def __call__(self) -> None:
        """What a signal does. Also for code that wants the server to stop."""
        (self.hurried if self.requested.is_set() else self.requested).set()

    async def unless_requested(self, work: Awaitable[object]) -> bool:
        """Whether `work` finished before a stop was asked for; it is cancelled otherwise. Raises what it raises."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self.requested.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listens for both signals while the block runs; call it in the main thread's loop."""
        loop = asyncio.get_running_loop()
        watched = (signal.SIGTERM, signal.SIGINT)
        for number in watched:
            loop.add_signal_handler(number, self)
        try:
            yield
        finally:
            for number in watched:
                loop.remove_signal_handler(number)


async def drain(
    bound: BoundServer,
    health: HealthService,
    *,
    end_streams: Sequence[Callable[[], Awaitable[None]]] = (),
    refuse_calls: Callable[[], None] = lambda: None,
    grace_seconds: float,
    hurried: asyncio.Event,
) -> bool:
    """Stops `bound` within about `grace_seconds`, at once when `hurried` is set. True if nothing was cut off.

    Health says NOT_SERVING before anything else. Streams end before the server stops taking calls, because grpcio lets
    an open stream use up the whole grace. Then `refuse_calls` makes handlers answer new calls with UNAVAILABLE, which a
    client may retry elsewhere, for a moment: calls that grpcio's core holds in its queue when it stops end as
    CANCELLED, which no client retries, so the queue is emptied first. A call that was accepted is finished.
    """
    health.drain()
    if not await _unless_hurried(_end_all(end_streams), hurried):
        await bound.abandon()
        return False
    refuse_calls()
    if not await _unless_hurried(asyncio.sleep(SETTLE_SECONDS), hurried):
        await bound.abandon()
        return False
    # grpcio cancels whatever is left when the grace is over, and so does native.
    if not await _unless_hurried(bound.stop(grace_seconds), hurried):
        await bound.abandon()
        return False
    return True


async def _end_all(end_streams: Sequence[Callable[[], Awaitable[None]]]) -> None:
    try:
        async with asyncio.timeout(STREAMS_END_SECONDS_MAX):
            await asyncio.gather(*(end() for end in end_streams), return_exceptions=True)
    except TimeoutError:
        # What does not end by itself is cut with the rest, at the end of the grace.
        return


async def _unless_hurried(work: Awaitable[None], hurried: asyncio.Event) -> bool:
    """True if `work` finished first. The work goes on if it did not: `abandon` is what ends it."""
    task = asyncio.ensure_future(work)
    hurry = asyncio.ensure_future(hurried.wait())
    try:
        await asyncio.wait({task, hurry}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurry.cancel()
    if not task.done():
        return False
    task.result()
    return True
