"""What is recorded beside the calls: how much of it, for whom, and what becomes of it when the database is away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.clocks import ManualClock
from tests.request.callers import caller
from watchword_server.request.audit_trail import (
    ADDRESSES_MAX,
    BATCH_MAX,
    CALLERS_MAX,
    DENIED_PER_WINDOW_MAX,
    PENDING_MAX,
    WINDOW_SECONDS,
    AuditTrail,
)
from watchword_server.store.contract import Actor, RowRefusedError, StoreUnavailableError
from watchword_server.store.event_contract import Event

STRANGER = "ipv4:192.0.2.1:5000"


class Log:
    """An audit log that may be away, or refuse."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.batches: list[int] = []
        self.error: Exception | None = None

    async def record(self, events: Sequence[Event]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append(len(events))
        self.events += events


class Trail:
    """A trail into such a log, on a clock that stands still."""

    def __init__(self) -> None:
        self.log = Log()
        self.clock = ManualClock()
        self.dropped = 0
        self.trail = AuditTrail(self.log.record, clock=self.clock.boottime, count_dropped=self._drop)

    def _drop(self, count: int) -> None:
        self.dropped += count

    def deny(self, actor: Actor, times: int = 1, reason: str = "SCOPE_MISSING") -> None:
        for _ in range(times):
            self.trail.add_denied(Event("issue", actor, None, outcome=reason))

    async def written(self) -> list[Event]:
        await self.trail.flush()
        events, self.log.events = self.log.events, []
        return events


def known(subject: str) -> Actor:
    return Actor(subject, caller(subject).token_id, STRANGER)


def stranger(peer: str = STRANGER) -> Actor:
    return Actor("", None, peer)


async def test_the_first_denials_of_a_minute_are_recorded_and_the_rest_counted() -> None:
    trail, one, other = Trail(), known("one"), known("other")
    trail.deny(one, DENIED_PER_WINDOW_MAX + 5)
    trail.deny(other)
    assert [event.actor for event in await trail.written()] == [one] * DENIED_PER_WINDOW_MAX + [other]
    trail.trail.end_window()
    (more,) = await trail.written()
    assert (more.action, more.actor, more.outcome) == ("denied_more", one, "SCOPE_MISSING")
    assert more.details == {"count": "5", "first_action": "issue"}
    # A new minute.
    trail.deny(one)
    trail.trail.end_window()
    assert [event.action for event in await trail.written()] == ["issue"]


async def test_strangers_are_told_apart_by_their_address_and_not_by_their_ports() -> None:
    trail = Trail()
    trail.deny(stranger("ipv4:192.0.2.1:5000"), DENIED_PER_WINDOW_MAX)
    trail.deny(stranger("ipv4:192.0.2.1:5001"))
    trail.deny(stranger("ipv4:192.0.2.2:5000"))
    trail.deny(stranger("ipv6:%5B2001:db8::1%5D:5000"), DENIED_PER_WINDOW_MAX)
    trail.deny(stranger("ipv6:%5B2001:db8::ffff:2%5D:5000"))
    trail.deny(stranger("ipv6:%5B2001:db8:0:1::1%5D:5000"))
    assert len(await trail.written()) == 2 * DENIED_PER_WINDOW_MAX + 2


async def test_strangers_from_everywhere_write_a_bounded_number_of_events_and_crowd_out_nobody() -> None:
    trail = Trail()
    for address in range(ADDRESSES_MAX + 500):
        trail.deny(stranger(f"ipv4:10.0.{address // 256}.{address % 256}:1"), 2)
    trail.deny(known("one"))
    trail.trail.end_window()
    events = await trail.written()
    assert len(events) == 2 * ADDRESSES_MAX + DENIED_PER_WINDOW_MAX + 2
    (more,) = [event for event in events if event.action == "denied_more"]
    assert (more.actor, more.details["count"]) == (Actor("", None, ""), str(2 * 500 - DENIED_PER_WINDOW_MAX))
    assert known("one").subject in {event.actor.subject for event in events}


async def test_known_callers_are_bounded_too() -> None:
    trail = Trail()
    for at in range(CALLERS_MAX + DENIED_PER_WINDOW_MAX + 1):
        trail.deny(known(f"caller{at}"))
    assert len(await trail.written()) == CALLERS_MAX + DENIED_PER_WINDOW_MAX


async def test_what_the_database_cannot_take_now_waits_and_is_written_later() -> None:
    trail = Trail()
    trail.log.error = StoreUnavailableError("away")
    trail.trail.add(Event("list_tokens", known("one"), None))
    with pytest.raises(StoreUnavailableError):
        await trail.trail.flush()
    trail.log.error = None
    assert [event.action for event in await trail.written()] == ["list_tokens"]
    assert trail.dropped == 0


async def test_what_waits_is_bounded_and_the_rest_is_counted() -> None:
    trail = Trail()
    for _ in range(PENDING_MAX + 3):
        trail.trail.add(Event("list_tokens", known("one"), None))
    assert trail.dropped == 3
    assert len(await trail.written()) == PENDING_MAX
    assert max(trail.log.batches) == BATCH_MAX


async def test_what_is_refused_keeps_nothing_else_waiting() -> None:
    trail = Trail()
    trail.log.error = RowRefusedError("bad")
    trail.trail.add(Event("list_tokens", known("one"), None))
    await trail.trail.flush()
    trail.log.error = None
    trail.trail.add(Event("get_token", known("one"), None))
    assert [event.action for event in await trail.written()] == ["get_token"]
    assert trail.dropped == 1


async def test_at_the_end_everything_is_written_summaries_too() -> None:
    trail = Trail()
    async with trail.trail.running():
        trail.deny(known("one"), DENIED_PER_WINDOW_MAX + 1)
    assert [event.action for event in trail.log.events] == ["issue"] * DENIED_PER_WINDOW_MAX + ["denied_more"]


async def test_what_cannot_be_written_at_the_end_is_counted_as_lost() -> None:
    trail = Trail()
    trail.log.error = StoreUnavailableError("away")
    async with trail.trail.running():
        trail.deny(known("one"), 2)
    assert trail.dropped == 2


@pytest.mark.parametrize(("passed", "summaries"), [(-0.001, 0), (0.0, 1), (0.001, 1)])
async def test_a_minute_ends_after_a_minute(passed: float, summaries: int) -> None:
    trail = Trail()
    trail.deny(known("one"), DENIED_PER_WINDOW_MAX + 1)
    trail.clock.boottime_now += WINDOW_SECONDS + passed
    await trail.trail.beat()
    assert sum(event.action == "denied_more" for event in trail.log.events) == summaries
