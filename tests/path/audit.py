"""Reads the audit log, and waits for what is recorded beside the calls."""

from __future__ import annotations

import time

from tests.path.party import Party
from watchword.v1 import audit_service_pb2 as pb

WAIT_SECONDS_MAX = 30


def listed(party: Party, **filters: object) -> list[pb.AuditEvent]:
    """The newest page of events, newest first."""
    request = pb.ListEventsRequest(page_size=1000, **filters)  # type: ignore[arg-type]  # the message says what there is
    return list(party.events(request).events)


def awaited(party: Party, count: int = 1, **filters: object) -> list[pb.AuditEvent]:
    """The same once there are so many."""
    until = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        events = listed(party, **filters)
        if len(events) >= count:
            return events
        assert time.monotonic() < until, f"{len(events)} of {count} events with {filters}"
