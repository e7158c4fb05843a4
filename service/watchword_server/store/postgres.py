"""The store on Postgres: puts the parts together behind the contract."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.blocked import Blocked
from watchword_server.store.catalogue import Catalogue
from watchword_server.store.contract import (
    Actor,
    BlockedSubject,
    IssueOutcome,
    Narrowed,
    Narrowing,
    NewToken,
    Preview,
    Revocation,
    Revoked,
    Rotation,
    RotationOutcome,
    ScopeEntry,
    ScopeOwned,
    ScopesNotHeld,
    ServiceUse,
    Snapshot,
    TokenNotLive,
    TokenQuery,
)
from watchword_server.store.database import Database, query
from watchword_server.store.event_contract import AuditEvent, Event, EventQuery
from watchword_server.store.issues import Issues
from watchword_server.store.lookups import Lookups
from watchword_server.store.narrowings import narrowings_on
from watchword_server.store.recording import EventTable
from watchword_server.store.revocations import Revocations
from watchword_server.store.rotations import rotations_on
from watchword_server.store.rows import record_of

WRITES_END_SECONDS_MAX: Final = 5.0
_log = logging.getLogger(__name__)


def unobserved(size: int) -> None:
    """Where nobody counts batch sizes."""


def uncounted(statement: str) -> None:
    """Where nobody counts statements."""


class PostgresStore:
    """Implements watchword_server.store.contract.Store and event_contract.EventLog."""

    def __init__(
        self,
        database: Database,
        *,
        lookup_timeout_seconds: float = 5,
        statement_timeout_seconds: float = 5,
        observe_lookups: Callable[[int], None] = unobserved,
        observe_issues: Callable[[int], None] = unobserved,
        count_statement: Callable[[str], None] = uncounted,
    ) -> None:
        self._database = database
        self._lookups = Lookups(
            database,
            timeout_seconds=lookup_timeout_seconds,
            observe=observe_lookups,
            count=count_statement,
        )
        self._issues = Issues(database, observe=observe_issues, count=count_statement)
        self._revocations = Revocations(database)
        self._rotations = rotations_on(database)
        self._narrowings = narrowings_on(database)
        # For what lists and shows. A write has none: a commit is never given up half way.
        self._timeout_seconds = statement_timeout_seconds
        self._events = EventTable(database, timeout_seconds=statement_timeout_seconds)
        self._catalogue = Catalogue(database, timeout_seconds=statement_timeout_seconds)
        self._blocked = Blocked(database, timeout_seconds=statement_timeout_seconds)

    def read(self, token_ids: Sequence[UUID]) -> Awaitable[Snapshot]:
        """See the contract."""
        return self._lookups.submit(token_ids)

    async def issue(self, token: NewToken) -> IssueOutcome:
        """See the contract."""
        return await self._issues.issue(token)

    async def revoke(self, revocation: Revocation) -> Revoked:
        """See the contract."""
        return await self._revocations.revoke(revocation)

    async def preview(self, revocation: Revocation) -> Preview:
        """See the contract."""
        return await self._revocations.preview(revocation)

    async def rotate(self, rotation: Rotation) -> RotationOutcome:
        """See the contract."""
        return await self._rotations.run(rotation)

    async def narrow(self, narrowing: Narrowing) -> Narrowed | ScopesNotHeld | TokenNotLive:
        """See the contract."""
        return await self._narrowings.run(narrowing)

    async def unblock(self, subject: str, actor: Actor) -> bool:
        """See the contract."""
        return await self._blocked.unblock(subject, actor)

    async def blocked(self, *, limit: int, after: str) -> Sequence[BlockedSubject]:
        """See the contract."""
        return await self._blocked.page(limit=limit, after=after)

    async def usage(self, token_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[ServiceUse]]:
        """See the contract."""
        async with self._database.reading() as connection:
            rows = await connection.fetch(query("usage"), list(token_ids), timeout=self._timeout_seconds)
        found: dict[UUID, list[ServiceUse]] = {}
        for row in rows:
            use = ServiceUse(row["service"], row["address"], row["last_used_at"], row["use_count"], row["scopes"])
            found.setdefault(row["token_id"], []).append(use)
        return found

    async def tokens(self, wanted: TokenQuery) -> tuple[Sequence[TokenRecord], datetime]:
        """See the contract."""
        async with self._database.reading() as connection:
            rows = await connection.fetch(
                query("list_tokens"),
                wanted.after,
                wanted.subject,
                wanted.issued_by,
                wanted.include_inactive,
                wanted.owner,
                wanted.kind,
                wanted.expiring_within,
                wanted.unused_for,
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
        return await self._events.events(wanted)

    async def record_events(self, events: Sequence[Event]) -> None:
        """See the contract."""
        await self._events.record_events(events)

    async def close(self, *, patience_seconds: float = WRITES_END_SECONDS_MAX) -> None:
        """Lets everything under way end, for so long, and then gives it up: what waits for a lock that somebody else
        holds must not keep the process alive. The database is closed by whoever opened it."""
        for seconds in (patience_seconds, WRITES_END_SECONDS_MAX):
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.gather(
                        self._lookups.close(),
                        self._issues.close(),
                        self._revocations.close(),
                        self._rotations.close(),
                        self._narrowings.close(),
                    )
                return
            except TimeoutError:
                _log.warning("given up at the end: writes that wait for the database")
