"""The embedded PostgreSQL: durable, private, stopped by the last to leave, and not put off by what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import asyncpg
import psutil
import psycopg
import pytest

from watchword_server.embedded import EmbeddedPostgres, EmbeddedPostgresError
from watchword_server.embedded.account import AccountError, let_through, refuse_foreign

GONE_SECONDS_MAX = 30

# Starts PostgreSQL, says so, and waits to be told to end.
HOLDER = """
import sys
from pathlib import Path
from watchword_server.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]))
postgres.start()
print(postgres.server_pid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """A data folder with an initialised, stopped database in it; copying it is faster than making one."""
    # Not under pytest's own folder: its path is long, and PostgreSQL's socket has to fit.
    root = Path(tempfile.mkdtemp(prefix="ww-"))
    with EmbeddedPostgres(root / "data"):
        pass
    yield root / "data"
    shutil.rmtree(root)


@pytest.fixture
def data_dir(made_once: Path) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="ww-"))
    shutil.copytree(made_once, root / "data", symlinks=True)
    for path in (root / "data" / "postgres", *(root / "data" / "postgres").rglob("*")):
        original = made_once / path.relative_to(root / "data")
        os.chown(path, original.stat().st_uid, original.stat().st_gid)
    yield root / "data"
    # Whatever a failed test left running has to go before its folder does.
    left = EmbeddedPostgres(root / "data").server_pid()
    if left is not None:
        process = psutil.Process(left)
        process.send_signal(signal.SIGQUIT)
        process.wait(GONE_SECONDS_MAX)
    shutil.rmtree(root)


