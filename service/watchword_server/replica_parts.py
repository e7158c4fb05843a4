"""Puts together what makes a server one of several: its ledger, its membership, and the watches of its verifiers."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from watchword.lease import Clock
from watchword_server.observe.metrics import Metrics, ReplicaState
from watchword_server.replica.fence import FencedStore
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.member import Member, renew_every_seconds
from watchword_server.replica.observer import Observer
from watchword_server.replica.propagation import Propagation
from watchword_server.replica.stream import Caller, WatcherStream
from watchword_server.replica.usage import UsageReports
from watchword_server.request.access import ACCESS
from watchword_server.request.pipeline import Surroundings
from watchword_server.request.standing import Standings
from watchword_server.request.verifier_service import PATH, VerifierService, WatchLimits
from watchword_server.settings import Settings
from watchword_server.store.contract import Store, Use
from watchword_server.store.fleet_contract import Fleet

_log = logging.getLogger("watchword")


@dataclass(frozen=True, slots=True)
class ReplicaParts:
    """What makes a server one of several. Join with `member.running()`."""

    member: Member
    propagation: Propagation
    ledger: Ledger
    store: FencedStore
    """What calls read from: refuses while the server may not judge."""

    metrics: Metrics

    async def measure(self) -> None:
        """Tells the metrics how it stands."""
        ledger = self.ledger
        known, applied = ledger.number or 0, ledger.applied() or 0
        self.metrics.replica_state = ReplicaState(
            lease_seconds_left=ledger.grantable_seconds(math.inf),
            known=known,
            applied=applied,
            watchers=len(ledger.streams),
            leases=len(ledger.records),
            lag=known - applied,
        )


def replica_parts(settings: Settings, store: Store, fleet: Fleet, clock: Clock, metrics: Metrics) -> ReplicaParts:
    """Not joined yet."""

    def fenced(name: str) -> None:
        metrics.replicas_fenced += 1
        _log.warning("the server %s stopped renewing its lease and counts as gone", name)

    ledger = Ledger(clock, lease_seconds_max=settings.lease_seconds_max)
    propagation = Propagation(
        fleet,
        Observer(clock, ack_timeout_seconds=settings.ack_timeout_seconds),
        every_seconds=renew_every_seconds(settings.lease_seconds_max),
        observe_wait=lambda complete, seconds: metrics.revocation_seconds[complete].observe(seconds),
        fenced=fenced,
    )
    member = Member(
        fleet,
        ledger,
        clock,
        propagation,
        name=f"{socket.gethostname()}:{os.getpid()} {settings.listen_address.target}",
        lease_seconds=settings.lease_seconds_max,
    )
    propagation.awaited = member.look
    return ReplicaParts(member, propagation, ledger, FencedStore(store, member), metrics)


def verifier_service(
    replica: ReplicaParts,
    settings: Settings,
    surroundings: Surroundings,
    clock: Clock,
    metrics: Metrics,
    reported: Callable[[Sequence[Use], Sequence[Use]], None],
) -> VerifierService:
    """The service that verifiers attach to. `reported` is told what they admitted from memory and what they refused."""
    standings = Standings(surroundings, ACCESS[PATH])
    replica.member.heard = standings.heard

    reports = UsageReports(settings.usage_interval_seconds, reported, metrics.usage_reports.add)

    def open_stream(caller: Caller, ready: Callable[[], None]) -> WatcherStream:
        return WatcherStream(
            replica.ledger,
            clock,
            caller=caller,
            ready=ready,
            ack_timeout_seconds=settings.ack_timeout_seconds,
            reports=reports,
        )

    return VerifierService(
        standings=standings,
        open_stream=open_stream,
        advanced=replica.member.advanced,
        poll=replica.member.poll,
        limits=WatchLimits(settings.watches_max, settings.watches_per_caller_max, settings.ack_timeout_seconds),
        meter=metrics.method(PATH),
        count_refusal=metrics.watches_refused.add,
    )
