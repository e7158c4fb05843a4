"""A whole installation in one thread: database, replicas, verifiers, their clocks, and what lies on the wire.

Nothing happens by itself. The property is asserted at each decision: none that was invoked after a Revoke returned
COMPLETE is "accept".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import UUID

from tests.client.caches import Made, made
from tests.clocks import ManualClock
from tests.model.parts import Parts
from tests.model.replica import LEASE_SECONDS, Replica
from tests.model.verifier import Link, Verifier
from watchword.lease import DRIFT
from watchword.token import parse_token_id
from watchword.verifier.verdict import Active, Verdict

# Any two differ by no more than the bound.
RATES = (1.0, 1 - DRIFT / 2, 1 + DRIFT / 2)
HEALTHY_STEP_SECONDS = LEASE_SECONDS / 8
QUIET_ROUNDS = 5


class PropertyError(AssertionError):
    """The guarantee is broken."""


class World:
    """See the module."""

    def __init__(self, parts: Parts | None = None, *, replicas: int = 2, verifiers: int = 2, tokens: int = 2) -> None:
        self.parts = parts or Parts()
        self.database = self.parts.database()
        self.clocks: list[tuple[ManualClock, float]] = []
        self.tokens: list[Made] = [made() for _ in range(tokens)]
        self.replicas: list[Replica] = []
        self.verifiers: list[Verifier] = []
        self.hits = 0
        self.joins = 0
        self.completions = 0
        self.held: list[object] = []
        """Tasks and links that do not move when everything else does."""
        self._complete: set[UUID] = set()
        for _ in range(replicas):
            self.add_replica()
        for _ in range(verifiers):
            self.add_verifier()

    def add_replica(self) -> Replica:
        """One more server process, which has not joined."""
        replica = Replica(self, f"r{len(self.replicas)}", self._clock())
        self.replicas.append(replica)
        return replica

    def add_verifier(self) -> Verifier:
        """One more verifier process, which is attached nowhere."""
        verifier = self.parts.verifier(self, f"v{len(self.verifiers)}", self._clock())
        self.verifiers.append(verifier)
        return verifier

    def fork(self, verifier: Verifier) -> Verifier:
        """The process forks: the child has its own streams, and what its cache makes of the memory it inherited."""
        child = self.add_verifier()
        child.cache.verifier_key = verifier.cache.verifier_key
        child.cache._begin_anew()
        return child

    @staticmethod
    def id_of(token: Made) -> UUID:
        """As the store knows it."""
        return parse_token_id(token.token_id)

    # The property

    def complete(self, token_ids: Iterable[UUID]) -> None:
        """A Revoke of these returned COMPLETE."""
        self.completions += 1
        self._complete |= set(token_ids)

    def is_complete(self, token: Made) -> bool:
        """Whether it was revoked, completely, by now: asked at the invocation of a decision."""
        return self.id_of(token) in self._complete

    def decided(self, token: Made, verdict: Verdict | None, ended: bool) -> bool:
        """A decision returns; `ended` is what `is_complete` was when it was invoked."""
        accepted = isinstance(verdict, Active)
        if accepted and ended:
            raise PropertyError("accepted after COMPLETE")
        return accepted

    def check(self) -> None:
        """What holds at any time."""
        for replica in self.replicas:
            if replica.alive:
                replica.ledger.applied()  # asserts that it never goes back
        for verifier in self.verifiers:
            if verifier.running:
                self._check_memory(verifier)
            if verifier.running and verifier.cache.lease.live(verifier.clock):
                self._check_streams(verifier)

    def _check_memory(self, verifier: Verifier) -> None:
        """A call that came in just now would not be admitted from memory."""
        for token in self.tokens:
            if self.is_complete(token):
                self.decided(token, verifier.cache.decide(token.text, is_use=False), ended=True)

    def _check_streams(self, verifier: Verifier) -> None:
        """Under a live lease, no call stays open whose end was applied, unless it is being judged again."""
        for stream in verifier.streams:
            if not stream.watched.is_open or stream.judging or stream.watched in verifier.due:
                continue
            if self.is_complete(stream.token):
                raise PropertyError("a call stays open after COMPLETE")

    # Time

    def advance(self, seconds: float, *, suspended: ManualClock | None = None) -> None:
        """Time passes, and nothing else. A machine that is suspended sees it only on its wall clock."""
        for clock, rate in self.clocks:
            if clock is suspended:
                clock.pause(seconds)
            else:
                clock.advance(seconds * rate)

    def healthy(self, seconds: float) -> None:
        """Time passes in which everything works."""
        while seconds > 0:
            step = min(seconds, HEALTHY_STEP_SECONDS)
            self.advance(step)
            for replica in self.replicas:
                if replica.running and not replica.busy("renew"):
                    replica.renew()
            for link in self.links():
                if link not in self.held:
                    link.renew()
                    link.look()
            self.settle()
            seconds -= step

    # All at once

    def settle(self) -> None:
        """Everything that can happen without time passing does."""
        quiet = 0
        # What one round of a replica tells may be news for another's next.
        while quiet < QUIET_ROUNDS:
            moved = False
            for replica in self.replicas:
                if replica.running:
                    self._round(replica)
                moved |= self._run(replica)
            for verifier in self.verifiers:
                moved |= self._run(verifier)
            for link in self.links():
                moved |= link not in self.held and link.pump()
            quiet = 0 if moved else quiet + 1
        self.check()

    def _round(self, replica: Replica) -> None:
        if replica.member.wants_join and not replica.busy("join"):
            replica.join()
        for name, begin in (("feed", replica.feed), ("tell", replica.tell), ("look", replica.look)):
            if not replica.busy(name):
                begin()

    def possible(self) -> list[Callable[[], object]]:
        """Every single thing that can happen now without anybody's decision: messages arrive, processes go on."""
        found: list[Callable[[], object]] = []
        for process in self.processes():
            for task in process.tasks:
                if task.on_its_way:
                    found.append(task.arrive)
                elif process.running and not task.done and task.ready:
                    found.append(task.step)
        for link in self.links():
            if link.up and link.server_open and link.replica.running:
                found.append(link.arrive)
            if link.server_open and link.replica.running:
                found.append(link.write)
            if link.down and link.client_open and link.verifier.running:
                found.append(link.deliver)
        return found

    def processes(self) -> list[Replica | Verifier]:
        """All there ever were."""
        return [*self.replicas, *self.verifiers]

    def links(self) -> list[Link]:
        """All streams that have not ended at both ends."""
        return [link for verifier in self.verifiers for link in verifier.links]

    def _run(self, process: Replica | Verifier) -> bool:
        if not process.running:
            return False
        # The rounds of a replica that found nothing new are no movement.
        before = [task for task in process.tasks if task.name not in ("feed", "tell", "look")]
        moved = False
        for task in list(process.tasks):
            while not task.done and task.ready and task not in self.held:
                task.step()
                moved |= task in before
        return moved

    def _clock(self) -> ManualClock:
        clock = ManualClock(boottime=1_000.0 + 37.0 * len(self.clocks))
        self.clocks.append((clock, RATES[len(self.clocks) % len(RATES)]))
        return clock
