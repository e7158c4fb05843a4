"""Tokens that are used, as rows. Instants are set in the database, whose clock judges."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import psycopg

from tests.store.support import new_token
from watchword_server.store.contract import Use

SLACK = timedelta(seconds=120)


def token(
    plain: psycopg.Connection, *, audiences: Sequence[str] = ("orders",), ends_in: timedelta = timedelta(days=1)
) -> UUID:
    """A service's token, made yesterday."""
    token_id = new_token(ends_in=ends_in).record.token_id
    plain.execute(
        "insert into tokens (id, pepper_version, digest, subject, audiences, scopes, created_at, expires_at)"
        " values (%s, 1, '', 'caller', %s, '{orders.*}', now() - interval '1 day', now() + %s)",
        [token_id, list(audiences), ends_in],
    )
    return token_id


def session(
    plain: psycopg.Connection,
    *,
    idle: timedelta = timedelta(minutes=30),
    left: timedelta = timedelta(minutes=10),
    ends_in: timedelta = timedelta(days=1),
) -> UUID:
    """A session with so much left until it was idle for too long."""
    token_id = token(plain, ends_in=ends_in)
    plain.execute(
        "update tokens set kind = 1, idle_seconds = %s, idle_expires_at = now() + %s where id = %s",
        [round(idle.total_seconds()), left, token_id],
    )
    return token_id


def idle_left(plain: psycopg.Connection, token_id: UUID) -> timedelta:
    """How much is left of a session until it was idle for too long."""
    row = plain.execute("select idle_expires_at - now() from tokens where id = %s", [token_id]).fetchone()
    assert row is not None
    left: timedelta = row[0]
    return left


def use(
    token_id: UUID,
    *,
    service: str = "orders",
    count: int = 1,
    ago: float = 0.0,
    address: str = "",
    scopes: Sequence[str] = (),
) -> Use:
    """A use about to be stored."""
    return Use(token_id, service, count, ago, address, scopes)
