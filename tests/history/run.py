"""One run: callers at work on a fleet that is being broken, then the checker's findings."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import grpc

from tests.history.callers import Configuration
from tests.history.checker import RECOVERY_LEASES, RECOVERY_SECONDS, Findings, check
from tests.history.events import History, now
from tests.history.faults import Faults, fault_log
from tests.history.fleet import LEASE_SECONDS, Fleet
from tests.history.plan import Plan
from tests.history.process import Program
from tests.history.vacuity import missing
from watchword.v1 import token_service_pb2 as pb

WARM_SECONDS: Final = 1.5
QUIET_SECONDS: Final = 2.5
GRACE_SECONDS: Final = LEASE_SECONDS * RECOVERY_LEASES + RECOVERY_SECONDS
"""After which promptness is asked of the fleet again: the next round begins then."""
RECOVERY_ROUNDS_MAX: Final = 120
RECOVERY_ROUND_SECONDS: Final = 0.5
PROBE_SECONDS_MAX: Final = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run showed."""

    history: History
    findings: Findings
    missing: list[str]
    faults: Mapping[str, int] = field(default_factory=dict)


def run(
    fleet: Fleet, plans: Iterable[Plan], *, seed: int, burst_tokens_count: int, seconds: float | None = None
) -> Outcome:
    """Carries out the plans, no new one after so many seconds, lets the fleet recover, and checks all of it."""
    deadline = float("inf") if seconds is None else now() + seconds
    callers = callers_of(fleet, seed, verifiers=fleet.addresses, logs=fleet.logs)
    callers.start()
    time = threading.Event()
    try:
        with fault_log(fleet.logs) as log:
            faults = Faults(fleet, log, burst_tokens_count=burst_tokens_count)
            for number, plan in enumerate(plans):
                if now() >= deadline:
                    break
                time.wait(GRACE_SECONDS if number else WARM_SECONDS)
                faults.run(plan.alone)
                with ThreadPoolExecutor(2) as lanes:
                    under_way = [lanes.submit(faults.run, steps) for steps in (plan.verifiers, plan.authority)]
                for lane in under_way:
                    lane.result()
                wait_until_recovered(fleet)
            quiet_since = now()
            time.wait(QUIET_SECONDS)
        callers.tell({"stop": True})
    finally:
        callers.stop()
    history = History.read(fleet.logs)
    findings = check(history, lease_seconds=LEASE_SECONDS)
    return Outcome(history, findings, list(missing(history, findings, quiet_since=quiet_since)), dict(faults.counts))


def wait_until_recovered(fleet: Fleet) -> None:
    """Until all verifiers watch and all replicas answer COMPLETE. Gives up after a minute: the checker will tell."""
    time = threading.Event()
    for _ in range(RECOVERY_ROUNDS_MAX):
        time.wait(RECOVERY_ROUND_SECONDS)
        attached = all(verifier.tell({"jump": 0})["attached"] for verifier in fleet.verifiers.values())
        if attached and all(_completes(fleet, replica) for replica in fleet.replicas):
            return


def _completes(fleet: Fleet, replica: str) -> bool:
    request = pb.IssueRequest(subject="probe", audiences=["nobody"])
    with fleet.admin(replica) as admin:
        try:
            made = admin.tokens.Issue(request, metadata=admin.metadata, timeout=PROBE_SECONDS_MAX)
            ended = admin.tokens.Revoke(
                pb.RevokeRequest(token_id=made.token.token_id), metadata=admin.metadata, timeout=PROBE_SECONDS_MAX
            )
        except grpc.RpcError:
            return False
    return ended.propagation == pb.PROPAGATION_COMPLETE


def callers_of(
    fleet: Fleet, seed: int, *, verifiers: Mapping[str, str], logs: Path, replicas: Sequence[str] = ()
) -> Program:
    """The callers of these verifiers, who issue and revoke by way of these replicas' addresses, or of all."""
    configuration = Configuration(
        seed=seed,
        lease_seconds=LEASE_SECONDS,
        verifiers=dict(verifiers),
        replicas=tuple(replicas or (replica.address for replica in fleet.replicas.values())),
        token_file=str(fleet.admin_token_file),
        log_file=str(logs / "callers.jsonl"),
    )
    return Program("tests.history.callers", asdict(configuration), logs / "callers.stderr")
