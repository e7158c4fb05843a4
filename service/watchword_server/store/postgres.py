"""The store on Postgres: puts the parts together behind the contract."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.catalogue import Catalogue
from watchword_server.store.contract import (
    Actor,
    AuditEvent,
    EventQuery,
    IssueOutcome,
    NewToken,
    Revocation,
    Revoked,
    ScopeEntry,
    ScopeOwned,
    Snapshot,
    TokenQuery,
)
from watchword_server.store.database import Database, query
from watchword_server.store.issues import Issues
from watchword_server.store.lookups import Lookups
from watchword_server.store.revocations import Revocations
from watchword_server.store.rows import record_of

WRITES_END_SECONDS_MAX: Final = 5.0
_log = logging.getLogger(__name__)


def _unobserved(size: int) -> None:
    """Where nobody counts batch sizes."""


def _uncounted(statement: str) -> None:
    """Where nobody counts statements."""


class PostgresStore:
    """Implements watchword_server.store.contract.Store."""

    def __init__(
        self,
        database: Database,
        *,
        lookup_timeout_seconds: float = 5,
        statement_timeout_seconds: float = 5,
        queue_max: int = 10_000,
        observe_lookups: Callable[[int], None] = _unobserved,
        observe_issues: Callable[[int], None] = _unobserved,
        count_statement: Callable[[str], None] = _uncounted,
    ) -> None:
        self._database = database
        self._lookups = Lookups(
            database,
            timeout_seconds=lookup_timeout_seconds,
            queue_max=queue_max,
            observe=observe_lookups,
            count=count_statement,
        )
        self._issues = Issues(database, queue_max=queue_max, observe=observe_issues, count=count_statement)
        self._revocations = Revocations(database, queue_max=queue_max)
        # For what lists and shows. A write has none: a commit is never given up half way.
        self._timeout_seconds = statement_timeout_seconds
        self._catalogue = Catalogue(database, timeout_seconds=statement_timeout_seconds)

    def read(self, token_ids: Sequence[UUID]) -> Awaitable[Snapshot]:
        """See the contract."""
        return self._lookups.submit(token_ids)

    async def issue(self, token: NewToken) -> IssueOutcome:
        """See the contract."""
        return await self._issues.issue(token)

    async def revoke(self, revocation: Revocation) -> Revoked:
        """See the contract."""
        return await self._revocations.revoke(revocation)

    async def tokens(self, wanted: TokenQuery) -> tuple[Sequence[TokenRecord], datetime]:
        """See the contract."""
        async with self._database.reading() as connection:
            rows = await connection.fetch(
                query("list_tokens"),
                wanted.after,
                wanted.subject,
                wanted.issued_by,
                wanted.include_inactive,
                wanted.limit,
                timeout=self._timeout_seconds,
            )
            now = rows[0]["read_at"] if rows else await connection.fetchval("select now()")
        return [record_of(row) for row in rows], now

    async def scopes(self, *, limit: int, after: str) -> Sequence[ScopeEntry]:
        """See the contract."""
        return await self._catalogue.page(limit=limit, after=after)

    async def scopes_named(self, names: Sequence[str]) -> Sequence[ScopeEntry]:
        """See the contract."""
        return await self._catalogue.named(names)

    async def scope_names(self) -> frozenset[str]:
        """See the contract."""
        return await self._catalogue.names()

    async def register_scopes(self, scopes: Sequence[ScopeEntry], actor: Actor) -> int | ScopeOwned:
        """See the contract."""
        return await self._catalogue.register(scopes, actor)

    async def events(self, wanted: EventQuery) -> Sequence[AuditEvent]:
        """See the contract."""
        async with self._database.reading() as connection:
            rows = await connection.fetch(
                query("list_events"),
                wanted.before,
                wanted.actor,
                wanted.token_id,
                wanted.action,
                wanted.since,
                wanted.limit,
                timeout=self._timeout_seconds,
            )
        return [
            AuditEvent(
                event_id=row["id"],
                occurred_at=row["occurred_at"],
                action=row["action"],
                actor=Actor(row["actor"], row["actor_token_id"], row["address"]),
                token_id=row["token_id"],
                details=json.loads(row["details"]),
            )
            for row in rows
        ]

    async def close(self, *, patience_seconds: float = WRITES_END_SECONDS_MAX) -> None:
        """Lets everything under way end, for so long, and then gives it up: what waits for a lock that somebody else
        holds must not keep the process alive. The database is closed by whoever opened it."""
        for seconds in (patience_seconds, WRITES_END_SECONDS_MAX):
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.gather(self._lookups.close(), self._issues.close(), self._revocations.close())
                return
            except TimeoutError:
                _log.warning("given up at the end: writes that wait for the database")
