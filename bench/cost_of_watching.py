"""What watching costs a fleet of any size: a formula, and the protocol's own code run in one process to hold it.

`python -m bench.cost_of_watching` prints the table of docs/revocation.md. Nothing is imitated but the network, which is
a function call, and time, which is moved by hand: servers' ledgers and streams, verifiers' caches and sessions are the
real ones. Statements to the database are counted where `replica/member.py` and `replica/propagation.py` make them.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

from google.protobuf.message import Message

from watchword.lease import instant
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier.cache import Cache
from watchword.verifier.session import WatchSession
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.member import renew_every_seconds
from watchword_server.replica.report import UNCHANGED_SECONDS_MAX
from watchword_server.replica.stream import RENEWALS_PER_LEASE, Caller, WatcherStream
from watchword_server.store.fleet_contract import Change, FeedPage

SIMULATED_MAX: Final = 10_000
"""Beyond it the table is the formula's alone: a cache each takes memory."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a whole fleet: per second while nothing is revoked, and for each revocation."""

    up_per_second: float
    """Messages from verifiers."""
    down_per_second: float
    """Messages to verifiers."""
    up_per_revocation: float
    down_per_revocation: float
    statements_per_second: float
    statements_per_revocation: float
    """Without the revocation's own transaction, and at the least: how often those who wait look is a matter of time."""


def formula(verifiers: int, replicas: int, lease_seconds: float) -> Cost:
    """V verifiers at R replicas, lease L, which is also the replicas' own.

    6 V / L renewals a second, and as many grants; for a revocation V changes and V acknowledgements. Each replica
    renews its row, reads the feed and lists the others every min(3 s, L / 20), and reports its verifiers every 5 s. For
    a revocation it reads the feed once and tells once what it applied, which takes two statements, the write and the
    news of it; the one that was asked lists them all after the commit and after the last has told.
    """
    every_seconds = renew_every_seconds(lease_seconds)
    renewals = verifiers * RENEWALS_PER_LEASE / lease_seconds
    return Cost(
        up_per_second=renewals,
        down_per_second=renewals,
        up_per_revocation=verifiers,
        down_per_revocation=verifiers,
        statements_per_second=replicas * (3 / every_seconds + 1 / UNCHANGED_SECONDS_MAX),
        statements_per_revocation=3 * replicas + 2,
    )


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def boottime(self) -> float:
        """See watchword.lease.Clock."""
        return self.now

    def realtime(self) -> float:
        """See watchword.lease.Clock."""
        return self.now


@dataclass(slots=True)
class Traffic:
    """What went over the network, by kind of message."""

    messages: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)

    def count(self, message: pb.WatchRequest | pb.WatchResponse) -> None:
        kind = message.WhichOneof("message") or "none"
        self.messages[kind] += 1
        self.size_bytes[kind] += _framed_bytes(message)


def _framed_bytes(message: Message) -> int:
    # gRPC's prefix of 5 bytes, and the header of an HTTP/2 frame.
    return message.ByteSize() + 14


class Feed:
    """The database's part."""

    def __init__(self) -> None:
        self.epoch: Final = uuid4()
        self.number = 0
        self.mark = uuid4()

    def page(self, changes: tuple[Change, ...] = ()) -> FeedPage:
        """What a replica reads."""
        return FeedPage(self.epoch, self.number, self.mark, changes, True, False, True, 60.0)


class Replica:
    """A server among others, without a network and a database."""

    def __init__(self, feed: Feed, clock: Clock, lease_seconds: float) -> None:
        self.ledger: Final = Ledger(clock, lease_seconds_max=lease_seconds)
        self.ledger.joined(uuid4(), feed.epoch, instant(clock))
        self.ledger.start(feed.page())


class Verifier:
    """A cache with its watch, attached to a replica."""

    def __init__(self, replica: Replica, clock: Clock, lease_seconds: float, traffic: Traffic) -> None:
        self.cache: Final = Cache(clock)
        self.session: Final = WatchSession(
            self.cache, clock, lease_seconds=lease_seconds, name="orders", instance="host:1", library="simulated"
        )
        self._traffic = traffic
        self._stream: Final = WatcherStream(
            replica.ledger, clock, caller=Caller("ipv4:127.0.0.1:1", "orders"), ready=lambda: None
        )
        self._send(self.session.hello())
        self.exchange()

    def renew(self) -> None:
        """At its time."""
        self._send(self.session.renew())
        self.exchange()

    def exchange(self) -> None:
        """Everything that is to be said now, both ways."""
        while (response := self._stream.take()) is not None:
            self._traffic.count(response)
            for reply in self.session.receive(response):
                self._send(reply)

    def _send(self, message: pb.WatchRequest) -> None:
        self._traffic.count(message)
        self._stream.receive(message)


