"""What a world is made of: the real protocol code, unless a test puts something else in its place."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.database import Database
from tests.model.fleet import SteppedStore
from tests.model.member import SteppedMember
from tests.model.verifier import Verifier
from watchword.verifier.cache import Cache
from watchword.verifier.session import WatchSession
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.observer import Observer
from watchword_server.replica.propagation import Propagation
from watchword_server.replica.stream import WatcherStream


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
    verifier: type[Verifier] = Verifier
    database: type[Database] = Database
    store: type[SteppedStore] = SteppedStore
