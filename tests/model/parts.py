"""What a world is made of: the real protocol code, unless a test puts something else in its place."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.fleet import SteppedFleet, SteppedStore
from watchword.verifier.cache import Cache
from watchword.verifier.session import WatchSession
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.member import Member
from watchword_server.replica.observer import Observer
from watchword_server.replica.propagation import Propagation
from watchword_server.replica.stream import WatcherStream


class SteppedMember(Member):
    """The real one; only that it does not join by itself, with pauses, but when the test says so."""

    wants_join = True

    async def _join(self) -> None:
        self.wants_join = True


@dataclass(frozen=True, slots=True)
class Parts:
    """The classes in use. A negative control replaces one."""

    cache: type[Cache] = Cache
    session: type[WatchSession] = WatchSession
    ledger: type[Ledger] = Ledger
    stream: type[WatcherStream] = WatcherStream
    observer: type[Observer] = Observer
    member: type[SteppedMember] = SteppedMember
    propagation: type[Propagation] = Propagation
    fleet: type[SteppedFleet] = SteppedFleet
    store: type[SteppedStore] = SteppedStore
