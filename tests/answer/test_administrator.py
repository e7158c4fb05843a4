"""The first administrator: made once, however many start, and never while another lives."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pydantic import ValidationError

from watchword_server.admin import BOOTSTRAP_TTL, AdministratorExistsError, BootstrapResult, make_administrator
from watchword_server.answer.issue import Issuing
from watchword_server.answer.mint import Mint
from watchword_server.keyring import Keyring
from watchword_server.settings import Settings
from watchword_server.store.administrators import last_administrator_ends_at
from watchword_server.store.contract import Actor, Revocation, Selector
from watchword_server.store.database import Database
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.partitions import ensure_partitions
from watchword_server.store.postgres import PostgresStore

TTL_MAX = timedelta(days=30)
# The smallest that the settings allow.
POOL_SIZE = 2


async def make(dsn: str, keyring: Keyring) -> BootstrapResult:
    """As `watchword bootstrap` does, with a process's own connections."""
    database = await Database.open(dsn, pool_size_max=POOL_SIZE, connect_timeout_seconds=60)
    await ensure_partitions(database, ttl_max=TTL_MAX, days=30)
    store = PostgresStore(database)
    mint = Mint(keyring, token_prefix="ww_", idle_slack=timedelta())
    issuing = Issuing(store, mint, ttl_default=TTL_MAX, ttl_max=TTL_MAX)
    try:
        async with asyncio.timeout(60):
            return await make_administrator(database, issuing, ttl=BOOTSTRAP_TTL)
    finally:
        await store.close()
        await database.close()


async def test_of_processes_that_start_at_once_one_makes_an_administrator(dsn: str) -> None:
    keyring = Keyring.generate()
    outcomes = await asyncio.gather(*(make(dsn, keyring) for _ in range(4)), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, AdministratorExistsError):
            raise outcome
    made = [outcome for outcome in outcomes if isinstance(outcome, BootstrapResult)]
    assert len(made) == 1
    assert sum(isinstance(outcome, AdministratorExistsError) for outcome in outcomes) == 3
    assert made[0].secret not in repr(made[0])


async def test_another_is_made_once_the_last_one_is_revoked(dsn: str) -> None:
    keyring = Keyring.generate()
    first = await make(dsn, keyring)
    with pytest.raises(AdministratorExistsError):
        await make(dsn, keyring)
    database = await Database.open(dsn, pool_size_max=POOL_SIZE)
    store = PostgresStore(database)
    ends_at, now = await last_administrator_ends_at(database)
    assert ends_at == first.token.expires_at
    assert ends_at - now <= BOOTSTRAP_TTL
    selector = Selector(token_id=first.token.token_id)
    actor = Actor("test", None, "test")
    await store.revoke(Revocation(selector, actor, "", cascade=False, within=first.token.grants, force=True))
    second = await make(dsn, keyring)
    assert second.token.token_id != first.token.token_id
    assert [event.action for event in await store.events(EventQuery())] == ["bootstrap", "revoke", "bootstrap"]
    await store.close()
    await database.close()


def test_pool_too_small_to_make_an_administrator_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings(pool_size_max=POOL_SIZE - 1)
