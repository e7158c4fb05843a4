"""What tests do to rows in Postgres, whose clock is nobody's to turn: they move the instants instead."""

from __future__ import annotations

from datetime import timedelta

import psycopg
from psycopg import sql

from watchword.token import parse_token_id


def move(dsn: str, token_id: str, column: str, by: timedelta) -> None:
    """Sets an instant of a token's row to so long from now, by the database's clock."""
    statement = sql.SQL("update tokens set {} = now() + %s where id = %s").format(sql.Identifier(column))
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute(statement, (by, parse_token_id(token_id))).rowcount == 1
