"""This process as a replica: joins, renews, follows the feed, tells what is applied, and leaves.

The rules are the ledger's (docs/protocol.md, 5 and 6); here is when its questions are asked of the
database. Every clock reading that a lease is counted from is taken before its query is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID, uuid4

from watchword.lease import Clock, instant
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.propagation import Propagation
from watchword_server.replica.report import Report
from watchword_server.replica.rounds import Rounds
from watchword_server.store.contract import StoreError
from watchword_server.store.fleet_contract import FeedPage, Fleet, NewReplica

RENEWALS_PER_LEASE: Final = 20
RENEW_SECONDS_MIN: Final = 0.1
RENEW_SECONDS_MAX: Final = 3.0
JOIN_RETRY_SECONDS: Final = 0.5
LEAVE_SECONDS_MAX: Final = 3.0
_log = logging.getLogger("watchword")


def renew_every_seconds(lease_seconds: float) -> float:
    """How often a replica renews: often enough to live through many failures, and seldom enough to cost nothing."""
    return max(RENEW_SECONDS_MIN, min(RENEW_SECONDS_MAX, lease_seconds / RENEWALS_PER_LEASE))


class Member:
    """One process's membership."""

    def __init__(
        self,
        fleet: Fleet,
        ledger: Ledger,
        clock: Clock,
        propagation: Propagation,
        *,
        name: str,
        lease_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._clock = clock
        self._propagation = propagation
        self._name = name
        self._lease_seconds = lease_seconds
        self.heard: Callable[[FeedPage], None] = lambda page: None
        """Told of every page before it counts as known."""
        self._every_seconds = renew_every_seconds(lease_seconds)
        self._joining = asyncio.Lock()
        """Held while a page is read and learnt, too: a page asked for before a join is none for the ledger after it."""
        self._rejoining = asyncio.Lock()
        self._fed_at = 0.0
        self._told_epoch: UUID | None = None
        self._published: tuple[UUID, int] | None = None
        self._live = False
        self._telling_people: asyncio.Future[None] | None = None
        self.told = 0
        """See replica/fence.py."""
        self._renewing = Rounds("renewing this server's lease", self._renew, lambda: self._every_seconds)
        self._feeding = Rounds("reading what was revoked", self._feed, lambda: self._every_seconds)
        self._telling = Rounds("telling what is applied", self._tell, self._seconds_to_deadline)
        self._reporting = Report(fleet, ledger, clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Joins, and keeps the membership while the block runs. At its end the row goes, if no verifier's lease needs
        it any more."""
        await self._join()
        loops = (
            self._renewing.run(),
            self._feeding.run(),
            self._telling.run(),
            self._reporting.run(),
            self._propagation.run(),
            self._listen(self._fleet.wait_for_news, self._feeding.want),
            self._listen(self._fleet.wait_for_applied, self._propagation.stir),
        )
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        for task in tasks:
            task.add_done_callback(_say_why)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave_in_time()

    def may_judge(self, epoch: UUID) -> bool:
        """See replica/fence.py."""
        return epoch == self._ledger.epoch and self._ledger.own_lease_live()

    def advanced(self) -> None:
        """Somebody may have applied something: `applied` may have grown."""
        self._telling.want()

    def look(self) -> None:
        """There is a new position, probably."""
        self._feeding.want()

    async def poll(self) -> None:
        """Reads the feed once more, beginning now. Raises StoreUnavailableError."""
        await self._feeding.next()

    async def drain(self) -> None:
        """Asks the verifiers to move, and returns when none holds a lease of this replica any more."""
        self._ledger.drain()
        # Beside it: who has no verifiers goes on at once.
        self._telling_people = asyncio.ensure_future(self._tell_of_drain())
        while not self._ledger.drained():
            await self._telling.ended()

    async def _tell_of_drain(self) -> None:
        key = self._ledger.key
        if key is not None:
            with suppress(StoreError):
                await self._fleet.drain(key)

    async def _join(self) -> None:
        """Until it succeeds."""
        failures = 0
        while True:
            try:
                if await self._joined():
                    break
            except StoreError as error:
                if not failures:
                    _log.warning("cannot join the other servers: %s", type(error.__cause__ or error).__name__)
            failures += 1
            await asyncio.sleep(JOIN_RETRY_SECONDS)
        self._say_whether_live()

    async def _joined(self) -> bool:
        """One attempt, under a key that nobody has used: a fenced one never comes back."""
        ledger = self._ledger
        async with self._joining:
            if ledger.key is not None:
                # That of an attempt which got no further than its row: nothing was granted under it, and nobody shall
                # wait for it (test_attempts_to_join_leave_no_rows_behind).
                await self._fleet.leave(ledger.key)
                ledger.lost()
            epoch = await self._fleet.epoch()
            key = uuid4()
            sent = instant(self._clock)
            if not await self._fleet.join(NewReplica(key, epoch, self._name, self._lease_seconds)):
                return False
            ledger.joined(key, epoch, sent)
            # Sent after the join is committed: who does not find this row in a list of replicas committed before that,
            # and what he committed is on this page.
            page = await self._read()
            self.heard(page)
            if self._is_another_history(page) or not ledger.start(page):
                await self._contradicted(page)
                return False
            if epoch != self._told_epoch:
                self._told_epoch, self.told = epoch, 0
            self.told = max(self.told, ledger.applied() or 0)
            self._telling.want()
            self._feeding.want()
        return True

    async def _rejoin(self, key: UUID | None) -> None:
        """Joins anew, if nobody has done so since `key` was found to be gone."""
        async with self._rejoining:
            if key is not None and self._ledger.key == key:
                self._ledger.lost()
                self._say_whether_live()
                await self._join()

    async def _renew(self) -> None:
        ledger = self._ledger
        key, epoch = ledger.key, ledger.epoch
        self._say_whether_live()
        if key is None or epoch is None:
            return
        if not self._fed_recently():
            # Whoever does not hear of revocations must run out.
            return
        sent = instant(self._clock)
        if not await self._fleet.renew(key, epoch):
            await self._rejoin(key)
        elif ledger.key == key:
            ledger.renewed(sent)
        self._say_whether_live()

    async def _feed(self) -> None:
        key = self._ledger.key
        while True:
            async with self._joining:
                if self._ledger.key is None or self._ledger.key != key:
                    return
                page = await self._read()
                self.heard(page)
                if self._is_another_history(page) or not self._ledger.learn(page):
                    await self._contradicted(page)
                    break
            self._telling.want()
            if self._ledger.number is None or self._ledger.number >= page.number:
                return
        await self._rejoin(key)

    def _fed_recently(self) -> bool:
        return self._clock.boottime() - self._fed_at <= self._lease_seconds / 2

    async def _read(self) -> FeedPage:
        sent_at = self._clock.boottime()
        page = await self._fleet.feed(self._ledger.number, self._ledger.mark)
        self._fed_at = sent_at
        return page

    def _is_another_history(self, page: FeedPage) -> bool:
        return self._ledger.number is not None and not (page.continues or page.pruned)

    async def _contradicted(self, page: FeedPage) -> None:
        """The feed tells another history than before: in the same epoch, that one is over."""
        if page.epoch == self._ledger.epoch:
            _log.error("the database's history of revocations changed under us: was it restored? Beginning a new epoch")
            await self._fleet.begin_epoch(page.epoch)

    async def _tell(self) -> None:
        ledger = self._ledger
        key, epoch, applied = ledger.key, ledger.epoch, ledger.applied()
        if key is None or epoch is None or applied is None or self._published == (key, applied):
            return
        # Before it is sent: from then on somebody may rely on it.
        self.told = max(self.told, applied)
        if await self._fleet.publish(key, epoch, applied):
            self._published = (key, applied)
        else:
            await self._rejoin(key)

    def _seconds_to_deadline(self) -> float:
        """Until a verifier's lease runs out, after which more may be applied."""
        deadline = self._ledger.next_deadline()
        if deadline is None:
            return self._every_seconds
        return max(0.001, min(self._every_seconds, deadline - self._clock.boottime()))

    async def _listen(self, wait_for: Callable[[float], Awaitable[None]], wake: Callable[[], None]) -> None:
        while True:
            try:
                await wait_for(self._every_seconds)
            except StoreError:
                await asyncio.sleep(self._every_seconds)
            wake()

    async def _leave_in_time(self) -> None:
        try:
            # A standby that is away holds up the write, which goes on all the same, and not the end of this process.
            async with asyncio.timeout(LEAVE_SECONDS_MAX):
                await self._leave()
        except (StoreError, TimeoutError) as error:
            _log.warning("cannot sign off from the other servers: %s", type(error).__name__)

    async def _leave(self) -> None:
        key = self._ledger.key
        if key is None:
            return
        self._ledger.drain()
        if not self._ledger.drained():
            _log.warning("verifiers hold leases of this server: others count it as gone when those have run out")
            return
        await self._fleet.leave(key)

    def _say_whether_live(self) -> None:
        live = self._ledger.own_lease_live()
        if live and not self._live:
            _log.info("this server's lease is live")
        elif self._live and not live:
            _log.error("this server's lease is lost: answering UNAVAILABLE until it joined the others again")
        self._live = live


def _say_why(task: asyncio.Future[None]) -> None:
    """None of these ends by itself: what it would leave undone ends this server's lease, and people should know why."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("a part of the membership failed", exc_info=task.exception())
