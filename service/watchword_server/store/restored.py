"""After a restore from a backup: a new epoch, and what the backup does not know of is done again: revocations, what
narrowings and rotations took from tokens, and blocks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Final
from uuid import UUID

from watchword_server.store.contract import Actor
from watchword_server.store.database import DRIVER_ERRORS, Connection, Database, query, translated
from watchword_server.store.durable import acknowledged
from watchword_server.store.event_contract import Event
from watchword_server.store.recording import record
from watchword_server.store.rows import new_event_id, record_of

_ACTOR: Final = Actor("restored", None, "local")
_AT_A_TIME: Final = 1_000


@dataclass(frozen=True, slots=True)
class Loss:
    """What a token lost, other than its life at once: scopes, and what it would have lived beyond `expires_at`."""

    token_id: UUID
    removed_scopes: Sequence[str] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, durably. `count_unknown`: tokens to be ended that the backup does not have."""

    count_ended: int
    count_unknown: int
    epoch: UUID
    count_narrowed: int = 0
    count_blocked: int = 0


async def restored(
    database: Database,
    ended: AsyncIterable[tuple[UUID, str]] | Iterable[tuple[UUID, str]],
    *,
    losses: Sequence[Loss] = (),
    blocked: Mapping[str, str] = MappingProxyType({}),
) -> Restored:
    """Begins a new epoch and ends these tokens for these reasons, all in one transaction and at one position that
    stands for everything: no verifier goes on with what it knew. Where a token is named twice, the first reason counts.
    Tokens lose again what they had lost, and subjects (each with the reason) are blocked again.

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
                    return await _restored(connection, ended, losses, blocked)
        finally:
            connection.terminate()
    except DRIVER_ERRORS as error:
        raise translated(error) from error


async def _restored(
    connection: Connection,
    ended: AsyncIterable[tuple[UUID, str]] | Iterable[tuple[UUID, str]],
    losses: Sequence[Loss],
    blocked: Mapping[str, str],
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
    count_narrowed = await _lose(connection, losses, deed)
    count_blocked = await _block(connection, blocked, deed)
    details = {"count": str(count_ended), "unknown": str(len(unknown))}
    details |= {"narrowed": str(count_narrowed), "blocked": str(count_blocked)}
    await record(connection, [Event("restored", _ACTOR, None, details, event_id=deed)])
    await connection.execute(query("restored_epoch"))
    row = await connection.fetchrow(query("revoke_position"), True, [])
    return Restored(count_ended, len(unknown), row["epoch"], count_narrowed, count_blocked)


async def _lose(connection: Connection, losses: Sequence[Loss], deed: UUID) -> int:
    """How many tokens had more than is left to them."""
    scopes: dict[UUID, set[str]] = {}
    ends: dict[UUID, datetime] = {}
    for loss in losses:
        scopes.setdefault(loss.token_id, set()).update(loss.removed_scopes)
        if loss.expires_at is not None:
            ends[loss.token_id] = min(loss.expires_at, ends.get(loss.token_id, loss.expires_at))
    count = 0
    remaining = iter(scopes)
    while token_ids := list(islice(remaining, _AT_A_TIME)):
        for row in await connection.fetch(query("lock_tokens"), token_ids):
            before = record_of(row)
            left = [scope for scope in before.scopes if scope not in scopes[before.token_id]]
            expires_at = min(before.expires_at, ends.get(before.token_id, before.expires_at))
            if (len(left), expires_at) == (len(before.scopes), before.expires_at):
                continue
            await connection.execute(query("narrow"), before.token_id, left, expires_at)
            details = {"removed_scopes": " ".join(sorted(scopes[before.token_id])), "by_event": str(deed)}
            details["expires_at"] = expires_at.isoformat()
            await record(connection, [Event("narrow", _ACTOR, before.token_id, details)])
            count += 1
    return count


async def _block(connection: Connection, blocked: Mapping[str, str], deed: UUID) -> int:
    """How many subjects were not blocked."""
    if not blocked:
        return 0
    subjects, count = list(blocked), len(blocked)
    rows = await connection.fetch(
        query("block"), subjects, list(blocked.values()), [_ACTOR.subject] * count, [None] * count
    )
    again = [{"subject": row["subject"], "reason": blocked[row["subject"]], "by_event": str(deed)} for row in rows]
    await record(connection, [Event("block_subject", _ACTOR, None, details) for details in again])
    return len(rows)


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
