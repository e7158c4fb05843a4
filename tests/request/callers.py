"""Who calls, as the pipeline knows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from watchword.token import new_token_id
from watchword_server.rules.tokens import TokenRecord

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def caller(subject: str, *scopes: str) -> TokenRecord:
    """One with a token of its own, whose secret nobody needs."""
    return TokenRecord(
        token_id=new_token_id(int((NOW + timedelta(days=1)).timestamp() * 1000)),
        pepper_version=1,
        digest=bytes(32),
        subject=subject,
        audiences=("watchword",),
        scopes=scopes,
        grants=(),
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )
