"""The protocol with one mechanism taken away at a time. Each of these loses the guarantee: the model must see it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

from tests.client.caches import Made
from tests.model.database import Database
from tests.model.fleet import SteppedStore
from tests.model.member import SteppedMember
from tests.model.parts import Parts
from tests.model.replica import Replica
from tests.model.steps import Op
from tests.model.verifier import Stream, Verifier
from watchword.lease import Clock, Instant, Lease, instant
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier.cache import Cache
from watchword.verifier.lookup import Lookup
from watchword.verifier.session import WatchSession
from watchword.verifier.verdict import Active, Answer, Verdict
from watchword_server.replica.observer import Observer, Suspect
from watchword_server.replica.stream import WatcherStream
from watchword_server.store.contract import Position
from watchword_server.store.fleet_contract import Change, FeedPage, NewReplica, ReplicaRow, Roll

# The verifier's cache


class FlagLease(Lease):
    """Whether it is live was found out at the last turn of the loop."""

    _flag = False

    def renew(self, sent: Instant, lease_seconds: float) -> None:
        super().renew(sent, lease_seconds)
        self._flag = True

    def lapse(self) -> None:
        super().lapse()
        self._flag = False

    def live(self, clock: Clock) -> bool:
        flag, self._flag = self._flag, super().live(clock)
        return flag


class FlagCache(Cache):
    def _begin_anew(self) -> None:
        self.lease = FlagLease()
        super()._begin_anew()


class ForgetfulCache(Cache):
    """Stores answers without looking for changes seen since they were read."""

    def _may_store(self, lookup: Lookup, answer: Answer) -> bool:
        return answer.position.epoch == self.epoch and answer.position.number >= self.floor


class FloorlessCache(Cache):
    """Stores answers from before what it knows of changes begins."""

    def _may_store(self, lookup: Lookup, answer: Answer) -> bool:
        position = answer.position
        return position.epoch == self.epoch and not self._recent.changed_above(lookup.token_id, position.number)


class JoiningCache(Cache):
    """Joins lookups without a lease."""

    def _may_join(self) -> bool:
        return True


class ForgivingCache(Cache):
    """Takes a grant for what was asked for before it gave its lease up."""

    def _lapse(self) -> None:
        super()._lapse()
        self._lapsed_at = 0.0


class KeyKeepingCache(Cache):
    """Keeps its key over a fork."""

    verifier_key = b""

    def _begin_anew(self) -> None:
        key = self.verifier_key
        super()._begin_anew()
        self.verifier_key = key or self.verifier_key


class LeaseAfterEntry(Verifier):
    """Finds the entry, and then asks whether there is a lease."""

    async def decide(self, token: Made) -> Verdict | None:
        cache = self.cache
        known = cache._find(token.token_id, cache._prove(token.text), (), "", True)
        await Op(lambda: None, local=True)
        return known if cache.lease.live(self.clock) else None


class InsertOutsideLock(Verifier):
    """Judges an answer, and then stores it."""

    async def finish(self, lookup: Lookup, answer: Answer) -> None:
        cache = self.cache
        may_store = cache._may_store(lookup, answer)
        await Op(lambda: None, local=True)
        if may_store:
            cache._insert(lookup, answer, cache._ends_at(lookup, answer))
        cache.abandon(lookup)


class RegisterAfterLookup(Verifier):
    """A call that stays open hears of changes only once it was admitted."""

    async def _opened(self, token: Made, replica: Replica) -> bool:
        ended = self.world.is_complete(token)
        verdict = await self.judge(token, replica)
        if isinstance(verdict, Active):
            stream = Stream(self, token)
            stream.judging = 0
            self.streams.append(stream)
        return self.world.decided(token, verdict, ended)


# The verifier's streams


class PendingCache(Cache):
    """Keeps the renewals without an answer, of whichever stream."""

    def _begin_anew(self) -> None:
        self.pending: dict[int, Instant] = {}
        super()._begin_anew()


class RestartingSession(WatchSession):
    """Counts its nonces from one, in a table that outlives the stream."""

    def hello(self) -> pb.WatchRequest:
        assert isinstance(self._cache, PendingCache)
        self._pending = self._cache.pending  # type: ignore[misc]
        self._own_nonces = itertools.count(1)
        return super().hello()

    def renew(self) -> pb.WatchRequest:
        self._cache.next_nonce = lambda: next(self._own_nonces)  # type: ignore[method-assign]
        return super().renew()


class ReceiptSession(WatchSession):
    """Counts a lease from when it heard of it."""

    def _grant(self, grant: pb.LeaseGrant) -> None:
        if grant.nonce in self._pending:
            self._pending[grant.nonce] = instant(self._clock)
        super()._grant(grant)


# The replica


class AcknowledgeOnWrite(WatcherStream):
    """Counts what was written as applied."""

    def take(self) -> pb.WatchResponse | None:
        message = super().take()
        if message is not None and message.WhichOneof("message") in ("changes", "reset"):
            self._acknowledged(self._told_max)
        return message


class RecordWithStream(WatcherStream):
    """Forgets the lease when its stream ends."""

    def close(self) -> None:
        super().close()
        if self._watcher is not None:
            self._ledger.release(self._watcher)


class LonelyMember(SteppedMember):
    """Tells its observer which row is its own."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        observer = self._propagation._observer
        assert isinstance(observer, LonelyObserver)
        observer.member = self


