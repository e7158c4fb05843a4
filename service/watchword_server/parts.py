"""What every process that touches the database is put together from: connection, keyring, store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from watchword_server.answer.issue import Issuing
from watchword_server.answer.mint import Mint
from watchword_server.data_folder import KEYRING_FILE
from watchword_server.embedded import EmbeddedPostgres
from watchword_server.keyring import Keyring
from watchword_server.settings import Settings
from watchword_server.store import migrate
from watchword_server.store.database import Database
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.partitions import ensure_partitions
from watchword_server.store.peppers import check_peppers
from watchword_server.store.postgres import PostgresStore, uncounted, unobserved


@dataclass(frozen=True, slots=True)
class Parts:
    """An opened, migrated database and what works on it."""

    settings: Settings
    database: Database
    keyring: Keyring
    store: PostgresStore
    fleet: PostgresFleet
    """Neither listening nor joined: that is for whoever serves."""
    mint: Mint
    issuing: Issuing
    embedded: EmbeddedPostgres | None


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    observe_lookups: Callable[[int], None] = unobserved,
    observe_issues: Callable[[int], None] = unobserved,
    count_statement: Callable[[str], None] = uncounted,
) -> AsyncIterator[Parts]:
    """Opens everything and closes it again.

    The embedded database is started and migrated; an external one has to be migrated already. Raises the error of
    whatever is not as it must be: EmbeddedPostgresError, MigrationError, StoreUnavailableError, KeyringError,
    PrivateFileError, PepperMismatchError.
    """
    embedded = EmbeddedPostgres(settings.data_dir) if settings.embedded else None
    try:
        dsn = await _ready_dsn(settings, embedded)
        keyring = _keyring(settings)
        database = await Database.open(
            dsn,
            pool_size_max=settings.pool_size_max,
            connect_timeout_seconds=settings.connect_timeout_seconds,
        )
        try:
            ttl_max = timedelta(seconds=settings.ttl_seconds_max)
            await check_peppers(
                database, {version: keyring.check_value(version) for version in sorted(keyring.peppers)}
            )
            await ensure_partitions(database, ttl_max=ttl_max, days=settings.partition_days)
            store = PostgresStore(
                database,
                lookup_timeout_seconds=settings.lookup_timeout_seconds,
                statement_timeout_seconds=settings.statement_timeout_seconds,
                observe_lookups=observe_lookups,
                observe_issues=observe_issues,
                count_statement=count_statement,
            )
            fleet = PostgresFleet(
                database,
                pepper_versions=keyring.versions,
                read_timeout_seconds=settings.statement_timeout_seconds,
            )
            mint = Mint(
                keyring,
                token_prefix=settings.token_prefix,
                idle_slack=timedelta(seconds=settings.usage_slack_seconds),
            )
            issuing = Issuing(store, mint, ttl_default=timedelta(seconds=settings.default_ttl_seconds), ttl_max=ttl_max)
            try:
                yield Parts(settings, database, keyring, store, fleet, mint, issuing, embedded)
            finally:
                await store.close()
                await fleet.close()
        finally:
            await database.close()
    finally:
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)


async def _ready_dsn(settings: Settings, embedded: EmbeddedPostgres | None) -> str:
    if embedded is not None:
        dsn = await asyncio.to_thread(embedded.start)
        await asyncio.to_thread(migrate.upgrade, dsn)
        return dsn
    assert settings.database_url is not None
    dsn = settings.database_url.get_secret_value()
    states = await asyncio.to_thread(migrate.status, dsn)
    # Migrations that this version does not know yet are no hindrance: one version either side is tolerated.
    missing = [state.name for state in states if state.applied_at is None]
    if missing:
        raise migrate.MigrationError(f"the database lacks {', '.join(missing)}: run `watchword db upgrade` first")
    return dsn


def _keyring(settings: Settings) -> Keyring:
    if settings.keyring is not None:
        return Keyring.load(settings.keyring.get_secret_value())
    return Keyring.load_or_create(settings.data_dir / KEYRING_FILE)
