"""Partitions made ahead of need: a month each by default, through the longest possible life plus one period.

There is no default partition to fall into: without this a token ending in an uncovered month could not be stored.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg

from watchword_server.store.database import Connection, Database, query

_ATTEMPTS_MAX: Final = 10
_LOCK_TIMEOUT: Final = "1s"
_CLOCK_SKEW_MAX: Final = timedelta(days=1)
_BOUNDS: Final = re.compile(r"FOR VALUES FROM \((?:'([0-9a-f-]{36})'|MINVALUE)\) TO \((?:'([0-9a-f-]{36})'|MAXVALUE)\)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Partition:
    """One range of ids: those that begin with an instant in [begins_at, ends_at)."""

    parent: str
    begins_at: datetime
    ends_at: datetime

    @property
    def name(self) -> str:
        """The table's name, as tokens_20270101."""
        return f"{self.parent}_{self.begins_at:%Y%m%d}"

    @property
    def lower_bound(self) -> UUID:
        """The smallest id in it."""
        return _bound(self.begins_at)

    @property
    def upper_bound(self) -> UUID:
        """The smallest id after it."""
        return _bound(self.ends_at)


@dataclass(frozen=True, slots=True)
class AttachedPartition:
    """One that exists. It may have been made by hand: with another name, of another size, or by default, without bounds
    (None)."""

    parent: str
    name: str
    begins_at: datetime | None
    ends_at: datetime | None

    @property
    def made_by_server(self) -> bool:
        """Whether it bears the name of one that a server makes, who may then drop it too."""
        return re.fullmatch(f"{self.parent}_[0-9]{{8}}", self.name) is not None

    @property
    def order(self) -> tuple[datetime, str]:
        """Sorts by their ends, those without one last."""
        return self.ends_at or _END_OF_TIME, self.name


def _instant(bound: UUID) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=bound.int >> 80)
    except OverflowError:
        return _END_OF_TIME


def _bound(instant: datetime) -> UUID:
    return UUID(int=int((instant - _EPOCH) / timedelta(milliseconds=1)) << 80)


def missing_partitions(
    parent: str, covered: Sequence[tuple[datetime, datetime]], since: datetime, until: datetime, days: int | None
) -> Iterator[Partition]:
    """Those that are missing between `since` and one period after `until`, given the ranges already covered.

    A period is a calendar month (UTC), or `days` counted from 1970. Existing partitions of another period stay as they
    are: new ones begin where those end.
    """
    at = _begin(since, days)
    end = _next(_begin(_next(_begin(until, days), days), days), days)
    while at < end:
        covered_until = max((upper for lower, upper in covered if lower <= at < upper), default=None)
        if covered_until is not None:
            at = covered_until
            continue
        until_next = min((lower for lower, _ in covered if lower > at), default=end)
        ends_at = min(_next(_begin(at, days), days), until_next)
        yield Partition(parent, at, ends_at)
        at = ends_at


def _begin(instant: datetime, days: int | None) -> datetime:
    if days is None:
        return datetime(instant.year, instant.month, 1, tzinfo=UTC)
    return _EPOCH + (instant - _EPOCH) // timedelta(days=days) * timedelta(days=days)


