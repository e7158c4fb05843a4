"""The order of the checks, and what they need: settings first, then the database, then what lies in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import asyncpg

from watchword_server.data_folder import KEYRING_FILE, POSTGRES_VERSION_FILE
from watchword_server.doctor import certificate, peppers, postgres, replicas, stored
from watchword_server.doctor.finding import Finding
from watchword_server.embedded import EmbeddedPostgres, EmbeddedPostgresError
from watchword_server.keyring import Keyring, KeyringError
from watchword_server.settings import Settings
from watchword_server.store import migrate

_STATEMENT_TIMEOUT_SECONDS: Final = 10.0


async def examine(settings: Settings) -> list[Finding]:
    """Runs every check that can run and returns their findings in order. Changes nothing; raises nothing of its own.

    The embedded database is started if no server has it running, and stopped again. A check that depends on a failed
    one is left out: the failed one says what to do first.
    """
    findings = [Finding("settings", "warn", warning) for warning in settings.warnings]
    findings += certificate.check_certificate(settings, datetime.now(UTC))
    keyring, keyring_findings = await asyncio.to_thread(_keyring, settings)
    findings += keyring_findings
    if settings.embedded and not (settings.data_dir / POSTGRES_VERSION_FILE).exists():
        findings.append(
            Finding("database", "warn", f"there is none in {settings.data_dir} yet", "`watchword serve` makes it.")
        )
        return findings
    try:
        async with _database(settings) as (dsn, connection):
            findings += await _in_database(settings, keyring, dsn, connection)
    except EmbeddedPostgresError as error:
        findings.append(Finding("database", "fail", str(error), "Mend that and run this again."))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        findings.append(_unreachable(settings, error))
    return findings


async def _in_database(
    settings: Settings, keyring: Keyring | None, dsn: str, connection: asyncpg.Connection
) -> list[Finding]:
    findings = await postgres.check_server(connection)
    if connection.get_server_version().major < migrate.POSTGRES_MIN:
        return findings
    findings += [
        await postgres.check_clock(connection),
        *await postgres.check_durability(connection, embedded=settings.embedded),
    ]
    # Before the migrations: a role that may not read their table sees none of them.
    privileges = await stored.check_privileges(connection)
    if privileges:
        return [*findings, *privileges]
    migrations = await _migrations(dsn)
    findings.append(migrations)
    if migrations.status == "fail":
        return findings
    checks: list[Callable[[], Awaitable[list[Finding]]]] = [
        lambda: stored.check_partitions(connection, settings),
        lambda: stored.check_retention(connection, settings),
        lambda: stored.check_administrators(connection),
        lambda: replicas.check_replicas(connection),
    ]
    if keyring is not None:
        checks.insert(0, lambda: peppers.check_peppers(connection, keyring))
    for check in checks:
        try:
            findings += await check()
        except asyncpg.InsufficientPrivilegeError as error:
            findings.append(
                Finding("privileges", "fail", f"the serving role may not read what it needs: {error}", "Grant it.")
            )
    return findings


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    embedded = EmbeddedPostgres(settings.data_dir) if settings.database_url is None else None
    if embedded is not None:
        dsn = await asyncio.to_thread(embedded.start)
    else:
        assert settings.database_url is not None
        dsn = settings.database_url.get_secret_value()
    try:
        connection = await asyncpg.connect(
            dsn, timeout=settings.connect_timeout_seconds, command_timeout=_STATEMENT_TIMEOUT_SECONDS
        )
        try:
            yield dsn, connection
        finally:
            await connection.close(timeout=_STATEMENT_TIMEOUT_SECONDS)
    finally:
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)


def _unreachable(settings: Settings, error: Exception) -> Finding:
    # A driver's text may quote the DSN it was given; the server's own sentence does not.
    if isinstance(error, asyncpg.PostgresError):
        said = f"{error} (SQLSTATE {error.sqlstate})"
    elif isinstance(error, OSError) and error.strerror:
        said = error.strerror
    else:
        said = type(error).__name__
    where = "the embedded database" if settings.embedded else "the database of WATCHWORD_DATABASE_URL"
    return Finding(
        "database",
        "fail",
        f"{where} cannot be used: {said}",
        "Check that it runs, that this machine may reach it, and the user and password.",
    )


async def _migrations(dsn: str) -> Finding:
    try:
        states = await asyncio.to_thread(migrate.status, dsn)
    except migrate.MigrationError as error:
        return Finding("migrations", "fail", str(error), "Let the serving role read the table _yoyo_migrations.")
    missing = [state.name for state in states if state.applied_at is None]
    if missing:
        return Finding("migrations", "fail", f"missing: {', '.join(missing)}", "watchword db upgrade")
    return Finding("migrations", "ok", f"{len(states)} of {len(states)} applied")


def _keyring(settings: Settings) -> tuple[Keyring | None, list[Finding]]:
    """The keyring as the server would find it; never makes one."""
    path = settings.data_dir / KEYRING_FILE
    restore = "Restore the keyring from its backup: without it no stored token can be checked."
    try:
        if settings.keyring is not None:
            return Keyring.load(settings.keyring.get_secret_value()), []
        if path.stat().st_mode & 0o077:
            return None, [
                Finding("keyring", "fail", f"others can read {path}", f"chmod 600 {path}, and rotate the key.")
            ]
        return Keyring.load(path.read_text("utf-8")), []
    except FileNotFoundError:
        if (settings.data_dir / POSTGRES_VERSION_FILE).exists():
            return None, [Finding("keyring", "fail", f"{path} is missing, and there is a database", restore)]
        return None, [Finding("keyring", "warn", f"there is none in {path} yet", "`watchword serve` makes it.")]
    except (KeyringError, OSError, UnicodeDecodeError) as error:
        said = (
            error.strerror
            if isinstance(error, OSError)
            else str(error)
            if isinstance(error, KeyringError)
            else "not text"
        )
        return None, [Finding("keyring", "fail", f"cannot be used: {said}", restore)]
