"""Retention: partitions of which all is long past are dropped, one in a transaction, by one server at a time.

That takes milliseconds whatever its size, and shuts everybody else out for as long: the files go after the lock. A
killed server leaves a partition whole or gone (test_server_killed_while_it_purges_leaves_nothing_half_done).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from watchword_server.store.database import DRIVER_ERRORS, Connection, Database, lock_key
from watchword_server.store.partitions import AttachedPartition, attached_partitions, impatiently

LOCK_KEY: Final = lock_key("purge")
AUDIT_DAYS_MIN: Final = 90
"""The database itself refuses to drop events that are younger (migration 0003)."""
# What is known of a token's use goes before the token.
_ORDER: Final = ("token_usage", "tokens", "audit_events")


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long after its last instant a partition is kept."""

    expired_tokens: timedelta
    audit_events: timedelta

    @classmethod
    def of_days(cls, expired_tokens: int, audit_events: int) -> Self:
        """As the settings have it."""
        return cls(timedelta(days=expired_tokens), timedelta(days=audit_events))

    def due_at(self, partition: AttachedPartition) -> datetime | None:
        """When it may go; None: never, because it has no end."""
        kept = self.audit_events if partition.parent == "audit_events" else self.expired_tokens
        try:
            return None if partition.ends_at is None else partition.ends_at + kept
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Purge:
    """What became of the partitions that were past their retention."""

    dropped: Sequence[AttachedPartition]
    put_off: Mapping[str, str]
    """Those that could not be dropped now, with the kind of error."""
    by_hand: Sequence[str]
    """Those that somebody made under names of their own, and has to drop."""
    overdue: timedelta
    """For how long the oldest that is still there has been past its retention."""


async def purge(database: Database, retention: Retention, *, now: datetime) -> Purge:
    """Drops what is due. Several processes may do it at once. Raises StoreError.

    `now` is this machine's clock. What is not past by the database's clock too is kept: with one of them a year ahead,
    live tokens would be gone for good (test_nothing_goes_unless_both_clocks_agree).
    """
    dropped: list[AttachedPartition] = []
    put_off: dict[str, str] = {}
    async with database.connection() as connection:
        now = min(now, await connection.fetchval("select now()"))
        found = due(await impatiently(connection, lambda: attached_partitions(connection)), retention, now)
        for parent in _ORDER:
            for partition in (one for one in found if one.parent == parent and one.made_by_server):
                try:
                    if await _drop(connection, partition):
                        dropped.append(partition)
                except DRIVER_ERRORS as error:
                    put_off[partition.name] = type(error).__name__
                    # Most likely somebody reads the table for long. The next one would wait for that as well, and all
                    # other readers behind it.
                    break
    gone = {partition.name for partition in dropped}
    left = [instant for each in found if each.name not in gone and (instant := retention.due_at(each)) is not None]
    return Purge(
        dropped,
        put_off,
        [partition.name for partition in found if not partition.made_by_server],
        now - min(left, default=now),
    )


def due(partitions: Iterable[AttachedPartition], retention: Retention, now: datetime) -> list[AttachedPartition]:
    """Those that are past their retention, in the order in which they came."""
    return [one for one in partitions if (due_at := retention.due_at(one)) is not None and due_at <= now]


async def _drop(connection: Connection, partition: AttachedPartition) -> bool:
    async with connection.transaction():
        # Whoever is second leaves it to the first, instead of shutting readers out twice.
        if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", LOCK_KEY):
            return False
        done: bool = await connection.fetchval("select drop_partition($1, $2)", partition.parent, partition.name)
        return done
