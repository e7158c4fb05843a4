"""Verdicts: what one caller asks for must not hold up the others, and who hears of a verdict beside its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from watchword.token import ParsedToken, new_token, new_token_id
from watchword.v1 import token_service_pb2 as pb
from watchword_server.keyring import Keyring
from watchword_server.request.pipeline import Call
from watchword_server.request.token_service import TokenService
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Position, Snapshot

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEYRING = Keyring.generate()
TOKEN = new_token(new_token_id(int((NOW + timedelta(days=1)).timestamp() * 1000)))
RECORD = TokenRecord(
    token_id=TOKEN.token_id,
    pepper_version=KEYRING.current,
    digest=KEYRING.digest(TOKEN.text),
    subject="orders",
    audiences=("orders",),
    scopes=tuple(f"held{at}.*" for at in range(64)),
    grants=(),
    created_at=NOW,
    expires_at=NOW + timedelta(days=1),
)


def service() -> TokenService:
    return TokenService(digests=KEYRING, count_verdict=lambda reason: None)


async def turns_of_others(work: asyncio.Future[pb.BatchValidateResponse]) -> int:
    """How often the loop turned to others before the work was done."""
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    return turns


async def test_a_batch_of_many_scopes_gives_way_to_others() -> None:
    """A thousand tokens with 64 scopes each are more than a second of work, within every limit on a request."""
    missing = [f"missing.{at}" for at in range(64)]
    asked = pb.BatchValidateRequest(requests=[pb.ValidateRequest(required_scopes=missing)] * 1000)
    snapshot = Snapshot({TOKEN.token_id: RECORD}, Position(UUID(int=1), 1), NOW)
    call = cast(Call[pb.BatchValidateRequest], Call(RECORD, asked, [TOKEN] * 1000, snapshot, lambda: "test"))
    batch = asyncio.ensure_future(service().batch_validate(call))
    assert await turns_of_others(batch) > 100
    assert all(one.insufficient.missing_scopes == missing for one in batch.result().responses)


async def test_a_batch_of_tokens_with_many_networks_gives_way_to_others() -> None:
    tokens = [new_token(new_token_id(int(RECORD.expires_at.timestamp() * 1000))) for _ in range(100)]
    records = [
        RECORD._replace(
            token_id=token.token_id,
            digest=KEYRING.digest(token.text),
            allowed_networks=[f"2001:db8:{at:x}:{number:x}::/64" for number in range(32)],
        )
        for at, token in enumerate(tokens)
    ]
    asked = pb.BatchValidateRequest(requests=[pb.ValidateRequest(client_ip="192.0.2.1")] * len(tokens))
    snapshot = Snapshot({one.token_id: one for one in records}, Position(UUID(int=1), 1), NOW)
    call = cast(Call[pb.BatchValidateRequest], Call(RECORD, asked, tokens, snapshot, lambda: "test"))
    batch = asyncio.ensure_future(service().batch_validate(call))
    assert await turns_of_others(batch) > 20
    assert all(one.HasField("inactive") for one in batch.result().responses)


async def test_what_cannot_be_judged_costs_its_neighbours_in_a_batch_nothing() -> None:
    stored_elsewhere = new_token(new_token_id(int((NOW + timedelta(days=1)).timestamp() * 1000)))
    rows = {
        TOKEN.token_id: RECORD,
        stored_elsewhere.token_id: RECORD._replace(token_id=stored_elsewhere.token_id, pepper_version=99),
    }
    tokens = [TOKEN, stored_elsewhere, None, TOKEN]
    asked = pb.BatchValidateRequest(requests=[pb.ValidateRequest()] * len(tokens))
    snapshot = Snapshot(rows, Position(UUID(int=1), 1), NOW)
    call = cast(Call[pb.BatchValidateRequest], Call(RECORD, asked, tokens, snapshot, lambda: "test"))
    response = await service().batch_validate(call)
    verdicts = [one.WhichOneof("verdict") for one in response.responses]
    assert verdicts == ["active", "unjudged", "inactive", "active"]
    assert response.responses[1] == pb.ValidateResponse(unjudged=pb.UnjudgedToken())


class Heard:
    """Who was counted, and who was an alarm."""

    def __init__(self) -> None:
        self.used: list[tuple[UUID, str, str, tuple[str, ...]]] = []
        self.rotated: list[tuple[UUID, str, str]] = []
        self.service = TokenService(
            digests=KEYRING,
            count_verdict=lambda reason: None,
            count_use=self._use,
            rotated_presented=lambda record, verifier, address: self.rotated.append(
                (record.token_id, verifier, address)
            ),
        )

    def _use(self, record: TokenRecord, verifier: str, address: str, required: Sequence[str]) -> None:
        self.used.append((record.token_id, verifier, address, tuple(required)))

    async def validate(self, record: TokenRecord, token: ParsedToken = TOKEN, **fields: object) -> str:
        """The verdict for the verifier "orders"."""
        snapshot = Snapshot({record.token_id: record}, Position(UUID(int=1), 1), NOW)
        request = pb.ValidateRequest(**fields)  # type: ignore[arg-type]
        call = cast(Call[pb.ValidateRequest], Call(RECORD, request, [token], snapshot, lambda: "test"))
        return (await self.service.validate(call)).WhichOneof("verdict") or ""


async def test_a_use_is_counted_where_the_token_was_good() -> None:
    heard = Heard()
    assert await heard.validate(RECORD, required_scopes=["held1.a"], client_ip="192.0.2.1") == "active"
    assert heard.used == [(TOKEN.token_id, "orders", "192.0.2.1", ("held1.a",))]


async def test_a_second_look_is_no_use() -> None:
    heard = Heard()
    assert await heard.validate(RECORD, recheck=True) == "active"
    assert heard.used == []


async def test_what_was_refused_is_no_use() -> None:
    heard = Heard()
    refused = (
        RECORD._replace(revoked_at=NOW),
        RECORD._replace(expires_at=NOW),
        RECORD._replace(audiences=("billing",)),
        RECORD._replace(allowed_networks=("192.0.2.0/24",)),
        RECORD._replace(digest=bytes(32)),
    )
    for record in refused:
        assert await heard.validate(record, client_ip="198.51.100.7") == "inactive"
    assert await heard.validate(RECORD, required_scopes=["missing"]) == "insufficient"
    assert heard.used == []
    assert heard.rotated == []


async def test_a_rotated_token_presented_after_its_end_is_an_alarm() -> None:
    heard = Heard()
    rotated = RECORD._replace(successor_id=UUID(int=2), rotated_at=NOW, expires_at=NOW)
    assert await heard.validate(rotated, client_ip="192.0.2.1") == "inactive"
    assert heard.rotated == [(TOKEN.token_id, "orders", "192.0.2.1")]


async def test_a_guess_at_a_rotated_token_is_none() -> None:
    """Anyone who knows an id could raise alarms otherwise."""
    heard = Heard()
    rotated = RECORD._replace(successor_id=UUID(int=2), rotated_at=NOW, expires_at=NOW)
    assert await heard.validate(rotated, new_token(TOKEN.token_id)) == "inactive"
    # Nor one whose secret could not be looked at.
    assert await heard.validate(rotated._replace(pepper_version=99)) == "inactive"
    assert heard.rotated == []


async def test_a_rotated_token_in_its_grace_is_a_use_like_any() -> None:
    heard = Heard()
    in_grace = RECORD._replace(successor_id=UUID(int=2), rotated_at=NOW)
    assert await heard.validate(in_grace) == "active"
    assert (len(heard.used), heard.rotated) == (1, [])
