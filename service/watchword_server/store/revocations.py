"""Revoke: end tokens, take a position, and record both, in one transaction that runs to its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from watchword.token import format_token_id
from watchword_server.rules.grants import covering_grant
from watchword_server.rules.tokens import Grant
from watchword_server.store.contract import (
    Actor,
    Position,
    Revocation,
    Revoked,
    StoreOverloadedError,
    StoreUnavailableError,
)
from watchword_server.store.database import Connection, Database, query, retried
from watchword_server.store.rows import grants_of, new_event_id


class Revocations:
    """Runs revocations. A caller that gives up waiting does not stop one: its commit is shielded."""

    def __init__(self, database: Database, *, queue_max: int, lanes: int = 2) -> None:
        self._database = database
        self._queue_max = queue_max
        # They take turns at the position's row anyway. More of them on connections of their own would only wait there,
        # and leave none to the checks (test_revocations_that_wait_leave_connections_to_the_checks).
        self._lanes = asyncio.Semaphore(lanes)
        self._under_way: set[asyncio.Task[Revoked]] = set()
        self._closed = False

    async def revoke(self, revocation: Revocation) -> Revoked:
        """Ends what the revocation names, within its reach."""
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        if len(self._under_way) >= self._queue_max:
            raise StoreOverloadedError("too many revocations wait for the database")
        task = asyncio.get_running_loop().create_task(self._run(revocation))
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Revoked]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # Seen, even when the caller left.

    async def _run(self, revocation: Revocation) -> Revoked:
        async with self._lanes, self._database.connection() as connection:
            return await retried(lambda one: _transaction(one, revocation), connection)

    async def close(self) -> None:
        """Waits for what is under way. Cancelled, it gives that up; Postgres then takes it back."""
        self._closed = True
        try:
            if self._under_way:
                await asyncio.wait(self._under_way)
        except asyncio.CancelledError:
            for task in self._under_way:
                task.cancel()
            raise


async def _transaction(connection: Connection, revocation: Revocation) -> Revoked:
    async with connection.transaction():
        refused = not await _may_end_what_it_names(connection, revocation)
        ended, out_of_reach = ([], 1) if refused else await _end(connection, revocation)
        selector = revocation.selector
        named = set() if selector.token_id is None else {selector.token_id}
        # A revocation that names a token always writes: whoever waits for the position waits for every verifier,
        # whether this call, an earlier one, or nobody ended the token.
        if ended or named:
            row = await connection.fetchrow(query("revoke_position"))
            await connection.execute(query("revoke_changes"), row["position"], sorted({*ended, *named}))
        else:
            row = await connection.fetchrow(query("position"))
        await _record(connection, revocation, ended)
    return Revoked(len(ended), out_of_reach, Position(row["epoch"], row["position"]), refused)


async def _may_end_what_it_names(connection: Connection, revocation: Revocation) -> bool:
    """Whether the token that the selector names by id is within reach. If not, nothing behind it is ended either."""
    token_id = revocation.selector.token_id
    if token_id is None or revocation.proved is not None:
        return True
    rows = await connection.fetch(query("revoke_candidates"), [token_id], None, [], revocation.cascade)
    return all(_within_reach(row, revocation.within) for row in rows)


async def _end(connection: Connection, revocation: Revocation) -> tuple[list[UUID], int]:
    """Level by level: first what the selector names, then what those issued, each after its issuers are locked.

    A cascade goes on behind every token it meets, also one that was revoked before or lies out of reach: what that one
    issued may be live and within reach.
    """
    if revocation.proved is False:
        return [], 0
    presented = revocation.selector.token_id if revocation.proved else None
    selector = revocation.selector
    ids = [] if selector.token_id is None else [selector.token_id]
    issuers = [] if selector.issued_by is None else [selector.issued_by]
    subject = selector.subject
    ended: list[UUID] = []
    out_of_reach: set[UUID] = set()
    # Issue makes no rings, but whoever writes rows by hand could.
    met = set(issuers)
    while ids or issuers or subject is not None:
        rows = await connection.fetch(query("revoke_candidates"), ids, subject, issuers, revocation.cascade)
        live = [row for row in rows if row["revoked_at"] is None]
        within = [row["id"] for row in live if row["id"] == presented or _within_reach(row, revocation.within)]
        out_of_reach.update({row["id"] for row in live}.difference(within))
        if within:
            await connection.execute(query("revoke_mark"), within, revocation.reason)
            ended += within
        # The named id itself too: its row may be gone, purged with its partition, while what it issued lives on.
        found = {row["id"] for row in rows}.union(ids)
        issuers = sorted(found - met) if revocation.cascade else []
        met |= found
        ids, subject = [], None
    return ended, len(out_of_reach)


def _within_reach(row: Any, grants: Sequence[Grant]) -> bool:
    passed_on = () if row["grants"] is None else grants_of(row["grants"])
    return (
        covering_grant(
            grants, subject=row["subject"], scopes=row["scopes"], audiences=row["audiences"], grants=passed_on
        )
        is not None
    )


async def _record(connection: Connection, revocation: Revocation, ended: Sequence[UUID]) -> None:
    """One event for the deed, and one for each token that it ended beside the named one: so that a token's own events
    tell its end, however it came."""
    selector = revocation.selector
    details = {"count": str(len(ended)), "reason": revocation.reason}
    if selector.subject is not None:
        details["subject"] = selector.subject
    if selector.issued_by is not None:
        details["issued_by"] = format_token_id(selector.issued_by)
    if revocation.cascade:
        details["cascade"] = "true"
    deed = await record_event(connection, "revoke", revocation.actor, selector.token_id, details)
    others = [token_id for token_id in ended if token_id != selector.token_id]
    if others:
        actor = revocation.actor
        await connection.execute(
            query("record_ended"),
            [new_event_id() for _ in others],
            others,
            actor.subject,
            actor.token_id,
            actor.address,
            json.dumps({"reason": revocation.reason, "by_event": str(deed)}),
        )


async def record_event(
    connection: Connection, action: str, actor: Actor, token_id: UUID | None, details: dict[str, str]
) -> UUID:
    """Writes one audit event into the transaction under way; its id."""
    event_id = new_event_id()
    await connection.execute(
        query("record_event"),
        event_id,
        action,
        actor.subject,
        actor.token_id,
        actor.address,
        token_id,
        json.dumps(details),
    )
    return event_id
