"""The steps of docs/backup-and-restore.md, taken with the embedded PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.docs.documents import blocks
from tests.path.party import Party
from tests.servers import ServerProcess
from tests.tooling.sources import ROOT

BACKUP = "docs/backup-and-restore.md"


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, for PostgreSQL's socket.
    with tempfile.TemporaryDirectory(prefix="wwb") as made:
        yield Path(made)


def script(heading: str) -> str:
    """The document's shell block under a heading."""
    return next(block.text for block in blocks(BACKUP) if block.heading == heading and block.language == "sh")


def shell(text: str, folder: Path, data_dir: Path) -> None:
    """Runs it in `folder`, which has the virtual environment where the document has it."""
    programs = script("Backing up the embedded database").splitlines()[0]
    ended = subprocess.run(
        ["sh", "-eu", "-c", f'{programs}\nDATA_DIR="{data_dir}"\n{text}'],
        cwd=folder,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def administrator(server: ServerProcess, token: str) -> Iterator[Party]:
    with grpc.insecure_channel(server.address) as channel:
        yield Party(channel, token)


@pytest.mark.timeout(300)
def test_what_was_revoked_since_the_backup_lives_again_until_db_restored_ends_it(folder: Path) -> None:
    environment = folder / ".venv"
    environment.symlink_to(ROOT / ".venv")
    before, after = folder / "a", folder / "b"
    with ServerProcess(before, {}) as server:
        admin = (before / "admin-token").read_text().strip()
        with administrator(server, admin) as party:
            secret, leaked = (party.make(subject=subject).secret for subject in ("kept", "leaked"))
        shell(script("Backing up the embedded database").partition("share/watchword\n")[2], folder, before)
        assert server.run("revoke", "--reason", "LEAKED", stdin=leaked).returncode == 0
        with administrator(server, admin) as party:
            late = party.make(subject="late").secret
        export = script("What a restore undoes").partition(" audit-$")[0].split()[1:]
        assert server.run(*export, str(folder / "audit.jsonl")).returncode == 0
        events = (folder / "audit.jsonl").read_text()
        assert leaked[3:25] in events

    after.mkdir(mode=0o700)
    shutil.copy2(before / "keyring.json", after / "keyring.json")
    with ServerProcess(after, {}):
        shell(script("Restoring into the embedded database"), folder, after)
    with ServerProcess(after, {"WATCHWORD_TOKEN": admin}) as server:
        # Without the step that comes now.
        with administrator(server, admin) as party:
            assert [party.verdict(token) for token in (secret, leaked, late)] == ["active", "active", "inactive"]
        assert "FAIL" not in server.run("doctor").stdout
    done = ServerProcess(after, {}).run("db", "restored", "--audit", "-", "--output", "json", stdin=events)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revoked_count"] == 1
    with ServerProcess(after, {"WATCHWORD_TOKEN": admin}) as server:
        with administrator(server, admin) as party:
            assert [party.verdict(token) for token in (secret, leaked, late)] == ["active", "inactive", "inactive"]
        assert "FAIL" not in server.run("doctor").stdout
