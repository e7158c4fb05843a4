"""Ends an open stream of a grpc.aio server the moment its token ends, whatever its handler is waiting for.

Where the verifier learns of revocations (StreamGates), a stream need not wait for its next message to be judged.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final

from watchword.interceptor.call_aio import Call, Context
from watchword.interceptor.denial import Denial
from watchword.verifier.contract import OpenStream

# A client that does not read can hold up even a status; its handler is cancelled all the same.
END_SECONDS_MAX: Final = 1.0


class Gate:
    """Around a stream's handler, in the handler's task, from before its first check to its end.

    With a verifier that does not learn of revocations it does nothing.
    """

    __slots__ = ("_call", "_context", "_ended", "_ending", "_opened", "_task")

    def __init__(self, call: Call, context: Context) -> None:
        self._call: Final = call
        self._context: Final = context
        self._task: Final = asyncio.current_task()
        self._opened: OpenStream | None = None
        self._ending: asyncio.Task[None] | None = None
        self._ended = False

    def __enter__(self) -> None:
        self._opened = self._call.open_stream(self._shut)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        if self._opened is not None:
            self._opened.close()

    def _shut(self, denial: Denial) -> None:
        # Kept: the loop holds its tasks weakly.
        self._ending = asyncio.get_running_loop().create_task(self._end(denial))

    async def _end(self, denial: Denial) -> None:
        # Aborting in another task than the handler's is what reaches a handler that waits: the status goes out at once.
        # Cancelling alone would send none. Held by tests/client/test_stream_gates.py, for each form of handler.
        if self._call.is_refused:
            # A message came first: its refusal is on its way, and must not be cancelled.
            return
        with suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(END_SECONDS_MAX):
                await self._call.end(self._context, denial)
        if not self._ended and self._task is not None:
            self._task.cancel()
