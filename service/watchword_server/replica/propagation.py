"""How far a revocation has reached: rule 7 of docs/protocol.md, for all who wait at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from watchword_server.replica.observer import Observer
from watchword_server.replica.rounds import Rounds
from watchword_server.store.contract import Position, StoreError
from watchword_server.store.fleet_contract import Fleet, Roll

POLL_SECONDS: Final = 0.25
"""How often the replicas are listed while somebody waits: wake-ups are hints, which can be lost."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a position has got. With `complete`, no decision begun from now on is by anything older."""

    complete: bool
    effective_in_seconds: float
    replicas_count: int
    verifiers_count: int


class Propagation:
    """Lists the replicas as often as needed, deletes the dead, and tells who waits.

    Everybody's waiting shares the same lists.
    """

    def __init__(
        self,
        fleet: Fleet,
        observer: Observer,
        *,
        every_seconds: float,
        observe_wait: Callable[[bool, float], None] = lambda complete, seconds: None,
        fenced: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._fleet = fleet
        self._observer = observer
        self._every_seconds = every_seconds
        self.awaited: Callable[[], None] = lambda: None
        """Called when somebody begins to wait: for a position that is new, mostly."""
        self._observe_wait = observe_wait
        self._fenced = fenced
        self._waiting = 0
        self._verifiers_count = 0
        self._hurried = asyncio.Event()
        self._rolls = Rounds(
            "looking at the other servers", self._roll, lambda: POLL_SECONDS if self._waiting else self._every_seconds
        )

    async def wait(self, position: Position, seconds: float) -> Reached:
        """Waits until `position`, which is committed, is applied everywhere, at most so long."""
        began = time.monotonic()
        committed = self._observer.ticket()
        self._waiting += 1
        self.awaited()
        try:
            complete = await self._complete(position, committed, seconds)
        finally:
            self._waiting -= 1
        self._observe_wait(complete, time.monotonic() - began)
        return Reached(
            complete,
            0.0 if complete else self._observer.effective_in_seconds(position),
            self._observer.replicas_count(),
            self._verifiers_count,
        )

    async def _complete(self, position: Position, committed: int, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                with suppress(StoreError):
                    # Sent after the commit: whoever joined before it is in this list.
                    await self._rolls.next()
                while not self._observer.complete(position, committed) and not self._hurried.is_set():
                    await self._rolls.ended()
        return self._observer.complete(position, committed)

    def stir(self) -> None:
        """Something may have been applied somewhere."""
        if self._waiting:
            self._rolls.want()

    def hurry(self) -> None:
        """This process is going: whoever waits is told how far it has got by now."""
        self._hurried.set()
        self._rolls.want()

    async def run(self) -> None:
        """Until cancelled. Looks at once: what a revocation may take depends on leases that others were granted."""
        self._rolls.want()
        await self._rolls.run()

    async def _roll(self) -> None:
        ticket = self._observer.ticket()
        roll = await self._fleet.roll()
        self._verifiers_count = sum(replica.watchers_count for replica in roll.replicas)
        for suspect in self._observer.observe(roll, ticket):
            if await self._fleet.fence(suspect.key, suspect.renewals):
                self._observer.fenced(suspect)
                self._fenced(_name_of(suspect.key, roll))
        epoch = self._observer.wants_settle()
        if epoch is not None:
            await self._fleet.settle(epoch)


def _name_of(key: object, roll: Roll) -> str:
    return next((replica.name for replica in roll.replicas if replica.key == key), str(key))
