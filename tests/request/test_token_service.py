"""What one caller asks for must not hold up the others."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from watchword.token import new_token, new_token_id
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


async def test_a_batch_of_many_scopes_gives_way_to_others() -> None:
    """A thousand tokens with 64 scopes each are more than a second of work, within every limit on a request."""
    missing = [f"missing.{at}" for at in range(64)]
    asked = pb.BatchValidateRequest(requests=[pb.ValidateRequest(required_scopes=missing)] * 1000)
    snapshot = Snapshot({TOKEN.token_id: RECORD}, Position(UUID(int=1), 1), NOW)
    call = cast(Call[pb.BatchValidateRequest], Call(RECORD, asked, [TOKEN] * 1000, snapshot, lambda: "test"))
    batch = asyncio.ensure_future(service().batch_validate(call))
    turns_of_others = 0
    while not batch.done():
        turns_of_others += 1
        await asyncio.sleep(0)
    assert turns_of_others > 100
    assert all(one.insufficient.missing_scopes == missing for one in batch.result().responses)
