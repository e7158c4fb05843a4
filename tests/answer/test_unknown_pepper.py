"""A row whose pepper this process lacks: what has ended is refused, what is live cannot be judged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from watchword.token import ParsedToken, new_token, new_token_id
from watchword_server.answer.errors import PepperUnknownError
from watchword_server.answer.proof import examine
from watchword_server.keyring import Keyring
from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import Reason
from watchword_server.store.contract import Position, Snapshot

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def snapshot(change: Callable[[TokenRecord], TokenRecord]) -> tuple[ParsedToken, Snapshot]:
    token = new_token(new_token_id(int((NOW + timedelta(days=9)).timestamp() * 1000)))
    record = TokenRecord(
        token_id=token.token_id,
        pepper_version=7,
        digest=bytes(32),
        subject="orders",
        audiences=("billing",),
        scopes=(),
        grants=(),
        created_at=NOW - timedelta(days=1),
        expires_at=NOW + timedelta(days=1),
    )
    return token, Snapshot({token.token_id: change(record)}, Position(UUID(int=1), 0), NOW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record._replace(revoked_at=NOW), Reason.REVOKED),
        (lambda record: record._replace(expires_at=NOW), Reason.EXPIRED),
    ],
)
def test_what_has_ended_is_refused_without_its_pepper_and_shown_to_nobody(
    change: Callable[[TokenRecord], TokenRecord], reason: Reason
) -> None:
    token, seen = snapshot(change)
    verdict = examine(Keyring.generate(), token, seen, verifier="billing", required=())
    assert (verdict.reason, verdict.record) == (reason, None)


def test_what_is_live_cannot_be_judged_without_its_pepper() -> None:
    token, seen = snapshot(lambda record: record)
    with pytest.raises(PepperUnknownError):
        examine(Keyring.generate(), token, seen, verifier="billing", required=())
