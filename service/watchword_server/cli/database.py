"""`watchword db upgrade|status`: the schema of the database, from this machine."""

from __future__ import annotations

import typer

from watchword_server.cli.errors import ExitCode
from watchword_server.cli.local import read_settings, running_database, server_side
from watchword_server.cli.options import OutputOption
from watchword_server.cli.output import Column, Output, OutputFormat


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
    """List the migrations and when they were applied. Exit code 1 if any is missing."""
    writer = Output(output)
    with server_side("db status"):
        from watchword_server.store import migrate

        with running_database(read_settings(), migrating=True) as dsn:
            states = migrate.status(dsn)
    if writer.is_json:
        writer.json(
            {
                "migrations": [
                    {"name": state.name, "applied_at": state.applied_at.isoformat() if state.applied_at else None}
                    for state in states
                ]
            }
        )
    else:
        writer.table(
            [Column("migration", whole=True), Column("applied_at")],
            [
                (state.name, state.applied_at.strftime("%Y-%m-%dT%H:%M:%SZ") if state.applied_at else "missing")
                for state in states
            ],
        )
    if any(state.applied_at is None for state in states):
        writer.note("Apply what is missing: watchword db upgrade")
        raise typer.Exit(ExitCode.NO)