class Simulation:
    """A fleet in which everybody is attached, has a lease, and rests until somebody revokes."""

    def __init__(self, verifiers: int, replicas: int, lease_seconds: float) -> None:
        self.clock: Final = Clock()
        self.feed: Final = Feed()
        self.traffic: Final = Traffic()
        self.statements = 0
        self._lease_seconds: Final = lease_seconds
        self._order: Final = itertools.count()
        self._replicas: Final = [Replica(self.feed, self.clock, lease_seconds) for _ in range(replicas)]
        self._verifiers: Final = [
            Verifier(self._replicas[number % replicas], self.clock, lease_seconds, self.traffic)
            for number in range(verifiers)
        ]
        for verifier in self._verifiers:
            verifier.renew()
        self.traffic.messages.clear()
        self.traffic.size_bytes.clear()

    def rest(self, seconds: float) -> None:
        """Time passes. Renewals are spread over it, as they are between verifiers that know nothing of each other."""
        end = self.clock.now + seconds
        every_seconds = renew_every_seconds(self._lease_seconds)
        due: list[tuple[float, int, Verifier | Replica | None]] = []
        for number, verifier in enumerate(self._verifiers):
            share = number / len(self._verifiers)
            due.append((self.clock.now + share * verifier.session.renew_every_seconds, next(self._order), verifier))
        due += [(self.clock.now, next(self._order), replica) for replica in self._replicas]
        due.append((self.clock.now, next(self._order), None))
        heapq.heapify(due)
        while due[0][0] < end:
            at, _, who = heapq.heappop(due)
            self.clock.now = max(self.clock.now, at)
            if isinstance(who, Verifier):
                who.renew()
                again = at + who.session.renew_every_seconds
            elif isinstance(who, Replica):
                # Renews its row, reads the feed, lists the others.
                self.statements += 3
                who.ledger.renewed(instant(self.clock))
                who.ledger.learn(self.feed.page())
                again = at + every_seconds
            else:
                self.statements += len(self._replicas)
                again = at + UNCHANGED_SECONDS_MAX
            heapq.heappush(due, (again, next(self._order), who))
        self.clock.now = end

    def revoke(self, token_id: UUID) -> None:
        """Until nothing accepts it. Raises AssertionError if anybody was left out."""
        self.feed.number += 1
        self.feed.mark = uuid4()
        page = self.feed.page((Change(self.feed.number, (token_id,)),))
        self.statements += 1  # The list after the commit.
        for replica in self._replicas:
            self.statements += 1
            replica.ledger.learn(page)
        for verifier in self._verifiers:
            verifier.exchange()
        for replica in self._replicas:
            assert replica.ledger.applied() == self.feed.number
            self.statements += 2
        self.statements += 1  # The list in which the last one has told.
        assert all(verifier.cache.applied == self.feed.number for verifier in self._verifiers)


def simulated(verifiers: int, replicas: int, lease_seconds: float, *, seconds: float) -> tuple[Cost, Traffic]:
    """The same as `formula`, counted over so long and one revocation after it; and all that was sent."""
    simulation = Simulation(verifiers, replicas, lease_seconds)
    simulation.rest(seconds)
    statements = simulation.statements
    simulation.revoke(uuid4())
    sent = simulation.traffic.messages
    cost = Cost(
        up_per_second=sent["renew"] / seconds,
        down_per_second=sent["grant"] / seconds,
        up_per_revocation=sent["acknowledge"],
        down_per_revocation=sent["changes"],
        statements_per_second=statements / seconds,
        statements_per_revocation=simulation.statements - statements,
    )
    return cost, simulation.traffic


def main() -> None:
    lease_seconds, seconds = 60.0, 30.0
    print("verifiers replicas              per second: up, down, statements; per revocation: up, down, statements")
    for verifiers, replicas in ((10, 2), (1_000, 2), (10_000, 10), (100_000, 100)):
        costs = {"formula": formula(verifiers, replicas, lease_seconds)}
        if verifiers <= SIMULATED_MAX:
            costs["simulated"], traffic = simulated(verifiers, replicas, lease_seconds, seconds=seconds)
        for name, cost in costs.items():
            rest = (cost.up_per_second, cost.down_per_second, cost.statements_per_second)
            each = (cost.up_per_revocation, cost.down_per_revocation, cost.statements_per_revocation)
            print(f"{verifiers:>9,} {replicas:>8} {name:<12}", *(f"{value:>10,.6g}" for value in rest + each))
    for kind, count in sorted(traffic.messages.items()):
        print(f"{kind}: {traffic.size_bytes[kind] / count:.0f} bytes")


if __name__ == "__main__":
    main()
