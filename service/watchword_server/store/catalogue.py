"""The catalogue of scopes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from watchword_server.store.contract import Actor, ScopeEntry, ScopeOwned, StoreError
from watchword_server.store.database import Connection, Database, query, retried
from watchword_server.store.event_contract import Event
from watchword_server.store.recording import record


class Catalogue:
    """Reads and extends the catalogue. Names are never removed, so a name once known stays known."""

    def __init__(self, database: Database, *, timeout_seconds: float) -> None:
        self._database = database
        self._timeout_seconds = timeout_seconds

    async def page(self, *, limit: int, after: str) -> Sequence[ScopeEntry]:
        """Entries in order of names, those after `after`."""
        return [_entry(row) for row in await self._fetch(self._database.reading(), query("list_scopes"), after, limit)]

    async def named(self, names: Sequence[str]) -> Sequence[ScopeEntry]:
        """Entries with these names."""
        return [_entry(row) for row in await self._fetch(self._database.reading(), query("named_scopes"), names)]

    async def names(self) -> frozenset[str]:
        """All names."""
        # Asked for by Issue, which does not wait behind those who list.
        rows = await self._fetch(self._database.connection(), query("scope_names"))
        return frozenset(row["name"] for row in rows)

    async def _fetch(
        self, borrowed: AbstractAsyncContextManager[Connection], sql: str, *arguments: object
    ) -> Sequence[Any]:
        async with borrowed as connection:
            rows: Sequence[Any] = await connection.fetch(sql, *arguments, timeout=self._timeout_seconds)
            return rows

    async def register(self, scopes: Sequence[ScopeEntry], actor: Actor) -> int | ScopeOwned:
        """Adds scopes for the actor's subject, all or nothing."""
        async with self._database.connection() as connection:
            try:
                return await retried(lambda one: _register(one, scopes, actor), connection)
            except _OwnedByAnotherError as refusal:
                return refusal.owned


class _OwnedByAnotherError(StoreError):
    """Rolls the transaction back."""

    def __init__(self, owned: ScopeOwned) -> None:
        super().__init__(owned.name)
        self.owned = owned


async def _register(connection: Connection, scopes: Sequence[ScopeEntry], actor: Actor) -> int:
    names = [scope.name for scope in scopes]
    descriptions = [scope.description for scope in scopes]
    async with connection.transaction():
        rows = await connection.fetch(query("register_scopes"), names, descriptions, actor.subject)
        refused = set(names) - {row["name"] for row in rows}
        if refused:
            row = await connection.fetchrow(query("named_scopes"), [min(refused)])
            raise _OwnedByAnotherError(ScopeOwned(row["name"], row["owner"]))
        await record(connection, [Event("register_scopes", actor, None, {"scopes": " ".join(sorted(names))})])
    return sum(row["is_new"] for row in rows)


def _entry(row: Any) -> ScopeEntry:
    return ScopeEntry(row["name"], row["description"], row["owner"], row["live_tokens"], row["counted_at"])
