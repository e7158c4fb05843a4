"""The store's contracts on steps: each statement is sent, happens, and is answered, when a test says so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from tests.model.database import Database
from tests.model.steps import Op
from watchword_server.store.contract import Position, Snapshot
from watchword_server.store.fleet_contract import FeedPage, NewReplica, Roll, WatcherRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class SteppedFleet:
    """A watchword_server.store.contract.Fleet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def epoch(self) -> UUID:
        return await Op(self._database.epoch, ready=self._database.unlocked)

    async def begin_epoch(self, seen: UUID) -> UUID:
        await Op(lambda: self._database.begin_epoch(seen), ready=self._database.unlocked)
        return await self.epoch()

    async def join(self, replica: NewReplica) -> bool:
        return await Op(lambda: self._database.join(replica), ready=self._database.unlocked)

    async def renew(self, key: UUID, epoch: UUID) -> bool:
        if await Op(lambda: self._database.renew(key, epoch)):
            return True
        return await self.epoch() == epoch and await Op(lambda: self._database.renew(key, epoch))

    async def publish(self, key: UUID, epoch: UUID, applied: int) -> bool:
        return await Op(lambda: self._database.publish(key, epoch, applied))

    async def drain(self, key: UUID) -> None:
        """Said to people only."""

    async def leave(self, key: UUID) -> None:
        await Op(lambda: self._database.leave(key))

    async def fence(self, key: UUID, renewals: int) -> bool:
        return await Op(lambda: self._database.fence(key, renewals))

    async def roll(self) -> Roll:
        return await Op(self._database.roll)

    async def feed(self, after: int | None, mark: UUID | None, *, limit: int = 10_000) -> FeedPage:
        return await Op(lambda: self._database.page(after, mark))

    async def settle(self, epoch: UUID) -> None:
        await Op(lambda: self._database.settle(epoch), ready=self._database.unlocked)

    async def report(self, key: UUID, watchers: Sequence[WatcherRow]) -> None:
        raise NotImplementedError

    async def watchers(self, *, limit: int, after: tuple[UUID, bytes] | None) -> Sequence[WatcherRow]:
        raise NotImplementedError

    async def wait_for_news(self, timeout_seconds: float) -> None:
        raise NotImplementedError

    async def wait_for_applied(self, timeout_seconds: float) -> None:
        raise NotImplementedError


class SteppedStore:
    """What the model needs of a watchword_server.store.contract.Store: a token has a row as long as it is not ended."""

    def __init__(self, database: Database) -> None:
        self.database = database
        nothing = SimpleNamespace()
        self.issue = self.tokens = self.scopes = self.scopes_named = self.scope_names = nothing
        self.register_scopes = self.events = nothing

    async def read(self, token_ids: Sequence[UUID]) -> Snapshot:
        return await Op(lambda: self._snapshot(token_ids))

    async def revoke(self, token_ids: Sequence[UUID], *, everything: bool = False) -> Position:
        """The transaction: takes the row's lock, commits, and is answered once the standby has it."""
        database = self.database
        transaction = await Op(database.begin, ready=database.unlocked)
        committed: list[Position] = []
        await Op(
            lambda: committed.append(database.commit(transaction, token_ids, everything=everything)),
            answered=lambda: not committed or database.has(committed[0]),
        )
        return committed[0]

    def _snapshot(self, token_ids: Sequence[UUID]) -> Snapshot:
        state = self.database.state
        rows: dict[UUID, Any] = {token_id: token_id for token_id in token_ids if token_id not in state.revoked}
        return Snapshot(rows, Position(state.epoch, state.number), NOW)
