"""`watchword db restored`: the database came from a backup, and what it forgot has to be done again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.audit_reading import Export, read_export
from watchword_server.cli.local import read_settings, running_database, server_side
from watchword_server.cli.options import OutputOption
from watchword_server.cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from watchword_server.settings import Settings
    from watchword_server.store.restored import Restored

_CONNECTIONS: Final = 2


def restored(
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What `audit export` wrote, from before the backup to the end; - is standard input. The revocations, "
            "narrowings and blocks in it are done again.",
        ),
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Run this once after restoring the database from a backup, before any server starts.

    A backup brings back every token that was revoked after it, and what was taken from others: give --audit, or they
    are live again. All verifiers forget what they have cached, and for one lease after the servers' start revocations
    stay PENDING. Doing it again does no harm. Uses WATCHWORD_MIGRATION_DATABASE_URL where it is set.
    """
    writer = Output(output)
    export = Export() if audit is None else read_export(audit)
    with server_side("db restored"):
        settings = read_settings()
        with running_database(settings, migrating=True) as dsn:
            _refuse_old_schema(dsn)
            done = asyncio.run(_restored(dsn, settings, export))
    if writer.is_json:
        writer.json(
            {
                "epoch": str(done.epoch),
                "revoked_count": done.count_ended,
                "unknown_count": done.count_unknown,
                "narrowed_count": done.count_narrowed,
                "blocked_count": done.count_blocked,
            }
        )
    else:
        writer.record(
            [
                ("epoch", str(done.epoch)),
                ("revoked again", str(done.count_ended)),
                ("not in the backup", str(done.count_unknown) if done.count_unknown else ""),
                ("narrowed again", str(done.count_narrowed) if done.count_narrowed else ""),
                ("subjects blocked again", str(done.count_blocked) if done.count_blocked else ""),
            ]
        )
    if not export.whole:
        writer.note("The export is a part: it ends where its --limit was. What was revoked beyond it is live again.")
    if audit is None:
        writer.note(
            "Nothing was revoked again: EVERY TOKEN THAT WAS REVOKED SINCE THE BACKUP IS LIVE. If there is an audit"
            " export, run this again with --audit; if not, revoke what you know of, or all of it: watchword revoke"
            " --all --issued-before (the moment of the backup)."
        )


def _refuse_old_schema(dsn: str) -> None:
    from watchword_server.store import migrate

    missing = [state.name for state in migrate.status(dsn) if state.applied_at is None]
    if missing:
        raise migrate.MigrationError(f"the database lacks {', '.join(missing)}: run `watchword db upgrade` first")


async def _restored(dsn: str, settings: Settings, export: Export) -> Restored:
    from watchword_server.store import restored as store
    from watchword_server.store.database import Database
    from watchword_server.store.partitions import ensure_partitions

    database = await Database.open(
        dsn, pool_size_max=_CONNECTIONS, connect_timeout_seconds=settings.connect_timeout_seconds
    )
    try:
        # An old backup has none for what happens now.
        ttl_max = timedelta(seconds=settings.ttl_seconds_max)
        await ensure_partitions(database, ttl_max=ttl_max, days=settings.partition_days)
        losses = [store.Loss(*loss) for loss in export.losses]
        return await store.restored(database, export.ended, losses=losses, blocked=export.blocked)
    finally:
        await database.close()