class LonelyObserver(Observer):
    """Waits for its own replica only."""

    member: LonelyMember

    def _awaited(self, roll: Roll, position: Position) -> Sequence[ReplicaRow]:
        return [row for row in super()._awaited(roll, position) if row.key == self.member._ledger.key]


class ImpatientObserver(Observer):
    """Counts a replica as gone as soon as its lease should have run out."""

    def observe(self, roll: Roll, ticket: int) -> Sequence[Suspect]:
        for suspect in super().observe(roll, ticket):
            self.fenced(suspect)
        return ()


class EagerMember(SteppedMember):
    """Reads where to begin, and then commits its row."""

    async def _joined(self) -> bool:
        epoch = await self._fleet.epoch()
        page = await self._read()
        key = uuid4()
        sent = instant(self._clock)
        if not await self._fleet.join(NewReplica(key, epoch, self._name, self._lease_seconds)):
            return False
        self._ledger.joined(key, epoch, sent)
        return self._ledger.start(page)


class HastyMember(SteppedMember):
    """Signs off, whoever still holds a lease of it."""

    async def _leave(self) -> None:
        key = self._ledger.key
        if key is not None:
            self._ledger.drain()
            await self._fleet.leave(key)


# The store


class SequenceDatabase(Database):
    """Numbers come from a sequence, and whoever reads on from one takes what is above it."""

    drawn = 0

    def draw(self) -> int:
        self.drawn += 1
        return self.drawn

    def page(self, after: int | None, mark: UUID | None) -> FeedPage:
        page = super().page(after, mark)
        if after is None or page.continues:
            return page
        rows = sorted((number, row) for number, row in self.state.positions.items() if number > after)
        changes = tuple(Change(number, row.token_ids, row.everything) for number, row in rows)
        return replace(page, continues=True, changes=changes)


class SequenceStore(SteppedStore):
    async def revoke(self, token_ids: Sequence[UUID], *, everything: bool = False) -> Position:
        database = self.database
        assert isinstance(database, SequenceDatabase)
        number = await Op(database.draw)
        await Op(lambda: database.record(number, token_ids, everything=everything))
        return Position(database.state.epoch, number)


class CancellingStore(SteppedStore):
    """A wait that was given up counts as done the next time: the token is revoked already."""

    async def revoke(self, token_ids: Sequence[UUID], *, everything: bool = False) -> Position:
        revoked = self.database.state.revoked
        if all(token_id in revoked for token_id in token_ids):
            return Position(self.database.state.epoch, max(revoked[token_id] for token_id in token_ids))
        return await super().revoke(token_ids, everything=everything)


LEASE_BY_TIMER_FLAG = Parts(cache=FlagCache)
LEASE_READ_AFTER_ENTRY = Parts(verifier=LeaseAfterEntry)
NO_RECENT_CHANGE_CHECK = Parts(cache=ForgetfulCache)
ANSWER_BELOW_FLOOR = Parts(cache=FloorlessCache)
JOINING_WITHOUT_LEASE = Parts(cache=JoiningCache)
INSERT_OUTSIDE_LOCK = Parts(verifier=InsertOutsideLock)
SEQUENCE_AS_CURSOR = Parts(database=SequenceDatabase, store=SequenceStore)
ACKNOWLEDGING_ON_WRITE = Parts(stream=AcknowledgeOnWrite)
RECORD_DROPPED_WITH_STREAM = Parts(stream=RecordWithStream)
NONCES_THAT_RESTART = Parts(cache=PendingCache, session=RestartingSession)
OTHER_REPLICAS_NOT_AWAITED = Parts(observer=LonelyObserver, member=LonelyMember)
TIMEOUT_WITHOUT_FENCING = Parts(observer=ImpatientObserver)
RENEWAL_FROM_RECEIPT = Parts(session=ReceiptSession)
POSITION_BEFORE_ROW = Parts(member=EagerMember)
DRAIN_DELETES_ROW_FIRST = Parts(member=HastyMember)
GRANT_AFTER_RELEASE = Parts(cache=ForgivingCache)
REUSED_VERIFIER_KEY = Parts(cache=KeyKeepingCache)
COMMIT_CANCELLED = Parts(store=CancellingStore)
REGISTERED_AFTER_LOOKUP = Parts(verifier=RegisterAfterLookup)
