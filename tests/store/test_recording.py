"""The audit log by itself: what is written twice is there once, and what was denied is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from tests.store.support import OPERATOR
from watchword_server.store.contract import PartitionMissingError
from watchword_server.store.event_contract import Event, EventQuery
from watchword_server.store.postgres import PostgresStore


async def test_an_event_that_is_sent_again_is_there_once(store: PostgresStore) -> None:
    one, other = Event("list_tokens", OPERATOR, None), Event("get_token", OPERATOR, uuid4(), {"a": "b"})
    await store.record_events([one])
    await store.record_events([one, other])
    events = await store.events(EventQuery())
    assert [(event.event_id, event.action, event.token_id) for event in sorted(events, key=lambda one: one.action)] == [
        (other.event_id, "get_token", other.token_id),
        (one.event_id, "list_tokens", None),
    ]


async def test_what_was_denied_says_why_and_is_found_by_that(store: PostgresStore) -> None:
    allowed = Event("list_tokens", OPERATOR, None)
    denied = Event("issue", OPERATOR, None, outcome="SCOPE_MISSING")
    await store.record_events([allowed, denied])
    assert {(event.action, event.outcome) for event in await store.events(EventQuery())} == {
        ("list_tokens", ""),
        ("issue", "SCOPE_MISSING"),
    }
    (found,) = await store.events(EventQuery(denied_only=True))
    assert found.event_id == denied.event_id


@pytest.mark.parametrize("skew", [timedelta(hours=-23), timedelta(), timedelta(hours=23)])
async def test_an_event_of_a_server_whose_clock_is_off_is_found_by_when_it_was_recorded(
    store: PostgresStore, skew: timedelta
) -> None:
    made_at = datetime.now(UTC) + skew
    milliseconds = int(made_at.timestamp() * 1000)
    event = Event("list_tokens", OPERATOR, None, event_id=UUID(int=milliseconds << 80 | uuid4().int & (1 << 80) - 1))
    await store.record_events([event])
    (found,) = await store.events(EventQuery())
    for since, expected in ((-1, 1), (0, 1), (1, 0)):
        wanted = EventQuery(since=found.occurred_at + timedelta(microseconds=since))
        assert len(await store.events(wanted)) == expected


async def test_any_instant_may_be_asked_for(store: PostgresStore) -> None:
    await store.record_events([Event("list_tokens", OPERATOR, None)])
    for since, expected in ((datetime.min.replace(tzinfo=UTC), 1), (datetime.max.replace(tzinfo=UTC), 0)):
        assert len(await store.events(EventQuery(since=since))) == expected


async def test_an_event_that_no_partition_holds_is_refused_as_such(store: PostgresStore) -> None:
    event = replace(Event("list_tokens", OPERATOR, None), event_id=UUID(int=uuid4().int & (1 << 80) - 1))
    with pytest.raises(PartitionMissingError):
        await store.record_events([event])
