"""Uses are merged by token and service, bounded, and none is lost or counted twice on the way to the store and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from asyncpg.pgproto import pgproto

from watchword_server.answer.usage import SCOPES_PER_KEY, SCOPES_PER_USE_MAX, UsageBuffer
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Use

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def buffer(clock: Clock) -> UsageBuffer:
    return UsageBuffer(clock)


def record(token_id: UUID | None = None) -> TokenRecord:
    return TokenRecord(token_id or uuid4(), 1, b"", "caller", ("orders",), ("orders.*",), (), NOW, NOW)


def use(token_id: UUID, *, count: int = 1, ago: float = 0.0, address: str = "", scopes: Sequence[str] = ()) -> Use:
    return Use(token_id, "orders", count, ago, address, scopes)


def test_uses_are_merged_by_token_and_service(buffer: UsageBuffer, clock: Clock) -> None:
    first, second = record(), record()
    buffer.count(first, "orders", "192.0.2.1", ("orders.read",))
    clock.now += 5
    buffer.count(first, "orders", "192.0.2.2", ("orders.write", "orders.read"))
    buffer.count(first, "billing", "", ())
    buffer.count(second, "orders", "", ())
    clock.now += 2
    assert buffer.take(10) == [
        Use(first.token_id, "orders", 2, 2.0, "192.0.2.2", ["orders.read", "orders.write"]),
        Use(first.token_id, "billing", 1, 2.0, "", []),
        Use(second.token_id, "orders", 1, 2.0, "", []),
    ]
    assert (len(buffer), buffer.counted, buffer.dropped) == (0, 4, 0)


def test_a_use_without_an_address_forgets_none(buffer: UsageBuffer) -> None:
    one = record()
    buffer.count(one, "orders", "192.0.2.1", ())
    buffer.count(one, "orders", "", ())
    assert buffer.take(1)[0].address == "192.0.2.1"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("::FFFF:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("not an address", ""),
        ("192.0.2.1\x00", ""),
        ("1" * 10_000, ""),
    ],
)
def test_addresses_are_stored_in_one_form_and_nothing_else_is(buffer: UsageBuffer, given: str, kept: str) -> None:
    buffer.count(record(), "orders", given, ())
    assert buffer.take(1)[0].address == kept


def test_the_same_id_is_one_key_whoever_made_it(buffer: UsageBuffer) -> None:
    """The driver has a UUID type of its own."""
    token_id = uuid4()
    buffer.count(record(pgproto.UUID(token_id.bytes)), "orders", "", ())
    buffer.add([use(token_id)])
    assert [taken.count for taken in buffer.take(10)] == [2]


def test_a_call_to_watchword_is_a_use_there_and_asks_for_its_address_once(buffer: UsageBuffer) -> None:
    asked = []

    def address() -> str:
        asked.append(True)
        return "192.0.2.7"

    one = record()
    for _ in range(3):
        buffer.count_call(one, address, ("watchword.validate",))
    assert buffer.take(10) == [Use(one.token_id, "watchword", 3, 0.0, "192.0.2.7", ["watchword.validate"])]
    assert len(asked) == 1


def test_a_report_of_older_uses_takes_nothing_back(buffer: UsageBuffer, clock: Clock) -> None:
    one = record()
    buffer.count(one, "orders", "192.0.2.1", ())
    buffer.add([use(one.token_id, count=7, ago=30, address="198.51.100.1", scopes=["orders.read"])])
    clock.now += 1
    assert buffer.take(1) == [Use(one.token_id, "orders", 8, 1.0, "192.0.2.1", ["orders.read"])]


def test_what_is_taken_is_the_oldest_and_no_more_than_asked_for(buffer: UsageBuffer) -> None:
    records = [record() for _ in range(5)]
    for one in records:
        buffer.count(one, "orders", "", ())
    buffer.count(records[0], "orders", "", ())
    assert [taken.token_id for taken in buffer.take(2)] == [one.token_id for one in records[:2]]
    assert len(buffer) == 3


def test_beyond_the_limit_the_oldest_give_way_and_are_counted(clock: Clock) -> None:
    buffer = UsageBuffer(clock, keys_max=3)
    records = [record() for _ in range(5)]
    for one in records:
        buffer.count(one, "orders", "", ())
    assert [taken.token_id for taken in buffer.take(10)] == [one.token_id for one in records[2:]]
    assert (buffer.counted, buffer.dropped) == (5, 2)


def test_what_one_service_reports_never_pushes_out_what_is_known_of_others(clock: Clock) -> None:
    """Whether the tokens are real is asked when they are stored: until then they may be anybody's invention."""
    buffer = UsageBuffer(clock, keys_max=100)
    mine = record()
    buffer.count(mine, "billing", "", ("billing.read",))
    scopes = [f"made.up{number}" for number in range(SCOPES_PER_USE_MAX)]
    known = uuid4()
    buffer.add([use(known, scopes=scopes)])
    for _ in range(100):
        buffer.add([use(uuid4(), scopes=scopes)])
    assert len(buffer) == 1 + 50
    # What is there already goes on being counted, and others' scopes have room.
    buffer.add([use(known)])
    buffer.count(mine, "billing", "", ("billing.write",))
    assert (buffer.counted, buffer.dropped) == (104, 51)
    taken = {(one.token_id, one.service): one for one in buffer.take(100)}
    assert taken[mine.token_id, "billing"].scopes == ["billing.read", "billing.write"]
    assert taken[known, "orders"].count == 2
    # There is room again.
    buffer.add([use(uuid4())])
    assert len(buffer) == 1


def test_what_could_not_be_stored_is_merged_back_and_counted_once(buffer: UsageBuffer, clock: Clock) -> None:
    one, two = record(), record()
    buffer.count(one, "orders", "192.0.2.1", ("orders.read",))
    buffer.count(two, "orders", "", ())
    taken = buffer.take(10)
    clock.now += 10
    buffer.count(one, "orders", "", ("orders.write",))
    buffer.give_back(taken, 10)
    assert buffer.take(10) == [
        Use(one.token_id, "orders", 2, 0.0, "192.0.2.1", ["orders.read", "orders.write"]),
        Use(two.token_id, "orders", 1, 10.0, "", []),
    ]
    assert (buffer.counted, buffer.dropped) == (3, 0)


def test_what_is_given_back_is_the_first_to_give_way(clock: Clock) -> None:
    buffer = UsageBuffer(clock, keys_max=2)
    records = [record() for _ in range(3)]
    for one in records[:2]:
        buffer.count(one, "orders", "", ())
    taken = buffer.take(2)
    buffer.count(records[2], "orders", "", ())
    buffer.give_back(taken, 0)
    assert [use.token_id for use in buffer.take(10)] == [records[1].token_id, records[2].token_id]
    assert buffer.dropped == 1


def test_scopes_are_bounded_for_each_use_and_for_all(clock: Clock) -> None:
    buffer = UsageBuffer(clock, keys_max=100)
    many = [f"orders.s{number}" for number in range(SCOPES_PER_USE_MAX + 10)]
    records = [record() for _ in range(20)]
    for one in records:
        buffer.count(one, "orders", "", many)
    held = [len(taken.scopes) for taken in buffer.take(100)]
    assert max(held) == SCOPES_PER_USE_MAX
    assert sum(held) == 100 * SCOPES_PER_KEY
    buffer.count(records[0], "orders", "", many)
    assert len(buffer.take(1)[0].scopes) == SCOPES_PER_USE_MAX, "what was taken makes room"
