"""The PostgreSQL in the data folder: made, started or joined, revived and stopped.

It listens on a Unix socket in a folder only its owner can enter: that mode is the lock, so there is no password.
Several processes may use one folder (a server, and the command line beside it); the last to leave stops PostgreSQL.
Who is there is kept by file locks rather than by a list of pids, which `kill -9` would leave wrong; a keeper stops
PostgreSQL when the last one was killed.
"""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import psutil

from watchword_server.data_folder import KEYRING_FILE, POSTGRES_FOLDER, POSTGRES_SOCKET
from watchword_server.embedded.account import AccountError, let_through, refuse_foreign, server_account
from watchword_server.embedded.keeper import spawn_keeper
from watchword_server.embedded.presence import Presence
from watchword_server.embedded.programs import EmbeddedPostgresError, Programs, log_tail
from watchword_server.embedded.sizing import data_bytes, memory_bytes, shared_buffers_mb
from watchword_server.transport.listener import UNIX_PATH_BYTES_MAX

DATABASE: Final = "watchword"
SUPERUSER: Final = "postgres"
START_SECONDS_MAX: Final = 120
"""Includes replaying the log after a crash."""
STOP_SECONDS_MAX: Final = 60
_READY_POLL_SECONDS: Final = 0.02

_SERVER_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # An acknowledged revocation must survive the power cable, whatever a template said.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    # Daily partitions over a year of tokens, all locked by one statement at worst.
    "max_locks_per_transaction": "256",
    "jit": "off",
    # One file a weekday, each overwritten a week later: bounded without a job to rotate them.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class EmbeddedPostgres:
    """PostgreSQL in `data_dir/postgres`. Methods block for seconds at most; from asyncio use `asyncio.to_thread`.

    Usable as a context manager. `start` and `stop` may each be called again; after `stop`, `start` starts anew.
    """

    def __init__(self, data_dir: Path, *, logger: logging.Logger | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.folder = self.data_dir / POSTGRES_FOLDER
        self._log = logger or logging.getLogger(__name__)
        self._programs: Programs | None = None
        self._presence = Presence(self.data_dir)

    @property
    def dsn(self) -> str:
        """The libpq URL of the database, as asyncpg and psycopg both read it. Holds no secret."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self.folder), safe='')}"

    def start(self) -> str:
        """Makes the folder if there is none, starts PostgreSQL unless it runs already, and returns the DSN.

        Raises EmbeddedPostgresError.
        """
        if self._presence.entered:
            return self.dsn
        if len(os.fsencode(self.data_dir / POSTGRES_SOCKET)) > UNIX_PATH_BYTES_MAX:
            raise EmbeddedPostgresError(
                f"{self.data_dir} is too long for PostgreSQL's socket, whose path has at most {UNIX_PATH_BYTES_MAX}"
                " bytes: choose a shorter WATCHWORD_DATA_DIR"
            )
        try:
            self._programs = programs = self._find_programs()
            self._prepare_folders(programs)
        except (AccountError, OSError) as error:
            raise EmbeddedPostgresError(str(error)) from None
        with self._presence.alone():
            self._check_version(programs)
            if not (self.folder / "PG_VERSION").exists():
                self._create(programs)
            self._presence.enter()
            try:
                self._ensure_running(programs)
            except BaseException:
                self._presence.leave()
                raise
        # A process that ends without `stop` (an uncaught error on the way up) still stops what it started.
        atexit.register(self.stop)
        return self.dsn

    def stop(self) -> None:
        """Leaves; the last one to leave stops PostgreSQL cleanly. Does nothing if not started."""
        programs = self._programs
        if not self._presence.entered or programs is None:
            return
        atexit.unregister(self.stop)
        with self._presence.alone():
            if self._presence.leave():
                self._stop_server(programs)

    def keep(self) -> None:
        """The keeper's work: waits until nobody uses the folder, however they ended, and stops PostgreSQL."""
        programs, presence = self._find_programs(), Presence(self.data_dir, creates=False)
        while self._running() is not None:
            presence.wait_until_empty()
            with presence.alone():
                if presence.empty():
                    self._stop_server(programs)

    def revive(self) -> None:
        """Starts PostgreSQL again if it died, as whoever supervises a server would. Raises EmbeddedPostgresError."""
        programs = self._programs
        if self._presence.entered and programs is not None:
            with self._presence.alone():
                self._ensure_running(programs)

    def server_pid(self) -> int | None:
        """The process id of the running PostgreSQL in this folder, or None."""
        return self._running()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _find_programs(self) -> Programs:
        return Programs(server_account())

    def _stop_server(self, programs: Programs) -> None:
        if self._running() is None:
            return
        try:
            programs.run("pg_ctl", "-D", str(self.folder), "-w", "-t", str(STOP_SECONDS_MAX), "-m", "fast", "stop")
        except EmbeddedPostgresError:
            # Safe where it is not kind: the next start replays the log.
            programs.run("pg_ctl", "-D", str(self.folder), "-w", "-m", "immediate", "stop")

    def _prepare_folders(self, programs: Programs) -> None:
        # As root, PostgreSQL's own account has to pass through to its folder; the files beside it stay 0600.
        account = programs.account
        mode = 0o700 if account is None else 0o711
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=mode)
        refuse_foreign(self.data_dir, os.geteuid())
        self.data_dir.chmod(mode)
        if account is not None:
            for folder in let_through([self.folder, programs.folder / "postgres"]):
                self._log.warning("PostgreSQL's account %s may now pass through %s", account.pw_name, folder)

    def _check_version(self, programs: Programs) -> None:
        try:
            found = (self.folder / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            if self.folder.exists() and any(self.folder.iterdir()):
                raise EmbeddedPostgresError(
                    f"{self.folder} has files in it but is no PostgreSQL folder: move them away, or choose another"
                    " WATCHWORD_DATA_DIR"
                ) from None
            return
        ours = programs.run("postgres", "--version").split()[-1].split(".")[0]
        if found != ours:
            raise EmbeddedPostgresError(
                f"{self.folder} was made by PostgreSQL {found}, and this installation brings {ours}. To move it:\n"
                f"  1. with the installation that made it: start the server, then\n"
                f"       pg_dump --format=custom --file=watchword.dump '{self.dsn}'\n"
                f"     and stop the server\n"
                f"  2. mv {self.folder} {self.folder}.{found}\n"
                f"  3. with this installation: start the server (it makes an empty database) and, while it runs,\n"
                f"       export PATH={programs.folder}:$PATH PGHOST={self.folder} PGUSER={SUPERUSER}\n"
                f"       dropdb --force {DATABASE} && createdb {DATABASE}\n"
                f"       pg_restore --no-owner --single-transaction --exit-on-error --dbname={DATABASE}"
                f" watchword.dump\n     then start it anew\n"
                f"Keep {self.data_dir / KEYRING_FILE} where it is: without it no token in the dump is any good."
            )

    def _create(self, programs: Programs) -> None:
        """initdb aside, then rename: a folder that was interrupted half-way is never taken for a database."""
        aside = self.data_dir / "postgres.partial"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        if programs.account is not None:
            os.chown(aside, programs.account.pw_uid, programs.account.pw_gid)
        # C collation: the same order on every machine, and dumps that any PostgreSQL restores.
        programs.run(
            *["initdb", "-D", str(aside), "--username", SUPERUSER, "--encoding", "UTF8", "--no-locale"],
            *["--auth-local", "trust", "--auth-host", "reject"],
        )
        programs.run("postgres", "--single", "-D", str(aside), "postgres", stdin=f"create database {DATABASE};\n")
        if self.folder.exists():
            self.folder.rmdir()
        aside.rename(self.folder)

    def _ensure_running(self, programs: Programs) -> None:
        if self._running() is None:
            self._remove_stale_pid_file()
            settings = {
                **_SERVER_SETTINGS,
                "unix_socket_directories": str(self.folder),
                "shared_buffers": f"{shared_buffers_mb(data_bytes(self.folder), memory_bytes())}MB",
            }
            options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
            log = str(self.folder / "startup.log")
            try:
                programs.run(
                    *["pg_ctl", "-D", str(self.folder), "-w", "-t", str(START_SECONDS_MAX), "-l", log],
                    *["-o", options, "start"],
                )
            except EmbeddedPostgresError as error:
                raise EmbeddedPostgresError(f"{error}{log_tail(self.folder)}") from None
            spawn_keeper(self.data_dir)
        self._wait_until_ready()

    def _running(self) -> int | None:
        """The pid in postmaster.pid if it is a PostgreSQL of this very folder, else None."""
        pid = self._recorded_pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            # The postmaster works in its data folder: that tells it from whatever has got its pid since.
            ours = process.name() == "postgres" and os.path.samefile(process.cwd(), self.folder)
        except (psutil.Error, OSError):
            return None
        return pid if ours else None

    def _recorded_pid(self) -> int | None:
        try:
            return int((self.folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _remove_stale_pid_file(self) -> None:
        """PostgreSQL refuses to start while the pid in its file lives, even if another program has it by now.

        Removing the file is safe: should backends of the old server still be there, PostgreSQL finds their shared
        memory by the folder's inode and refuses on its own.
        """
        pid = self._recorded_pid()
        if pid is not None and psutil.pid_exists(pid):
            self._log.warning("postmaster.pid names process %d, which is not PostgreSQL: removing the file", pid)
            (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        """`pg_ctl -w` has waited already; a server that another process started may still be recovering."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while (self.folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()[-1].strip() != "ready":
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL in {self.folder} does not become ready{log_tail(self.folder)}")
            time.sleep(_READY_POLL_SECONDS)
