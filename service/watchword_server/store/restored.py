"""After a restore from a backup: a new epoch, and the revocations that the backup does not know are done again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from watchword_server.store.contract import Actor
from watchword_server.store.database import DRIVER_ERRORS, Connection, Database, query, translated
from watchword_server.store.durable import acknowledged
from watchword_server.store.recording import Event, record
from watchword_server.store.rows import new_event_id

_ACTOR: Final = Actor("restored", None, "local")
_AT_A_TIME: Final = 1_000


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, durably. `count_unknown`: tokens to be ended that the backup does not have."""

    count_ended: int
    count_unknown: int
    epoch: UUID


async def restored(database: Database, ended: AsyncIterable[tuple[UUID, str]] | Iterable[tuple[UUID, str]]) -> Restored:
    """Begins a new epoch and ends these tokens for these reasons, all in one transaction and at one position that
    stands for everything: no verifier goes on with what it knew. Where a token is named twice, the first reason counts.

    Done again it ends nothing more, and begins another epoch. Raises StoreError; then nothing was done, or, with
    StoreUnavailableError, it is not known whether it was.
    """
    try:
        connection = await database.connect()
        try:
            with acknowledged(connection):
                async with connection.transaction():
                    # The list may come slowly, and nobody else is served meanwhile.
                    await connection.execute("set local idle_in_transaction_session_timeout = 0")
                    return await _restored(connection, ended)
        finally:
            connection.terminate()
    except DRIVER_ERRORS as error:
        raise translated(error) from error


async def _restored(
    connection: Connection, ended: AsyncIterable[tuple[UUID, str]] | Iterable[tuple[UUID, str]]
) -> Restored:
    deed = new_event_id()
    count_ended = 0
    unknown: set[UUID] = set()
    async with aclosing(_batches(ended)) as batches:
        async for reasons in batches:
            rows = await connection.fetch(query("revoke_named"), list(reasons), True)
            unknown |= reasons.keys() - {row["id"] for row in rows}
            live = [row["id"] for row in rows if row["revoked_at"] is None]
            await connection.execute(query("revoke_mark"), live, [reasons[token_id] for token_id in live])
            await record(
                connection,
                [
                    Event("revoke", _ACTOR, token_id, {"reason": reasons[token_id], "by_event": str(deed)})
                    for token_id in live
                ],
            )
            count_ended += len(live)
    details = {"count": str(count_ended), "unknown": str(len(unknown))}
    await record(connection, [Event("restored", _ACTOR, None, details, event_id=deed)])
    await connection.execute(query("restored_epoch"))
    row = await connection.fetchrow(query("revoke_position"), True, [])
    return Restored(count_ended, len(unknown), row["epoch"])


async def _batches(
    ended: AsyncIterable[tuple[UUID, str]] | Iterable[tuple[UUID, str]],
) -> AsyncGenerator[dict[UUID, str], None]:
    batch: dict[UUID, str] = {}
    async with aclosing(_each(ended)) as pairs:
        async for token_id, reason in pairs:
            batch.setdefault(token_id, reason)
            if len(batch) == _AT_A_TIME:
                yield batch
                batch = {}
    if batch:
        yield batch


async def _each(
    ended: AsyncIterable[tuple[UUID, str]] | Iterable[tuple[UUID, str]],
) -> AsyncGenerator[tuple[UUID, str], None]:
    if isinstance(ended, AsyncIterable):
        async for pair in ended:
            yield pair
    else:
        for pair in ended:
            yield pair
