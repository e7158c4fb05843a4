"""Alarms are told once an hour for each token, and never with more than a token's public half."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest

from tests.answer.test_usage import Clock, record, use
from watchword.token import format_token_id
from watchword_server.answer.alarms import AGAIN_SECONDS, BOUND_REFUSED, ROTATED_PRESENTED, Alarms
from watchword_server.store.contract import Actor
from watchword_server.store.event_contract import Event


class Told:
    """Where alarms go."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.counted: list[str] = []
        self.alarms = Alarms(self.events.append, count=self.counted.append, clock=self.clock)


@pytest.fixture
def told() -> Told:
    return Told()


def test_an_alarm_names_the_verifier_the_address_and_the_token(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    token = record()
    with caplog.at_level(logging.WARNING):
        told.alarms.rotated_presented(token, "orders", "::ffff:192.0.2.1")
    (event,) = told.events
    assert (event.action, event.actor, event.token_id) == (
        "rotated_token_presented",
        Actor("orders", None, "192.0.2.1"),
        token.token_id,
    )
    assert caplog.messages == [f"rotated token presented: {format_token_id(token.token_id)}"]


@pytest.mark.parametrize(
    ("after", "events"),
    [(0.0, 1), (AGAIN_SECONDS - 0.1, 1), (AGAIN_SECONDS, 2), (AGAIN_SECONDS + 0.1, 2)],
    ids=["at once", "before", "at", "after"],
)
def test_the_same_alarm_is_told_once_an_hour_and_counted_every_time(told: Told, after: float, events: int) -> None:
    token = record()
    told.alarms.rotated_presented(token, "orders", "")
    told.clock.now += after
    told.alarms.rotated_presented(token, "billing", "")
    assert len(told.events) == events
    assert told.counted == [ROTATED_PRESENTED] * 2


def test_presenting_it_all_the_time_does_not_put_off_the_next_alarm(told: Told) -> None:
    token = record()
    for _ in range(13):
        told.alarms.rotated_presented(token, "orders", "")
        told.clock.now += AGAIN_SECONDS / 6
    assert len(told.events) == 3


def test_tokens_and_kinds_of_alarm_are_told_apart(told: Told) -> None:
    token = record()
    told.alarms.rotated_presented(token, "orders", "")
    told.alarms.rotated_presented(record(), "orders", "")
    told.alarms.bound_refused(use(token.token_id, count=3, address="192.0.2.1"))
    assert [event.action for event in told.events] == [ROTATED_PRESENTED, ROTATED_PRESENTED, BOUND_REFUSED]
    assert told.events[2].details == {"count": "3"}


def test_what_was_told_is_remembered_for_so_many_tokens(told: Told) -> None:
    alarms = Alarms(told.events.append, count=told.counted.append, clock=told.clock, told_max=3)
    first = record()
    alarms.rotated_presented(first, "orders", "")
    for _ in range(2):
        alarms.bound_refused(use(uuid4()))
    alarms.rotated_presented(first, "orders", "")
    assert len(told.events) == 3
    for _ in range(3):
        alarms.bound_refused(use(uuid4()))
    alarms.rotated_presented(first, "orders", "")
    assert len(told.events) == 7
