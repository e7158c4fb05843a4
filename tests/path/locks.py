"""Making the server's commits wait, and waiting until they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from watchword.token import parse_token

_POLLS_MAX = 2000


@contextmanager
def locked_tokens(dsn: str, *secrets: str) -> Iterator[psycopg.Connection]:
    """Holds these tokens' rows: whoever revokes them, or issues with them, waits until the block ends."""
    with psycopg.connect(dsn) as database:
        ids = [parse_token(secret).token_id for secret in secrets]
        database.execute("select 1 from tokens where id = any (%s) for update", (ids,))
        yield database


def wait_until_revoked(dsn: str, secret: str) -> None:
    """Until the database has this token as revoked; fails after about 20 s."""
    with psycopg.connect(dsn, autocommit=True) as database:
        for _ in range(_POLLS_MAX):
            row = database.execute(
                "select revoked_at is not null from tokens where id = %s", (parse_token(secret).token_id,)
            ).fetchone()
            if row == (True,):
                return
            database.execute("select pg_sleep(0.01)")
    raise AssertionError("the token was not revoked")


def wait_for_waiting(dsn: str, count: int = 1) -> None:
    """Until so many statements in this database wait for a lock; fails after about 20 s."""
    with psycopg.connect(dsn, autocommit=True) as database:
        for _ in range(_POLLS_MAX):
            if _waiting(database) >= count:
                return
            database.execute("select pg_sleep(0.01)")
    raise AssertionError(f"there are no {count} statements that wait for a lock")


def waits(dsn: str) -> bool:
    """Whether a statement in this database waits for a lock."""
    with psycopg.connect(dsn) as database:
        return _waiting(database) > 0


def _waiting(database: psycopg.Connection) -> int:
    row = database.execute(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ).fetchone()
    return 0 if row is None else int(row[0])
