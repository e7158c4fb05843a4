"""A real fail-over: the standby that is promoted begins an epoch of its own, and every server comes to it by itself."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg

from tests.databases import Postgres, programs
from tests.store.support import WAIT_SECONDS_MAX, until
from watchword_server.store import migrate
from watchword_server.store.contract import StoreError
from watchword_server.store.database import Database
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import NewReplica


class Standby:
    """A streaming copy of a primary, on a socket of its own."""

    def __init__(self, primary: Postgres, parent: Path) -> None:
        self._programs = programs()
        self._primary = primary
        self.folder = parent / "standby"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Copies, starts and at the end stops it."""
        account = self._programs.account
        self.folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self.folder.parent.chmod(0o711)
        folder, socket = str(self.folder), str(self._primary.folder)
        self._programs.run(
            *["pg_basebackup", "-D", folder, "-h", socket, "-U", "postgres"], *["-R", "-X", "stream", "-c", "fast"]
        )
        # The primary's socket lies in its folder, and the lock on it was copied.
        (self.folder / ".s.PGSQL.5432.lock").unlink()
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c max_locks_per_transaction=256"
        log = str(self.folder / "startup.log")
        self._programs.run("pg_ctl", "-D", folder, "-w", "-l", log, "-o", options, "start")
        try:
            yield
        finally:
            self._programs.run("pg_ctl", "-D", folder, "-w", "-m", "immediate", "stop")

    def promote(self) -> None:
        """Makes it a primary."""
        self._programs.run("pg_ctl", "-D", str(self.folder), "-w", "promote")


async def test_promoted_standby_begins_an_epoch_and_the_servers_find_it() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="wwp") as one,
        tempfile.TemporaryDirectory(prefix="wws") as other,
        Postgres(Path(one)) as primary,
    ):
        migrate.upgrade(primary.dsn)
        standby = Standby(primary, Path(other))
        with standby.running():
            hosts = ",".join(quote(str(folder), safe="") for folder in (primary.folder, standby.folder))
            database = await Database.open(f"postgresql://postgres@/watchword?host={hosts}", pool_size_max=2)
            fleet = PostgresFleet(database)
            heard = asyncio.ensure_future(fleet.wait_for_news(WAIT_SECONDS_MAX))
            fleet.open()
            await heard
            key, epoch = uuid4(), await fleet.epoch()
            assert await fleet.join(NewReplica(key, epoch, "one", 60))
            assert await fleet.renew(key, epoch)

            async def streamed() -> bool:
                with psycopg.connect(primary.dsn) as connection:
                    row = connection.execute(
                        "select bool_and(replay_lsn >= pg_current_wal_lsn()) from pg_stat_replication"
                    ).fetchone()
                return row == (True,)

            assert await until(streamed)
            # One that listens reconnects, and takes that for news.
            heard = asyncio.ensure_future(fleet.wait_for_news(3600))
            primary.stop()
            await asyncio.to_thread(standby.promote)

            async def renewed() -> list[bool]:
                try:
                    return [await fleet.renew(key, epoch)]
                except StoreError:
                    return []

            assert await until(renewed) == [False]
            roll = await fleet.roll()
            assert roll.epoch != epoch
            assert (roll.settled, roll.longest_lease_seconds) == (False, 60)
            # The row came along, for whoever waits to see it die.
            assert [(row.key, row.epoch, row.renewals) for row in roll.replicas] == [(key, epoch, 1)]
            assert await fleet.join(NewReplica(uuid4(), roll.epoch, "one", 60))
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await heard
            await fleet.close()
            await database.close()
