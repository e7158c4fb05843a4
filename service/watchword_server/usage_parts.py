"""Puts together what knows of tokens' use: the buffer that counts, the alarms, and the keeper that stores."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from watchword.lease import Clock
from watchword_server.answer.alarms import Alarms
from watchword_server.answer.usage import UsageBuffer
from watchword_server.observe.metrics import Metrics
from watchword_server.parts import Parts
from watchword_server.request.audit_trail import AuditTrail
from watchword_server.usage_keeper import UsageKeeper


@dataclass(frozen=True, slots=True)
class UsageParts:
    """What calls and verifiers report uses to. Stores them while `keeper.running()`."""

    buffer: UsageBuffer
    alarms: Alarms
    keeper: UsageKeeper


def usage_parts(parts: Parts, trail: AuditTrail, clock: Clock, metrics: Metrics) -> UsageParts:
    """Not storing yet."""
    buffer = UsageBuffer(clock.boottime)
    metrics.usage_state = lambda: (buffer.counted, buffer.dropped, len(buffer))
    alarms = Alarms(trail.add, count=metrics.alarms.add, clock=clock.boottime)
    keeper = UsageKeeper(
        buffer,
        alarms,
        parts.database,
        metrics,
        interval_seconds=parts.settings.usage_interval_seconds,
        slack=timedelta(seconds=parts.settings.usage_slack_seconds),
        clock=clock.boottime,
    )
    return UsageParts(buffer, alarms, keeper)
