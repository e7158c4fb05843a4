"""The way of a call: what happens before the caller is known, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NoReturn, cast
from uuid import UUID

import grpc
import pytest

from tests.clocks import ManualClock
from watchword.token import ParsedToken, new_token, new_token_id
from watchword.v1 import token_service_pb2 as pb
from watchword_server.keyring import Keyring
from watchword_server.request.access import Access
from watchword_server.request.audit_trail import AuditTrail
from watchword_server.request.permits import LATE_SECONDS, Lateness, Permits
from watchword_server.request.pipeline import (
    LARGE_CALLS_MAX,
    UNPROVED_BYTES_MAX,
    Call,
    Handler,
    Method,
    Surroundings,
    handler,
)
from watchword_server.request.rates import Rates
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Position, Snapshot, Store
from watchword_server.store.event_contract import Event

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEYRING = Keyring.generate()
TOKEN = new_token(new_token_id(int((NOW + timedelta(days=1)).timestamp() * 1000)))
LARGE = b"\x22\x00" * (UNPROVED_BYTES_MAX // 2 + 1)
"""An IssueRequest of nothing but empty grants: two bytes make a message."""


class Unmetered:
    def finished(self, code: int, seconds: float) -> None:
        """Nobody counts."""


class AbortedError(Exception):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self.code = code


class Context:
    """What a handler sees of a call."""

    def __init__(self, token: ParsedToken = TOKEN) -> None:
        self._token = token

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return (("authorization", "Bearer " + self._token.text.decode()),)

    def time_remaining(self) -> None:
        return None

    def peer(self) -> str:
        return "test"

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: object) -> NoReturn:
        raise AbortedError(code)


class Decoded:
    """Stands in for the message, and counts how often it was decoded."""

    DESCRIPTOR = pb.IssueRequest.DESCRIPTOR
    count: ClassVar[int] = 0

    @classmethod
    def FromString(cls, data: bytes) -> pb.IssueRequest:
        cls.count += 1
        return pb.IssueRequest.FromString(data)


class Rows:
    """A store with the caller's token, or without it."""

    def __init__(self, *records: TokenRecord) -> None:
        self._rows = {record.token_id: record for record in records}
        self.reads = 0

    async def read(self, token_ids: Sequence[UUID]) -> Snapshot:
        self.reads += 1
        return Snapshot(self._rows, Position(UUID(int=1), 1), NOW)


def caller(scope: str) -> TokenRecord:
    return TokenRecord(
        token_id=TOKEN.token_id,
        pepper_version=KEYRING.current,
        digest=KEYRING.digest(TOKEN.text),
        subject="caller",
        audiences=("watchword",),
        scopes=(scope,),
        grants=(),
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )


async def answered(call: Call[pb.IssueRequest]) -> pb.IssueResponse:
    return pb.IssueResponse()


async def unrecorded(events: Sequence[Event]) -> None:
    """Where nobody reads the audit log."""


def issue_to(
    store: Rows, answer: Any = answered, *, permits: Permits | None = None, rates: Rates | None = None
) -> Handler:
    method = Method("/x/Issue", cast(type[pb.IssueRequest], Decoded), answer, rates=rates)
    surroundings = Surroundings(cast(Store, store), KEYRING, permits or Permits(100), "ww_", AuditTrail(unrecorded))
    return handler(method, Access(("watchword.issue",), "issue"), surroundings, Unmetered())


@pytest.mark.parametrize(
    ("store", "code"),
    [
        (Rows(), grpc.StatusCode.UNAUTHENTICATED),
        (Rows(caller("watchword.read")), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_a_large_request_of_a_caller_unknown_is_refused_undecoded(store: Rows, code: grpc.StatusCode) -> None:
    """A well-formed token is anyone's to make up, and 4 MiB of empty messages are 100 MB once they are decoded."""
    before = Decoded.count
    with pytest.raises(AbortedError) as caught:
        await issue_to(store)(LARGE, Context())
    assert (caught.value.code, Decoded.count) == (code, before)


async def test_a_large_request_of_a_known_caller_is_decoded_and_answered() -> None:
    before = Decoded.count
    assert await issue_to(Rows(caller("watchword.issue")))(LARGE, Context()) == pb.IssueResponse()
    assert Decoded.count == before + 1


async def test_few_large_requests_are_unpacked_at_a_time() -> None:
    under_way, most = 0, 0

    async def lingering(call: Call[pb.IssueRequest]) -> pb.IssueResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(10):
            await asyncio.sleep(0)
        under_way -= 1
        return pb.IssueResponse()

    issue = issue_to(Rows(caller("watchword.issue")), lingering)
    await asyncio.gather(*(issue(LARGE, Context()) for _ in range(5 * LARGE_CALLS_MAX)))
    assert most == LARGE_CALLS_MAX


async def test_a_call_that_finds_the_loop_late_is_refused_until_it_has_caught_up() -> None:
    busy = 0.0
    lateness = Lateness(busy_clock=lambda: busy)
    causes: list[str] = []
    issue = issue_to(Rows(caller("watchword.issue")), permits=Permits(100, lateness, count_shed=causes.append))
    assert await issue(b"", Context()) == pb.IssueResponse()
    lateness.turn()
    lateness.due_at, busy = 0.0, LATE_SECONDS + 0.001
    with pytest.raises(AbortedError) as caught:
        await issue(b"", Context())
    assert (caught.value.code, causes) == (grpc.StatusCode.RESOURCE_EXHAUSTED, ["late"])
    # One turn that was late, one in time.
    lateness.turn()
    lateness.turn()
    assert await issue(b"", Context()) == pb.IssueResponse()


async def test_a_caller_at_its_limit_is_refused_before_the_database_is_asked() -> None:
    clock, rows = ManualClock(), Rows(caller("watchword.issue"))
    rates = Rates(1, clock=clock.boottime)

    async def spending(call: Call[pb.IssueRequest]) -> pb.IssueResponse:
        rates.spend(call.caller)
        return pb.IssueResponse()

    issue = issue_to(rows, spending, rates=rates)
    for _ in range(2):
        await issue(b"", Context())
    with pytest.raises(AbortedError) as caught:
        await issue(b"", Context())
    assert (caught.value.code, rows.reads) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 2)
    # Who has its id and not its secret hears what everybody hears who has no token.
    forged = new_token(TOKEN.token_id)
    with pytest.raises(AbortedError) as caught:
        await issue(b"", Context(forged))
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    clock.boottime_now += 1
    assert await issue(b"", Context()) == pb.IssueResponse()