def held_by_another_process(data_dir: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert int(holder.stdout.readline()) > 0
    return holder


def is_keeper(process: psutil.Process, data_dir: Path) -> bool:
    command: list[str] = process.info["cmdline"] or []
    return command[-1:] == [str(data_dir)] and any("keep()" in argument for argument in command)


def ended(holder: subprocess.Popen[str]) -> None:
    """Closes the pipes, which lets a live holder end by itself, and waits."""
    holder.communicate(timeout=GONE_SECONDS_MAX)


def test_one_dsn_serves_both_drivers_and_the_server_is_durable(data_dir: Path) -> None:
    async def durable(dsn: str) -> list[str]:
        connection = await asyncpg.connect(dsn)
        try:
            return [await connection.fetchval(f"show {name}") for name in ("fsync", "synchronous_commit")]
        finally:
            await connection.close()

    with EmbeddedPostgres(data_dir) as postgres:
        assert asyncio.run(durable(postgres.dsn)) == ["on", "on"]
        with psycopg.connect(postgres.dsn) as connection:
            assert connection.execute("select current_database()").fetchone() == ("watchword",)


def test_it_listens_nowhere_but_on_a_socket_that_only_its_owner_can_reach(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        pid = postgres.server_pid()
        assert pid is not None
        listening = [found for found in psutil.Process(pid).net_connections() if found.status == psutil.CONN_LISTEN]
        assert listening == []
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
        assert (data_dir / "postgres" / ".s.PGSQL.5432").stat().st_mode & 0o777 == 0o700
        assert data_dir.stat().st_mode & 0o066 == 0


def test_it_is_given_memory_for_what_it_holds_when_it_starts(data_dir: Path) -> None:
    def shared_buffers() -> str:
        with EmbeddedPostgres(data_dir) as postgres, psycopg.connect(postgres.dsn) as connection:
            return str(connection.execute("show shared_buffers").fetchall()[0][0])

    assert shared_buffers() == "128MB"
    # A file as a table of that size would have, without the disk that it would take.
    with (data_dir / "postgres" / "base" / "1" / "999999").open("wb") as large:
        large.truncate(200 << 20)
    found = shared_buffers()
    assert found.endswith("MB")
    assert 300 <= int(found.removesuffix("MB")) < 400


def test_data_survives_a_stop_and_a_start(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres, psycopg.connect(postgres.dsn) as connection:
        connection.execute("create table kept (value int)")
    with EmbeddedPostgres(data_dir) as postgres, psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


def test_the_last_to_leave_stops_it(data_dir: Path) -> None:
    first, second = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    first.start()
    second.start()
    pid = first.server_pid()
    assert pid is not None
    server = psutil.Process(pid)
    first.stop()
    assert second.server_pid() == pid
    second.stop()
    assert second.server_pid() is None
    server.wait(GONE_SECONDS_MAX)


def test_start_and_stop_may_be_repeated(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    postgres.stop()
    assert postgres.start() == postgres.start()
    postgres.stop()
    postgres.stop()
    postgres.start()
    assert postgres.server_pid() is not None
    postgres.stop()
    assert postgres.server_pid() is None


def test_it_is_shared_with_another_process_and_outlives_it(data_dir: Path) -> None:
    holder = held_by_another_process(data_dir)
    with EmbeddedPostgres(data_dir) as postgres:
        pid = postgres.server_pid()
        ended(holder)
        assert holder.returncode == 0
        assert postgres.server_pid() == pid
    assert postgres.server_pid() is None


def test_a_process_that_ends_without_stop_still_stops_it(data_dir: Path) -> None:
    holder = held_by_another_process(data_dir)
    ended(holder)
    assert EmbeddedPostgres(data_dir).server_pid() is None


def test_a_killed_server_does_not_leave_it_running(data_dir: Path) -> None:
    holder = held_by_another_process(data_dir)
    pid = EmbeddedPostgres(data_dir).server_pid()
    assert pid is not None
    server = psutil.Process(pid)
    holder.kill()
    ended(holder)
    server.wait(GONE_SECONDS_MAX)


def test_a_killed_server_does_not_hinder_the_next_which_may_start_at_once(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres, psycopg.connect(postgres.dsn) as connection:
        connection.execute("create table kept (value int)")
    for _ in range(3):
        holder = held_by_another_process(data_dir)
        holder.kill()
        ended(holder)
        with EmbeddedPostgres(data_dir) as postgres, psycopg.connect(postgres.dsn) as connection:
            assert connection.execute("select count(*) from kept").fetchone() == (0,)
    assert EmbeddedPostgres(data_dir).server_pid() is None


def test_the_keeper_ends_with_the_server(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        keepers = [process for process in psutil.process_iter(["cmdline"]) if is_keeper(process, data_dir)]
        assert len(keepers) == 1
    keepers[0].wait(GONE_SECONDS_MAX)


def test_ctrl_c_in_the_terminal_does_not_reach_it(data_dir: Path) -> None:
    holder = held_by_another_process(data_dir)
    with EmbeddedPostgres(data_dir) as postgres:
        pid = postgres.server_pid()
        assert pid is not None
        assert os.getsid(pid) not in {os.getsid(0), os.getsid(holder.pid)}
        assert os.getpgid(pid) != os.getpgid(holder.pid)
        os.killpg(holder.pid, signal.SIGINT)
        holder.wait(GONE_SECONDS_MAX)
        with psycopg.connect(postgres.dsn) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    ended(holder)


def test_committed_rows_survive_kill_9_of_postgres(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("create table kept (value int)")
        connection.execute("insert into kept values (7)")
        connection.commit()
        pid = postgres.server_pid()
        assert pid is not None
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        os.kill(pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=GONE_SECONDS_MAX)
    assert alive == []
    postgres.revive()
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("select value from kept").fetchone() == (7,)
    postgres.stop()


def test_a_pid_file_whose_pid_another_program_has_now_is_removed(data_dir: Path) -> None:
    lines = [str(os.getpid()), str(data_dir / "postgres"), "1700000000", "5432", str(data_dir / "postgres"), "", "1 1"]
    (data_dir / "postgres" / "postmaster.pid").write_text("\n".join([*lines, "ready"]) + "\n")
    postgres = EmbeddedPostgres(data_dir)
    assert postgres.server_pid() is None
    with postgres:
        assert postgres.server_pid() not in {None, os.getpid()}


def test_a_dead_pid_file_is_no_hindrance(data_dir: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{gone.pid}\n{data_dir}/postgres\n1\n5432\n\n\n\nready\n")
    with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.server_pid() not in {None, gone.pid}


@pytest.mark.parametrize("version", ["15", "99"])
def test_another_major_versions_folder_is_refused_with_the_steps_to_move(version: str, data_dir: Path) -> None:
    (data_dir / "postgres" / "PG_VERSION").write_text(f"{version}\n")
    with pytest.raises(EmbeddedPostgresError) as caught:
        EmbeddedPostgres(data_dir).start()
    text = str(caught.value)
    assert f"PostgreSQL {version}" in text
    assert "pg_dump" in text
    assert "pg_restore" in text
    assert "keyring.json" in text


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp(prefix="ww-"))
    try:
        (root / "data" / "postgres").mkdir(parents=True)
        (root / "data" / "postgres" / "holiday.jpg").write_text("x")
        with pytest.raises(EmbeddedPostgresError, match="is no PostgreSQL folder"):
            EmbeddedPostgres(root / "data").start()
        assert (root / "data" / "postgres" / "holiday.jpg").exists()
    finally:
        shutil.rmtree(root)


def test_a_making_that_was_interrupted_is_begun_again() -> None:
    root = Path(tempfile.mkdtemp(prefix="ww-"))
    try:
        (root / "data" / "postgres.partial" / "base").mkdir(parents=True)
        with EmbeddedPostgres(root / "data") as postgres:
            assert postgres.server_pid() is not None
        assert not (root / "data" / "postgres.partial").exists()
    finally:
        shutil.rmtree(root)


def test_a_path_too_long_for_the_socket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    data_dir = tmp_path / ("d" * 120)
    with pytest.raises(EmbeddedPostgresError, match="shorter WATCHWORD_DATA_DIR"):
        EmbeddedPostgres(data_dir).start()
    assert not data_dir.exists()


def test_a_database_that_cannot_start_says_what_its_log_says(data_dir: Path) -> None:
    (data_dir / "postgres" / "global" / "pg_control").write_bytes(b"")
    postgres = EmbeddedPostgres(data_dir)
    with pytest.raises(EmbeddedPostgresError, match="pg_control"):
        postgres.start()
    assert postgres.server_pid() is None


def test_letting_through_adds_the_right_to_pass_and_no_other(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert closed in let_through([closed / "postgres"])
    assert closed.stat().st_mode & 0o777 == 0o701
    assert let_through([closed / "postgres"]) == []


def test_nothing_warns_without_a_runtime_folder(data_dir: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from watchword_server.embedded import EmbeddedPostgres
        with EmbeddedPostgres(Path(sys.argv[1])):
            pass
    """
    # In a process of its own, with warnings as errors: what this one has imported would not warn again.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(script), str(data_dir)],
        env={name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "XDG_RUNTIME_DIR" not in done.stderr


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Its owner could take the keyring and the administrator's token out of it, whatever their modes."""
    refuse_foreign(tmp_path, os.geteuid())
    with pytest.raises(AccountError, match="WATCHWORD_DATA_DIR"):
        refuse_foreign(tmp_path, os.geteuid() + 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away, and only root would not notice")
def test_root_leaves_nothing_in_a_folder_that_somebody_made_beforehand(tmp_path: Path) -> None:
    os.chown(tmp_path, 65_534, 65_534)
    with pytest.raises(EmbeddedPostgresError, match="65534"):
        EmbeddedPostgres(tmp_path).start()
    assert list(tmp_path.iterdir()) == []
