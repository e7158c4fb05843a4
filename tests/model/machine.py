"""Random histories of a world, drawn and shrunk by Hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.client.caches import Made, made
from tests.model.parts import Parts
from tests.model.replica import Replica
from tests.model.verifier import Verifier
from tests.model.world import World
from watchword.verifier.contract import VerifierUnavailableError
from watchword_server.store.contract import StoreUnavailableError

T = TypeVar("T")
PROCESSES_MAX = 4
WHICH_MAX = 11
# Around the ends of leases and of the acknowledgement timeout, and short.
SECONDS_CHOICES = (0.01, 0.5, 2.0, 4.9, 5.1, 9.94, 9.97, 10.04, 10.07, 21.0)
# Beyond what may pass for an adjustment of the wall clock.
SUSPENDED_CHOICES = (1.1, 5.0, 21.0)
HELD_TASKS = ("check", "open", "message", "join", "revoke")
WHICH = st.integers(0, WHICH_MAX)
HELD = st.lists(WHICH, max_size=3)
SECONDS = st.sampled_from(SECONDS_CHOICES)
SUSPENDED_SECONDS = st.sampled_from(SUSPENDED_CHOICES)


def one_of(choices: Sequence[T], which: int) -> T:
    return choices[which % len(choices)]


class Machine(RuleBasedStateMachine):
    """Begins with replicas that have joined and verifiers that hold leases, some of them remembering tokens."""

    WORK: ClassVar[tuple[str, ...]] = ("renew", "feed", "tell", "look", "join")
    parts = Parts()

    @initialize(warm=st.booleans())
    def begin(self, warm: bool) -> None:
        self.world = World(self.parts, tokens=1)
        self.world.settle()
        for which, verifier in enumerate(self.world.verifiers):
            verifier.connect(one_of(self.world.replicas, which))
        self.world.settle()
        if warm:
            for verifier in self.world.verifiers:
                for token in self.world.tokens:
                    verifier.check(token, self.world.replicas[0])
            self.world.settle()

    def _replica(self, which: int) -> Replica:
        return one_of([one for one in self.world.replicas if one.alive] or self.world.replicas, which)

    def _verifier(self, which: int) -> Verifier:
        return one_of([one for one in self.world.verifiers if one.alive] or self.world.verifiers, which)

    def _token(self, which: int) -> Made:
        """The latest, mostly."""
        return self.world.tokens[-1 if which < WHICH_MAX else 0]

    def _hold(self, which: list[int]) -> None:
        """Streams, and calls and joins under way."""
        under_way = [task for one in self.world.processes() for task in one.tasks if task.name in HELD_TASKS]
        things = [*reversed(under_way), *reversed(self.world.links())]
        self.world.held = [one_of(things, one) for one in which] if things else []

    # What happens of itself

    @rule(order=st.lists(st.integers(0, 63), min_size=1, max_size=16))
    def go_on(self, order: list[int]) -> None:
        """Messages arrive and processes go on, in any order."""
        for which in order:
            possible = self.world.possible()
            if possible:
                one_of(possible, which)()

    @rule(but=HELD)
    def all_else_settles(self, but: list[int]) -> None:
        """Everything happens that can without time passing, except for what is held up."""
        self._hold(but)
        self.world.settle()
        self.world.held.clear()

    @rule(seconds=SECONDS, but=HELD)
    def all_else_is_well(self, seconds: float, but: list[int]) -> None:
        for which, verifier in enumerate(self.world.verifiers):
            if verifier.running and not any(link.client_open and link.server_open for link in verifier.links):
                verifier.connect(self._replica(which + len(verifier.tasks)))
        self._hold(but)
        self.world.healthy(seconds)
        self.world.held.clear()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(which=WHICH, name=st.sampled_from(WORK))
    def a_replica_begins(self, which: int, name: str) -> None:
        replica = self._replica(which)
        if replica.running and not replica.busy(name) and (name != "join" or replica.member.wants_join):
            getattr(replica, name)()

    @rule(which=WHICH)
    def a_lease_is_asked_for(self, which: int) -> None:
        if links := self.world.links():
            one_of(links, which).renew()

    # Calls

    @rule(verifier=WHICH, token=WHICH, replica=WHICH, stays_open=st.booleans(), steps=st.integers(0, 3))
    def a_call(self, verifier: int, token: int, replica: int, stays_open: bool, steps: int) -> None:
        """Should it have to be looked up: it is asked about, the answer is read, the answer arrives; or not so far."""
        process, server = self._verifier(verifier), self._replica(replica)
        if not process.running:
            return
        begin = process.open if stays_open else process.check
        task = begin(self._token(token), server)
        if steps >= 1 and task.on_its_way:
            task.step()
            if steps >= 2 and server.running and server.tasks and server.tasks[-1].name == "validate":
                reading = server.tasks[-1]
                while not reading.done:
                    reading.step()
                if steps == 3:
                    task.step()

    @rule()
    def a_token_is_issued(self) -> None:
        """Once the last one was revoked; of the revoked ones some are still presented."""
        if self.world.is_complete(self.world.tokens[-1]):
            self.world.tokens.append(made())

    @rule(verifier=WHICH, stream=WHICH, replica=WHICH)
    def a_message(self, verifier: int, stream: int, replica: int) -> None:
        process = self._verifier(verifier)
        if process.running and process.streams:
            process.message(one_of(process.streams, stream), self._replica(replica))

    @rule(verifier=WHICH, replica=WHICH)
    def open_calls_are_judged_again(self, verifier: int, replica: int) -> None:
        process = self._verifier(verifier)
        if process.running:
            process.judge_again(self._replica(replica))

    @rule(replica=WHICH, token=WHICH, everything=st.sampled_from([False, False, False, True]), but=HELD)
    def a_revocation(self, replica: int, token: int, everything: bool, but: list[int]) -> None:
        """And it gets as far as it can."""
        process = self._replica(replica)
        if process.running:
            tokens = self.world.tokens if everything else [self._token(token)]
            process.revoke(*(self.world.id_of(one) for one in tokens), everything=everything)
            self.all_else_settles(but)

    # Faults

    @rule(verifier=WHICH, replica=WHICH)
    def a_verifier_connects(self, verifier: int, replica: int) -> None:
        process = self._verifier(verifier)
        if process.running:
            process.connect(self._replica(replica))

    @rule(which=WHICH)
    def a_stream_is_cut(self, which: int) -> None:
        if links := self.world.links():
            one_of(links, which).cut()

    @rule(which=WHICH)
    def a_connection_is_lost(self, which: int) -> None:
        tasks = [
            (
                task,
                VerifierUnavailableError("UNAVAILABLE") if process in self.world.verifiers else StoreUnavailableError(),
            )
            for process in self.world.processes()
            if process.running
            for task in process.tasks
            if task.op is not None and not task.op.local
        ]
        if tasks:
            task, error = one_of(tasks, which)
            task.lose(error)

    @rule(which=WHICH)
    def a_process_stands_still(self, which: int) -> None:
        process = one_of(self.world.processes(), which)
        process.frozen = not process.frozen

    @rule(which=WHICH, seconds=SUSPENDED_SECONDS)
    def a_machine_is_suspended(self, which: int, seconds: float) -> None:
        self.world.advance(seconds, suspended=one_of(self.world.clocks, which)[0])

    @rule()
    def a_replica_is_added(self) -> None:
        if len(self.world.replicas) < PROCESSES_MAX:
            self.world.add_replica()

    @rule(which=WHICH)
    def a_replica_is_killed(self, which: int) -> None:
        self._replica(which).kill()

    @rule(which=WHICH, replica=WHICH)
    def a_verifier_is_replaced(self, which: int, replica: int) -> None:
        if len(self.world.verifiers) < PROCESSES_MAX:
            self._verifier(which).kill()
            self.world.add_verifier().connect(self._replica(replica))

    @rule(verifier=WHICH, replica=WHICH)
    def a_verifier_forks(self, verifier: int, replica: int) -> None:
        if len(self.world.verifiers) < PROCESSES_MAX:
            self.world.fork(self._verifier(verifier)).connect(self._replica(replica))

    @rule(which=WHICH)
    def a_replica_drains(self, which: int) -> None:
        replica = self._replica(which)
        if replica.running:
            replica.drain()

    @rule(which=WHICH)
    def a_replica_leaves(self, which: int) -> None:
        replica = self._replica(which)
        if replica.running and not replica.busy("leave"):
            replica.leave()

    @rule()
    def a_standby_takes_over(self) -> None:
        self.world.database.fail_over()

    @rule()
    def old_changes_are_pruned(self) -> None:
        self.world.database.prune()

    @invariant()
    def what_always_holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