def _next(instant: datetime, days: int | None) -> datetime:
    if days is not None:
        return instant + timedelta(days=days)
    return datetime(instant.year + instant.month // 12, instant.month % 12 + 1, 1, tzinfo=UTC)


async def ensure_partitions(database: Database, *, ttl_max: timedelta, days: int | None) -> list[str]:
    """Makes what is missing and returns its names. Safe to run in several processes at once.

    Each partition of the tokens gets one of their use beside it, with the same bounds: also those that were there
    before use was recorded (test_upgraded_database_has_room_for_the_use_of_every_token).

    Everything runs under a one-second lock timeout and is tried again: DDL that waits makes every reader behind it
    wait too. Raises StoreUnavailableError.
    """
    made: list[str] = []
    async with database.connection() as connection:
        now: datetime = await connection.fetchval("select now()")
        # Postgres 17 and later open each partition to show its bounds, and may wait for that too.
        covered = await impatiently(connection, lambda: covered_ranges(connection))
        # Events are stamped by the servers' clocks, some of which run behind the database's.
        ahead = (("tokens", now, now + ttl_max), ("audit_events", now - _CLOCK_SKEW_MAX, now))
        for parent, since, until in ahead:
            for partition in missing_partitions(parent, covered.get(parent, []), since, until, days):
                if await _ensure(connection, partition):
                    made.append(partition.name)  # noqa: PERF401  # what was made is told even if a later one fails
        covered = await impatiently(connection, lambda: covered_ranges(connection))
        for partition in unaccompanied(covered):
            if await _ensure(connection, partition):
                made.append(partition.name)  # noqa: PERF401
    return made


def unaccompanied(covered: Mapping[str, Sequence[tuple[datetime, datetime]]]) -> list[Partition]:
    """What the use of tokens lacks beside the partitions of the tokens, given the ranges that are covered."""
    there = set(covered.get("token_usage", ()))
    return [Partition("token_usage", *bounds) for bounds in covered.get("tokens", ()) if bounds not in there]


async def covered_ranges(connection: Connection) -> dict[str, list[tuple[datetime, datetime]]]:
    """For each partitioned table the ranges that its partitions cover, in order."""
    ranges: dict[str, list[tuple[datetime, datetime]]] = {}
    for partition in await attached_partitions(connection):
        if partition.begins_at is not None and partition.ends_at is not None:
            ranges.setdefault(partition.parent, []).append((partition.begins_at, partition.ends_at))
    return {parent: sorted(covered) for parent, covered in ranges.items()}


async def attached_partitions(connection: Connection) -> list[AttachedPartition]:
    """All partitions that there are, whoever made them; in order of their ends, those without one last."""
    rows = await rows_with_bounds(connection, "partitions")
    # Without bounds is what was dropped while this was read.
    found = [attached(row["parent"], row["partition"], row["bounds"]) for row in rows if row["bounds"] is not None]
    return sorted(found, key=lambda partition: partition.order)


async def rows_with_bounds(connection: Connection, name: str) -> Any:
    """What a query says that shows partitions' bounds. In older releases (16.2, say) it is an error if one is dropped
    meanwhile, and the query is asked again."""
    for _ in range(_ATTEMPTS_MAX - 1):
        with suppress(asyncpg.InternalServerError):
            # In a transaction of the caller's nothing else is undone.
            async with connection.transaction():
                return await connection.fetch(query(name))
    return await connection.fetch(query(name))


def attached(parent: str, name: str, bounds: str) -> AttachedPartition:
    """One with the bounds that Postgres writes."""
    match = _BOUNDS.fullmatch(bounds)
    if match is None:
        return AttachedPartition(parent, name, None, None)
    lower, upper = match.groups()
    return AttachedPartition(
        parent,
        name,
        _EPOCH if lower is None else _instant(UUID(lower)),
        _END_OF_TIME if upper is None else _instant(UUID(upper)),
    )


async def _ensure(connection: Connection, partition: Partition) -> bool:
    async def create() -> bool:
        made: bool = await connection.fetchval(
            "select ensure_partition($1, $2, $3, $4)",
            partition.parent,
            partition.name,
            partition.lower_bound,
            partition.upper_bound,
        )
        return made

    try:
        return await impatiently(connection, create)
    except (
        asyncpg.DuplicateTableError,
        asyncpg.DuplicateObjectError,  # The type of the same name that comes with a table.
        asyncpg.UniqueViolationError,
        asyncpg.InvalidObjectDefinitionError,
    ):
        # Another process made it, or one that overlaps it, in this moment.
        return False


async def impatiently(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Does the work in a transaction that gives up on a lock within a second, and is tried again."""
    for attempt in range(_ATTEMPTS_MAX):
        try:
            async with connection.transaction():
                await connection.execute("select set_config('lock_timeout', $1, true)", _LOCK_TIMEOUT)
                return await work()
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == _ATTEMPTS_MAX - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
