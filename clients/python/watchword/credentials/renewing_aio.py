"""A token that renews itself, in grpc.aio: a task that goes from one round to the next."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from typing import Any, Self

import grpc

from watchword.credentials.place import HandedToken, Place
from watchword.credentials.renewal import Renewal
from watchword.credentials.renewing import CLOSE_SECONDS_MAX, Call, Renewing, Round, Work
from watchword.credentials.source import TokenSource
from watchword.v1.token_service_pb2_grpc import TokenServiceStub


class RenewingToken(Renewing):
    """A TokenSource whose token is renewed in the background, between 60 and 80 % of its life. Made by `file` or
    `handing_to`; see docs/renew-a-token.md.

        token = RenewingToken.file("orders.token")
        async with connect("watchword.internal:7600", token=token) as authority, token.renewing(authority):
            ...

    The channel to the authority bears the token itself, which has to name the audience `watchword`, and needs no scope.
    What fails is tried again, and meanwhile the old token serves to its end; `status` says how it is doing, and so does
    the log (`watchword.credentials`). After a fork the child gives out what is in the file, and renews nothing until it
    is started there, with a channel that was made there.
    """

    @classmethod
    def handing_to(
        cls,
        store: Callable[[str], Awaitable[None] | None],
        *,
        token: TokenSource | str,
        ttl_seconds: float | None = None,
        grace_seconds: float | None = None,
    ) -> Self:
        """Begins with `token`, and hands each new one to `store`, which keeps it for the next process and raises if it
        cannot. A plain function is called in a thread. The rest as for `file`.
        """
        place = HandedToken(token, store)
        return cls(place, partial(Renewal, ttl_seconds=ttl_seconds, grace_seconds=grace_seconds))

    def __init__(self, place: Place, new_renewal: Callable[[], Renewal]) -> None:
        super().__init__(place, new_renewal)
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def start(self, authority: grpc.aio.Channel) -> None:
        """Renews from now on, through a channel to Watchword. Waits for nothing; may be called again."""
        if self._task is None:
            self._closing = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._run(TokenServiceStub(authority)))

    async def close(self) -> None:
        """Ends the renewing, and lets a rotation that is under way come to its end. Before the channel is closed."""
        task, self._task = self._task, None
        if task is not None:
            self._closing.set()
            await asyncio.wait([task], timeout=CLOSE_SECONDS_MAX)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def renewing(self, authority: grpc.aio.Channel) -> AsyncIterator[Self]:
        """`start`, and at the end of the block `close`."""
        await self.start(authority)
        try:
            yield self
        finally:
            await self.close()

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._task = None

    async def _run(self, stub: Any) -> None:
        try:
            while not self._closing.is_set():
                await self._go(stub, self._round())
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._renewal.wait_seconds()):
                        await self._closing.wait()
            await self._go(stub, self._last_round())
        finally:
            self._place.unlock()

    async def _go(self, stub: Any, steps: Round) -> None:
        with closing(steps), suppress(StopIteration):
            step = next(steps)
            while True:
                try:
                    came = await _take(stub, step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(came)


async def _take(stub: Any, step: Call | Work) -> Any:
    if isinstance(step, Call):
        try:
            return await getattr(stub, step.method)(step.request, timeout=step.timeout_seconds)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled but the call, by its channel.
            raise ConnectionAbortedError from None
    work = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        came = await asyncio.shield(work)
    except asyncio.CancelledError:
        # The lock must not be given up while the thread still writes.
        await asyncio.wait([work])
        raise
    return await came if inspect.isawaitable(came) else came
