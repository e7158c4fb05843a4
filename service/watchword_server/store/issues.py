"""Concurrent Issues share one commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from watchword.token import format_token_id
from watchword_server.store.contract import (
    Issued,
    IssueOutcome,
    IssuerGone,
    NewToken,
    RequestIdUsed,
    RowRefusedError,
    StoreError,
    SubjectBlocked,
)
from watchword_server.store.database import WRITE_ATTEMPTS_MAX, Connection, Database, query
from watchword_server.store.gather import Gatherer
from watchword_server.store.kept import Kept
from watchword_server.store.rows import grants_text, new_event_id, pairs_text, scheme_or_null, seconds_of, words_text

BATCH_MAX: Final = 256


class Issues:
    """Stores tokens, many to a transaction. Once sent, a transaction runs to its end whoever gives up waiting."""

    def __init__(
        self,
        database: Database,
        *,
        lock_timeout_seconds: float = 5,
        observe: Callable[[int], None],
        count: Callable[[str], None],
    ) -> None:
        self._database = database
        self._kept = Kept(self._connect, database.unanswered)
        self._lock_timeout_ms = round(lock_timeout_seconds * 1000)
        self._count = count
        self._sql = query("issue")
        self._gatherer: Gatherer[NewToken, IssueOutcome] = Gatherer(
            self._send, batch_max=BATCH_MAX, lanes=2, observe=observe
        )

    async def _connect(self) -> Connection:
        connection = await self._database.connect()
        # An issuer's row is locked while it is being revoked, with all that a cascade takes. Waiting for that is given
        # up before anything is stored: it would hold up the Issues of everybody else.
        # (test_an_issuer_locked_for_long_does_not_hold_up_everybody)
        await connection.execute("select set_config('lock_timeout', $1, false)", f"{self._lock_timeout_ms}ms")
        return connection

    async def issue(self, token: NewToken) -> IssueOutcome:
        """Stores one token."""
        return await self._gatherer.submit(token)

    async def _send(self, tokens: Sequence[NewToken]) -> Sequence[IssueOutcome | StoreError]:
        # Two with the same request id cannot be in one statement; the second of them finds the first.
        first: dict[tuple[str, str], NewToken] = {}
        for token in tokens:
            if token.request_id:
                first.setdefault((token.actor.subject, token.request_id), token)
        later = [
            token for token in tokens if token.request_id and first[token.actor.subject, token.request_id] is not token
        ]
        outcomes: dict[UUID, IssueOutcome | StoreError] = {}
        held_back = {token.record.token_id for token in later}
        for batch in ([token for token in tokens if token.record.token_id not in held_back], *([one] for one in later)):
            outcomes.update(await self._store(batch))
        return [outcomes[token.record.token_id] for token in tokens]

    async def _store(self, tokens: Sequence[NewToken]) -> dict[UUID, IssueOutcome | StoreError]:
        try:
            return await self._commit(tokens)
        except RowRefusedError as error:
            if len(tokens) == 1:
                return {tokens[0].record.token_id: error}
        except StoreError as error:
            # For these alone: whoever else shares the batch may be stored already, and has to hear of it.
            return {token.record.token_id: error for token in tokens}
        # One row is bad: each alone, so that it fails alone.
        outcomes: dict[UUID, IssueOutcome | StoreError] = {}
        for token in tokens:
            outcomes.update(await self._store([token]))
        return outcomes

    async def _commit(self, tokens: Sequence[NewToken]) -> dict[UUID, IssueOutcome | StoreError]:
        columns = [list(column) for column in zip(*map(_columns, tokens), strict=True)]
        issuers = {token.record.issued_by for token in tokens if token.record.issued_by is not None}
        self._count("issue")
        # No timeout: a commit is never given up half way.
        rows = await self._kept.fetch(self._sql, *columns, issuers, attempts=WRITE_ATTEMPTS_MAX)
        outcomes: dict[UUID, IssueOutcome | StoreError] = {}
        conflicts: set[UUID] = set()
        for row in rows:
            if row["stored"]:
                outcomes[row["id"]] = Issued(row["created_at"], row["expires_at"])
            elif not row["issuer_lives"]:
                outcomes[row["id"]] = IssuerGone()
            elif row["blocked_subject"] is not None:
                outcomes[row["id"]] = SubjectBlocked(row["blocked_subject"])
            else:
                conflicts.add(row["id"])
        for token in tokens:
            if token.record.token_id in conflicts:
                outcomes.update(await self._used(token))
        return outcomes

    async def _used(self, token: NewToken) -> dict[UUID, IssueOutcome | StoreError]:
        """For which token the request id was used. Not on the pool's connections: others may hold them for long, and
        those who were stored meanwhile wait for their answers (test_used_request_id_does_not_hold_up_its_batch)."""
        try:
            rows = await self._kept.fetch(query("request_used"), token.actor.subject, token.request_id)
        except StoreError as error:
            return {token.record.token_id: error}
        if rows:
            return {token.record.token_id: RequestIdUsed(rows[0]["token_id"])}
        # Forgotten in this very moment, a day after its use, so it is free.
        return await self._store([token])

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._gatherer.close()
        await self._kept.close()


def _columns(token: NewToken) -> tuple[object, ...]:
    record, actor = token.record, token.actor
    details = {"subject": record.subject, "scopes": " ".join(record.scopes)}
    if record.owner:
        details["owner"] = record.owner
    if record.tied_to is not None:
        details["tied_to"] = format_token_id(record.tied_to)
    return (
        record.token_id,
        record.pepper_version,
        record.digest,
        record.subject,
        " ".join(record.audiences),
        " ".join(record.scopes),
        grants_text(record.grants),
        record.name or None,
        pairs_text(record.metadata),
        record.expires_at,
        record.issued_by,
        token.request_id,
        actor.subject,
        new_event_id(),
        actor.address,
        json.dumps(details),
        record.kind or None,
        record.owner or None,
        seconds_of(record.idle_timeout),
        record.idle_expires_at,
        words_text(record.allowed_networks),
        record.certificate_sha256 or None,
        record.tied_to,
        scheme_or_null(record.digest_scheme),
    )
