"""One server process of the model: the real member, ledger, observer, streams and fence, on steps."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.clocks import ManualClock
from tests.model.fleet import SteppedFleet
from tests.model.steps import Op, Task
from watchword.identity import Identity
from watchword.token import format_token_id
from watchword.verifier.verdict import Active, Answer, Inactive, Position
from watchword_server.replica.fence import FencedStore
from watchword_server.replica.refusal import WatchRefusedError
from watchword_server.replica.stream import Caller, WatcherStream
from watchword_server.store.contract import StoreUnavailableError

if TYPE_CHECKING:
    from tests.model.world import World

LEASE_SECONDS = 10.0
CALLER = Caller("192.0.2.1:1", "orders")


class Request:
    """A Validate call as its two ends share it."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.done = False


class Replica:
    """What the loops of a server do of themselves (`joined`, `renewed`, `fed`, ...) is a task here, begun by a test."""

    def __init__(self, world: World, name: str, clock: ManualClock) -> None:
        parts = world.parts
        self.name = name
        self.clock = clock
        self.alive = True
        self.frozen = False
        self.tasks: list[Task[Any]] = []
        self.ledger = parts.ledger(clock, lease_seconds_max=LEASE_SECONDS)
        self.observer = parts.observer(clock)
        fleet = SteppedFleet(world.database)
        self.propagation = parts.propagation(fleet, self.observer, every_seconds=1.0)
        self.member = parts.member(fleet, self.ledger, clock, self.propagation, name=name, lease_seconds=LEASE_SECONDS)
        self._store = parts.store(world.database)
        self._fenced = FencedStore(self._store, self.member)
        self._world = world
        self._stream_type = parts.stream
        self._requests: list[Request] = []

    def __repr__(self) -> str:
        return f"Replica({self.name})"

    @property
    def running(self) -> bool:
        """Whether it takes steps of its own."""
        return self.alive and not self.frozen

    # What its loops do

    def join(self) -> Task[Any]:
        """One attempt to join."""
        self.member.wants_join = False
        return self._begin("join", self._joined())

    def renew(self) -> Task[Any]:
        """Renews its own lease."""
        return self._begin("renew", self.member._renew())

    def feed(self) -> Task[Any]:
        """Reads what was revoked."""
        return self._begin("feed", self.member._feed())

    def tell(self) -> Task[Any]:
        """Tells what is applied."""
        return self._begin("tell", self.member._tell())

    def look(self) -> Task[Any]:
        """Looks at the other replicas, and fences the dead."""
        return self._begin("look", self.propagation._roll())

    def drain(self) -> None:
        """Is about to go: asks its verifiers to move."""
        self.ledger.drain()

    def leave(self) -> Task[Any]:
        """Goes, as at the end of a drain."""
        return self._begin("leave", self.member._leave())

    def busy(self, name: str) -> bool:
        """Whether a task of this name is under way: a loop does one round at a time."""
        return any(task.name == name and not task.done for task in self.tasks)

    def kill(self) -> None:
        """The process is gone. What it sent may still arrive."""
        self.alive = False
        for task in self.tasks:
            task.end()
        for request in self._requests:
            request.done = True

    # What it is asked

    def revoke(self, *token_ids: UUID, everything: bool = False) -> Task[Any]:
        """A Revoke, from its arrival to its COMPLETE."""
        return self._begin("revoke", self._revoked(token_ids, everything))

    def serve(self, token_id: UUID, request: Request) -> None:
        """A Validate arrives."""
        if not self.alive:
            request.done = True
            return
        self._requests.append(request)
        self._begin("validate", self._validated(token_id, request))

    def attend(self) -> WatcherStream:
        """A Watch arrives."""
        return self._stream_type(self.ledger, self.clock, caller=CALLER, ready=lambda: None)

    def poll(self, stream: WatcherStream) -> Task[Any]:
        """A stream waits for the feed."""
        return self._begin("poll", self._polled(stream))

    async def _joined(self) -> None:
        joined = False
        try:
            joined = await self.member._joined()
        finally:
            if not joined:
                self.member.wants_join = True

    async def _revoked(self, token_ids: tuple[UUID, ...], everything: bool) -> None:
        position = await self._store.revoke(token_ids, everything=everything)
        committed = self.observer.ticket()
        await Op(lambda: None, ready=lambda: self.observer.complete(position, committed), local=True)
        self._world.complete(token_ids)

    async def _validated(self, token_id: UUID, request: Request) -> None:
        try:
            snapshot = await self._fenced.read([token_id])
            position = Position(snapshot.position.epoch.bytes, snapshot.position.number)
            if token_id in snapshot.rows:
                identity = Identity(format_token_id(token_id), "ada", (), ("*",), {})
                request.answer = Answer(Active(identity), position, 600.0, 3600.0)
            else:
                request.answer = Answer(Inactive(), position, 30.0, 0.0)
        finally:
            request.done = True

    async def _polled(self, stream: WatcherStream) -> None:
        await self.member._feed()
        stream.polled()

    def _begin(self, name: str, coroutine: Coroutine[Op[Any], None, Any]) -> Task[Any]:
        task: Task[Any] = Task(name, coroutine, StoreUnavailableError, WatchRefusedError)
        self.tasks = [*(task for task in self.tasks if not task.done), task]
        return task
