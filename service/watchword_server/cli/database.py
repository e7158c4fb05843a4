"""`watchword db upgrade|status`: the schema of the database and what it holds, from this machine."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from watchword_server.cli.database_sizes import sizes_json, sizes_rows
from watchword_server.cli.errors import ExitCode
from watchword_server.cli.local import read_settings, running_database, server_side
from watchword_server.cli.options import OutputOption
from watchword_server.cli.output import Column, Output, OutputFormat

if TYPE_CHECKING:
    from watchword_server.settings import Settings
    from watchword_server.store.sizes import TableSize


def upgrade(output: OutputOption = OutputFormat.TABLE) -> None:
    """Bring the schema up to date. Several at once take turns; doing it again does nothing.

    An external database (WATCHWORD_DATABASE_URL) needs this before the first start and after each update. Uses
    WATCHWORD_MIGRATION_DATABASE_URL where it is set. The embedded database is upgraded by the server itself.
    """
    writer = Output(output)
    with server_side("db upgrade"):
        from watchword_server.store import migrate

        with running_database(read_settings(), migrating=True) as dsn:
            applied = migrate.upgrade(dsn)
    if writer.is_json:
        writer.json({"applied": applied})
    elif applied:
        for name in applied:
            writer.line(f"applied {name}")
    else:
        writer.line("up to date")


def status(output: OutputOption = OutputFormat.TABLE) -> None:
    """List the migrations, and the tables with their partitions: sizes, rows, and what is due to be dropped.

    Exit code 1 if a migration is missing. Rows are estimates. The servers drop what is due within the hour.
    """
    writer = Output(output)
    with server_side("db status"):
        from watchword_server.store import migrate
        from watchword_server.store.purge import Retention

        settings = read_settings()
        with running_database(settings, migrating=True) as dsn:
            states = migrate.status(dsn)
            tables = asyncio.run(_sizes(dsn, settings))
        retention = Retention.of_days(settings.expired_tokens_kept_days, settings.audit_kept_days)
    now = datetime.now(UTC)
    if writer.is_json:
        migrations = [
            {"name": state.name, "applied_at": state.applied_at.isoformat() if state.applied_at else None}
            for state in states
        ]
        writer.json({"migrations": migrations, **sizes_json(tables, retention, now)})
    else:
        writer.table(
            [Column("migration", whole=True), Column("applied_at")],
            [
                (state.name, state.applied_at.strftime("%Y-%m-%dT%H:%M:%SZ") if state.applied_at else "missing")
                for state in states
            ],
        )
        if tables:
            writer.line("")
            titles = ("table", "rows", "size", "from", "until", "dropped")
            writer.table([Column(title, whole=True) for title in titles], sizes_rows(tables, retention, now))
    if any(state.applied_at is None for state in states):
        writer.note("Apply what is missing: watchword db upgrade")
        raise typer.Exit(ExitCode.NO)


async def _sizes(dsn: str, settings: Settings) -> list[TableSize]:
    from watchword_server.store.database import Database
    from watchword_server.store.sizes import table_sizes

    database = await Database.open(dsn, pool_size_max=1, connect_timeout_seconds=settings.connect_timeout_seconds)
    try:
        async with database.connection() as connection:
            return await table_sizes(connection)
    finally:
        await database.close()
