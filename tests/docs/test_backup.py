"""The steps of docs/backup-and-restore.md, taken with the embedded PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.documents import blocks
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


def test_what_was_revoked_since_the_backup_lives_again_until_db_restored_ends_it(folder: Path) -> None:
    environment = folder / ".venv"
    environment.symlink_to(ROOT / ".venv")
    before, after = folder / "a", folder / "b"
    with ServerProcess(before, {}) as server:
        admin = (before / "admin-token").read_text().strip()
        secret = _issue(server, "kept")
        leaked = _issue(server, "leaked")
        shell(script("Backing up the embedded database").partition("share/watchword\n")[2], folder, before)
        assert server.run("revoke", "--reason", "LEAKED", stdin=leaked).returncode == 0
        late = _issue(server, "late")
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
        assert [_active(server, token) for token in (secret, leaked, late)] == [True, True, False]
        assert "FAIL" not in server.run("doctor").stdout
    done = ServerProcess(after, {}).run("db", "restored", "--audit", "-", "--output", "json", stdin=events)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revoked_count"] == 1
    with ServerProcess(after, {"WATCHWORD_TOKEN": admin}) as server:
        assert [_active(server, token) for token in (secret, leaked, late)] == [True, False, False]
        assert "FAIL" not in server.run("doctor").stdout


def _issue(server: ServerProcess, subject: str) -> str:
    issued = server.run("issue", "--subject", subject, "--audience", "watchword", "--quiet")
    assert issued.returncode == 0, issued.stderr
    return issued.stdout.strip()


def _active(server: ServerProcess, token: str) -> bool:
    judged = server.run("validate", "--as", "watchword", stdin=token)
    assert judged.returncode in (0, 1), judged.stderr
    return judged.returncode == 0
