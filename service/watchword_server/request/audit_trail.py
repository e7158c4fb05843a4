"""The audit log of what changed nothing: administrative calls that were denied, and those that only looked.

What changes something is recorded in its own transaction, by the store. Here events wait in memory for a moment and go
in batches, so that no call waits for them: what a killed process had not written yet is lost, and a full buffer drops
and counts. What was denied is bounded for each caller, so that whoever is refused a million times writes thirty events
a minute and one that says how many more there were.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv6Network
from itertools import islice
from typing import Final

from watchword.network import address_of_peer
from watchword_server.store.contract import Actor, PartitionMissingError, RowRefusedError, StoreError
from watchword_server.store.event_contract import Event

FLUSH_SECONDS: Final = 0.25
WINDOW_SECONDS: Final = 60.0
DENIED_PER_WINDOW_MAX: Final = 30
"""For each caller: a known token, or, of callers unknown, an address (one IPv6 /64)."""
CALLERS_MAX: Final = 1_000
ADDRESSES_MAX: Final = 200
"""Of each kind in a window; all others share what one may. Apart, so that strangers crowd out nobody who is known."""
PENDING_MAX: Final = 10_000
BATCH_MAX: Final = 500
CLOSE_SECONDS_MAX: Final = 2.0
_RETRY_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


class AuditTrail:
    """Takes events from calls and writes them while `running`. `count_dropped` is told how many were lost."""

    def __init__(
        self,
        record: Callable[[Sequence[Event]], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
        count_dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._record = record
        self._clock = clock
        self._count_dropped = count_dropped
        self._pending: deque[Event] = deque()
        self._known = _Windows(CALLERS_MAX)
        self._strangers = _Windows(ADDRESSES_MAX)
        self._window_ends_at = clock() + WINDOW_SECONDS

    def add(self, event: Event) -> None:
        """To be written within a second."""
        if len(self._pending) >= PENDING_MAX:
            self._count_dropped(1)
        else:
            self._pending.append(event)

    def add_denied(self, event: Event) -> None:
        """As `add`, within what its caller may write in a minute."""
        actor = event.actor
        known = actor.token_id is not None
        window = self._known.of(actor.token_id) if known else self._strangers.of(_host(actor.address))
        if window.count < DENIED_PER_WINDOW_MAX:
            self.add(event)
        elif window.more is None:
            window.more = event
        window.count += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes while the block runs, and once more at its end, for at most CLOSE_SECONDS_MAX."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.end_window()
            try:
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await self.flush()
            except (TimeoutError, StoreError):
                _log.warning("%d audit events are lost: the database cannot be reached", len(self._pending))
                self._count_dropped(len(self._pending))

    async def _keep(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(_RETRY_SECONDS if failing else FLUSH_SECONDS)
            try:
                await self.beat()
                failing = False
            except StoreError as error:
                if not failing:
                    _log.warning("audit events put off: %s", type(error.__cause__ or error).__name__)
                failing = True

    async def beat(self) -> None:
        """Ends the window if it is time to, and writes. Raises what `flush` raises."""
        if self._clock() >= self._window_ends_at:
            self.end_window()
        await self.flush()

    def end_window(self) -> None:
        """Says of each caller how much more was denied, and lets it write again."""
        for event in (*self._known.end(), *self._strangers.end()):
            self.add(event)
        self._window_ends_at = self._clock() + WINDOW_SECONDS

    async def flush(self) -> None:
        """Writes all that waits. Raises StoreError, and keeps it, if the database cannot take it now."""
        while self._pending:
            # Taken off once it is known to be there; to write one twice does no harm.
            batch = list(islice(self._pending, BATCH_MAX))
            try:
                await self._record(batch)
            except RowRefusedError as error:
                if isinstance(error, PartitionMissingError):
                    raise
                # None of ours could be; but what can never be written must not keep the rest.
                _log.exception("audit events refused")
                self._count_dropped(len(batch))
            for _ in batch:
                self._pending.popleft()


class _Window:
    """What one caller was denied since the last summary."""

    __slots__ = ("count", "more")

    def __init__(self) -> None:
        self.count = 0
        self.more: Event | None = None
        """The first that was not written."""


class _Windows:
    """Of all callers of a kind."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._windows: dict[object, _Window] = {}
        self._others = _Window()

    def of(self, caller: object) -> _Window:
        window = self._windows.get(caller)
        if window is None:
            if len(self._windows) >= self._count_max:
                return self._others
            window = self._windows[caller] = _Window()
        return window

    def end(self) -> Iterator[Event]:
        """The summaries, and begins anew."""
        for window in self._windows.values():
            if window.more is not None:
                yield _summary(window, window.more.actor)
        if self._others.more is not None:
            yield _summary(self._others, Actor("", None, ""))
        self._windows.clear()
        self._others = _Window()


def _summary(window: _Window, actor: Actor) -> Event:
    assert window.more is not None
    details = {"count": str(window.count - DENIED_PER_WINDOW_MAX), "first_action": window.more.action}
    return Event("denied_more", actor, None, details, outcome=window.more.outcome)


def _host(peer: str) -> str:
    """Of IPv6 whoever has one address has a whole /64 of them."""
    address = address_of_peer(peer)
    return str(IPv6Network((address, 64), strict=False)) if ":" in address else address
