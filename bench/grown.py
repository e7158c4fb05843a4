"""Very many tokens: rows that PostgreSQL makes by itself, and among them the tokens that are presented.

Their ids are as Issue makes them, their ends spread evenly in the order of their making. Each has a subject of its
own, two scopes and one audience.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from shutil import disk_usage
from typing import Final, LiteralString
from uuid import UUID

from bench.authority import Authority
from bench.figures import MeasurementError
from bench.population import SCOPE, Population
from bench.postgres import Postgres
from watchword.token import new_token, new_token_id, parse_token
from watchword_server.data_folder import KEYRING_FILE
from watchword_server.keyring import Keyring

SCOPES: Final = (SCOPE, "orders.write")
LIFE: Final = timedelta(days=90)
_ROWS_AT_ONCE: Final = 500_000
_DISK_BYTES_PER_TOKEN: Final = 700
"""With the log that is written on the way."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS: Final = """
insert into tokens (id, created_at, expires_at, issued_by, pepper_version, digest, subject, audiences, scopes)
select
  made.id, made.ends_at - %(life)s, made.ends_at, %(issuer)s, 1, sha256(uuid_send(made.id)),
  'client-' || (made.number * 7919) %% %(count)s, array[%(audience)s], %(scopes)s
from (
  select
    each.number, each.ends_at,
    (
      lpad(to_hex((extract(epoch from each.ends_at) * 1000)::bigint), 12, '0')
      || '8' || substr(replace(gen_random_uuid()::text, '-', ''), 14)
    )::uuid as id
  from (
    select
      number,
      date_trunc('milliseconds', %(begins)s + (%(ends)s - %(begins)s) * ((number - 0.5) / %(count)s)) as ends_at
    from generate_series(%(first)s::bigint, %(last)s::bigint) as number
  ) as each
) as made
"""
_COPY: Final = """
copy tokens (id, created_at, expires_at, issued_by, pepper_version, digest, subject, audiences, scopes) from stdin
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """For whom tokens are made, and by which issuer."""

    audience: str
    issuer: UUID


def holder_of(population: Population) -> Holder:
    """The first verifier's tokens, from the population's issuer."""
    return Holder(population.verifiers[0].subject, parse_token(population.issuer_secret).token_id)


@dataclass(frozen=True, slots=True)
class Grown:
    """A database of so many tokens, some of which can be presented."""

    count: int
    tokens: list[str] = field(repr=False)


def fill(postgres: Postgres, database: str, count: int, holder: Holder, begins: datetime, ends: datetime) -> None:
    """So many rows that end between two instants, for tokens whose secrets nobody knows."""
    with postgres.connect(database) as connection:
        connection.execute("set synchronous_commit = off")
        for first in range(1, count + 1, _ROWS_AT_ONCE):
            values = {
                "life": LIFE,
                "issuer": holder.issuer,
                "audience": holder.audience,
                "scopes": list(SCOPES),
                "begins": begins,
                "ends": ends,
                "count": count,
                "first": first,
                "last": min(first + _ROWS_AT_ONCE - 1, count),
            }
            connection.execute(_ROWS.encode(), values)


def grow(authority: Authority, count: int, presentable: int, holder: Holder) -> Grown:
    """Makes `count` live tokens, `presentable` of them real ones, spread at random among the others."""
    postgres = authority.postgres
    if disk_usage(authority.data_dir).free < count * _DISK_BYTES_PER_TOKEN:
        raise MeasurementError(f"{count} tokens take more room than there is on the disk")
    database = postgres.watchword_database()
    begins = datetime.now(UTC) + timedelta(days=1)
    real = min(count, presentable)
    fill(postgres, database, count - real, holder, begins, begins + LIFE)
    keyring = Keyring.load((authority.data_dir / KEYRING_FILE).read_text())
    tokens: list[str] = []
    with postgres.connect(database) as connection, connection.cursor().copy(_COPY) as copy:
        for text, row in _real(keyring, real, holder, begins):
            tokens.append(text)
            copy.write_row(row)
    settle(postgres, database)
    return Grown(count, tokens)


def settle(postgres: Postgres, database: str) -> None:
    """Does now what PostgreSQL would do in the background, and so during the measurement."""
    postgres.query("vacuum analyze tokens", database)
    postgres.query("checkpoint", database)


def _real(keyring: Keyring, count: int, holder: Holder, begins: datetime) -> Iterator[tuple[str, tuple[object, ...]]]:
    for number in range(count):
        ends_at_ms = (begins + LIFE * random.random() - _EPOCH) // timedelta(milliseconds=1)
        token = new_token(new_token_id(ends_at_ms))
        ends_at = _EPOCH + timedelta(milliseconds=ends_at_ms)
        yield (
            token.text.decode("ascii"),
            (
                token.token_id,
                ends_at - LIFE,
                ends_at,
                holder.issuer,
                keyring.current,
                keyring.digest(token.text),
                f"presented-{number}",
                [holder.audience],
                list(SCOPES),
            ),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """What a partitioned table takes, in bytes."""

    rows: int
    heap: int
    indexes: int

    @property
    def size_bytes(self) -> int:
        return self.heap + self.indexes

    @property
    def bytes_per_row(self) -> float:
        return self.size_bytes / self.rows


_ROOM: Final[LiteralString] = """
select coalesce(sum(pg_table_size(relid)), 0)::bigint, coalesce(sum(pg_indexes_size(relid)), 0)::bigint
from (select relid from pg_partition_tree(%(table)s::regclass) union select %(table)s::regclass) as part
"""


def room(postgres: Postgres, database: str, table: LiteralString) -> Room:
    """The whole table with all of its partitions and indexes."""
    with postgres.connect(database) as connection:
        size = connection.execute(_ROOM, {"table": table}).fetchone()
        count = connection.execute("select count(*) from " + table).fetchone()
    assert size is not None
    assert count is not None
    return Room(count[0], *size)
