"""Narrow: a token loses scopes, or life, at a position that names it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from watchword_server.rules.grants import covers_token
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.administrators import ENDS_SOON, administers
from watchword_server.store.contract import Narrowed, Narrowing, ScopesNotHeld, TokenNotLive
from watchword_server.store.database import Connection, Database, query
from watchword_server.store.ending import check_administrator_left, current_position, take_position
from watchword_server.store.event_contract import Event
from watchword_server.store.recording import record
from watchword_server.store.rows import record_of
from watchword_server.store.together import BATCH_MAX, Together

NarrowingOutcome = Narrowed | ScopesNotHeld | TokenNotLive
_LOCK_SECONDS_MAX: Final = 5.0


def narrowings_on(database: Database) -> Together[Narrowing, NarrowingOutcome]:
    """Runs narrowings, each in a transaction of its own."""
    return Together(database, _narrow_each, weigh=lambda narrowing: BATCH_MAX, lock_timeout_seconds=_LOCK_SECONDS_MAX)


async def _narrow_each(connection: Connection, narrowings: Sequence[Narrowing]) -> list[NarrowingOutcome]:
    return [await _narrow(connection, narrowing) for narrowing in narrowings]


async def _narrow(connection: Connection, narrowing: Narrowing) -> NarrowingOutcome:
    rows = await connection.fetch(query("lock_tokens"), [narrowing.token_id])
    if not rows:
        return TokenNotLive()
    before, now = record_of(rows[0]), rows[0]["read_at"]
    if not covers_token(narrowing.within, before):
        return Narrowed(before, await current_position(connection), refused=True)
    if before.revoked_at is not None or before.ends_at <= now:
        return TokenNotLive()
    not_held = [scope for scope in narrowing.remove_scopes if scope not in before.scopes]
    if not_held:
        return ScopesNotHeld(not_held)
    after = before._replace(
        scopes=[scope for scope in before.scopes if scope not in narrowing.remove_scopes],
        expires_at=before.expires_at if narrowing.life is None else min(before.expires_at, now + narrowing.life),
    )
    await connection.execute(query("narrow"), after.token_id, after.scopes, after.expires_at)
    details = {"reason": narrowing.reason}
    if narrowing.remove_scopes:
        details["removed_scopes"] = " ".join(narrowing.remove_scopes)
    if after.expires_at != before.expires_at:
        details["expires_at"] = after.expires_at.isoformat()
    # Before the position is taken: everybody's revocations wait for whoever has it.
    successor_id = None
    if before.successor_id is not None:
        successor_id = await connection.fetchval(query("live_successors"), [before.lineage], column=1)
    await record(connection, [Event("narrow", narrowing.actor, after.token_id, details)])
    position = await take_position(connection, [after.token_id])
    if _administers(before) and not narrowing.force:
        await _check_administrators(connection, before, after, now)
    return Narrowed(after, position, live_successor_id=successor_id)


async def _check_administrators(connection: Connection, before: TokenRecord, after: TokenRecord, now: datetime) -> None:
    if not _administers(after):
        await check_administrator_left(connection)
    elif after.expires_at < before.expires_at:
        # To leave the last one a moment is to revoke it.
        await check_administrator_left(connection, until=min(before.expires_at, now + ENDS_SOON))


def _administers(one: TokenRecord) -> bool:
    return administers(scopes=one.scopes, audiences=one.audiences, gives=bool(one.grants))
