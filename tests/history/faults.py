"""How each fault is done, healed and recorded."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import psutil
import psycopg

from tests.history.burst import Burst
from tests.history.events import Fault, Log, now
from tests.history.fleet import LEASE_SECONDS, POSTGRES, Fleet, start_all
from tests.history.plan import Step
from tests.history.process import family

JUMP_SECONDS: Final = 3600.0
DEATH_SECONDS_MAX: Final = 30
PRUNED_AFTER_SECONDS: Final = 1.0
# A wire that these befall delays revocations by more than the lease: acknowledgements are late, and renewals arrive.
DELAYS: Final = ("latency", "slow", "hole_down")
OF_VERIFIERS: Final = ("stop_verifier", "kill_verifier", "jump", "verifier_wire", "prune", "restart_everything")


class Faults:
    """Breaks a fleet, a step at a time on each of two lanes."""

    def __init__(self, fleet: Fleet, log: Log, *, burst_tokens_count: int) -> None:
        self._fleet = fleet
        self._log = log
        self._burst = Burst(fleet, log, tokens_count=burst_tokens_count)
        self._hurry = threading.Event()
        self._jumped: Counter[str] = Counter()
        # Held by whoever breaks verifiers or their wires: both lanes do.
        self._verifiers = threading.RLock()
        self.counts: Counter[str] = Counter()

    def run(self, steps: Iterable[Step]) -> None:
        """One after the other."""
        for step in steps:
            if self._hurry.is_set():
                return
            fault: Callable[[Step], None] = getattr(self, step.kind)
            with self._verifiers if step.kind in OF_VERIFIERS else nullcontext():
                fault(step)
            if step.kind not in OF_VERIFIERS:
                self._supervise()

    def hurry(self) -> None:
        """No more faults than the one under way."""
        self._hurry.set()

    # ---- verifiers ---------------------------------------------------------------------------------------------------

    def stop_verifier(self, step: Step) -> None:
        """Frozen, and thawed."""
        name = self._verifier(step)
        with self._recorded("stop_verifier", name, verifiers_only=True):
            self._freeze([psutil.Process(self._fleet.verifiers[name].pid)], step)

    def kill_verifier(self, step: Step) -> None:
        """Dead, and started anew under its address."""
        name = self._verifier(step)
        with self._recorded("kill_verifier", name, verifiers_only=True):
            self._fleet.verifiers[name].kill()
            self._fleet.verifiers[name].start()

    def jump(self, step: Step) -> None:
        """Its wall clock jumps an hour: ahead first, back the next time."""
        name = self._verifier(step)
        direction = -1 if self._jumped[name] % 2 else 1
        self._jumped[name] += 1
        with self._recorded("jump", name, verifiers_only=True):
            self._fleet.verifiers[name].tell({"jump": direction * JUMP_SECONDS})

    def verifier_wire(self, step: Step) -> None:
        """All its connections to the authority."""
        name = self._verifier(step)
        with self._recorded(f"verifier_{step.mode}", name, verifiers_only=step.mode not in DELAYS):
            self._break(self._fleet.links_of(name), step)

    # ---- the authority -----------------------------------------------------------------------------------------------

    def stop_replica(self, step: Step) -> None:
        """Frozen with its workers, and thawed."""
        name = self._replica(step)
        with self._recorded("stop_replica", name):
            self._freeze(family(self._fleet.replicas[name].server.pid), step)

    def kill_replica(self, step: Step) -> None:
        """Dead with its workers, and started anew under its address."""
        name = self._replica(step)
        with self._recorded("kill_replica", name):
            self._kill_replicas([name])
            self._fleet.replicas[name].start()

    def stop_postgres(self, step: Step) -> None:
        """Frozen with all its backends, and thawed."""
        with self._recorded("stop_postgres", POSTGRES):
            self._freeze(family(self._postmaster()), step)

    def kill_postgres(self, step: Step) -> None:
        """Dead with all its backends, and recovered from its log."""
        with self._recorded("kill_postgres", POSTGRES):
            self._kill_postgres()
            self._fleet.postgres.revive()

    def postgres_wire(self, step: Step) -> None:
        """One replica's connections to the database."""
        name = self._replica(step)
        with self._recorded(f"postgres_{step.mode}", name):
            self._break(self._fleet.links_of(name), step)

    def rolling_restart(self, step: Step) -> None:
        """Each replica told to end, and started anew, one after the other."""
        with self._recorded("rolling_restart", "replicas"):
            for replica in self._fleet.replicas.values():
                replica.server.stop()
                replica.start()

    def restart_everything(self, step: Step) -> None:
        """Everything dies at once and comes back."""
        fleet = self._fleet
        with self._recorded("restart_everything", "all"):
            self._kill_replicas(fleet.replicas)
            self._kill_postgres()
            for verifier in fleet.verifiers.values():
                verifier.kill()
            fleet.postgres.revive()
            start_all(fleet.replicas.values())
            fleet.restart_verifiers()

    def burst(self, step: Step) -> None:
        """One revocation of very many tokens."""
        name = self._replica(step)
        with self._recorded("burst", name):
            self._burst.run(name)

    def prune(self, step: Step) -> None:
        """A verifier and a replica are cut off, revocations happen, and are forgotten before the two come back."""
        fleet = self._fleet
        verifier = self._verifier(step)
        away, here = self._replica(step), self._replica(Step("", step.pick + 1))
        links = [*fleet.links_of(verifier), *fleet.links_of(away)]
        with self._recorded("prune", f"{verifier} and {away}"):
            for link in links:
                fleet.break_link(link, "hole")
            try:
                self._burst.run_few(here)
                self._hurry.wait(max(1.0, step.leases) * LEASE_SECONDS)
                self._forget_changes()
            finally:
                for link in links:
                    fleet.break_link(link, "pass")

    def _supervise(self) -> None:
        """What ended by itself is started again, as anybody's supervisor would."""
        for replica in self._fleet.replicas.values():
            if replica.ended:
                with self._recorded("ended_by_itself", replica.name):
                    replica.server.wait()
                    replica.start()

    # ---- the means ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _recorded(self, kind: str, target: str, *, verifiers_only: bool = False) -> Iterator[None]:
        began = now()
        self.counts[kind] += 1
        try:
            yield
        finally:
            self._log.write(Fault(kind, target, began, now(), verifiers_only))

    def _verifier(self, step: Step) -> str:
        names = [name for name, _ in self._fleet.verifier_names()]
        return names[step.pick % len(names)]

    def _replica(self, step: Step) -> str:
        names = list(self._fleet.replicas)
        return names[step.pick % len(names)]

    def _freeze(self, processes: list[psutil.Process], step: Step) -> None:
        for process in processes:
            _signal(process, signal.SIGSTOP)
        try:
            self._hurry.wait(step.leases * LEASE_SECONDS)
        finally:
            for process in reversed(processes):
                _signal(process, signal.SIGCONT)

    def _break(self, links: Iterable[str], step: Step) -> None:
        for link in links:
            self._fleet.break_link(link, step.mode)
        try:
            self._hurry.wait(step.leases * LEASE_SECONDS)
        finally:
            for link in links:
                self._fleet.break_link(link, "pass")

    def _kill_replicas(self, names: Iterable[str]) -> None:
        servers = [self._fleet.replicas[name].server for name in names]
        processes = [process for server in servers for process in family(server.pid)]
        _kill(processes)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.wait(), servers))

    def _postmaster(self) -> int:
        pid = self._fleet.postgres.server_pid()
        assert pid is not None
        return pid

    def _kill_postgres(self) -> None:
        # The postmaster first, so that it does not begin to recover.
        _kill(family(self._postmaster()))

    def _forget_changes(self) -> None:
        """As housekeeping does, only sooner: whoever still reads has read it."""
        with psycopg.connect(self._fleet.postgres.dsn) as database:
            database.execute(
                "update feed set pruned_to = greatest(pruned_to, ("
                "select max(number) from positions where taken_at < now() - make_interval(secs => %s)))",
                (PRUNED_AFTER_SECONDS,),
            )
            database.execute("delete from changes using feed where changes.position <= feed.pruned_to")
            database.execute("delete from positions using feed where positions.number < feed.pruned_to")


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=DEATH_SECONDS_MAX)
    assert alive == []


def fault_log(folder: Path) -> Log:
    """Where faults are recorded."""
    return Log(folder / "faults.jsonl")
