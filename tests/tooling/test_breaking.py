"""The check for breaking changes, in clones of every shape that CI makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tooling.sources import ROOT

BUF = Path(sys.executable).parent / "buf"
PROTO = 'syntax = "proto3";\npackage shop.v1;\nmessage Order {\n  string order_id = 1;\n  string buyer = 2;\n}\n'
BROKEN = PROTO.replace("  string buyer = 2;\n", "")
EXTENDED = PROTO.replace("  string buyer = 2;\n", "  string buyer = 2;\n  string note = 3;\n")


def git(repository: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", *arguments],
        cwd=repository,
        check=True,
        capture_output=True,
        timeout=30,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository on main with the check and a first commit that has no protos."""
    path = tmp_path / "repository"
    (path / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/breaking", path / ".ci/breaking")
    shutil.copy(ROOT / "buf.yaml", path / "buf.yaml")
    git(path, "init", "--quiet", "--initial-branch=main")
    commit(path)
    return path


def write(repository: Path, text: str) -> None:
    proto = repository / "protos/shop/v1/order.proto"
    proto.parent.mkdir(parents=True, exist_ok=True)
    proto.write_text(text, encoding="utf-8")


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=work")


def check(repository: Path) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        [str(repository / ".ci/breaking"), str(BUF)], capture_output=True, text=True, timeout=60, env=environment
    )
    return done.returncode, done.stdout + done.stderr


def test_first_protos_have_nothing_to_break(repository: Path) -> None:
    write(repository, PROTO)
    assert check(repository) == (0, "refs/heads/main has no protos: nothing to compare with\n")


def test_compatible_change_passes(repository: Path) -> None:
    write(repository, PROTO)
    commit(repository)
    write(repository, EXTENDED)
    assert check(repository) == (0, "buf breaking: nothing broken since refs/heads/main\n")


def test_breaking_change_fails_and_is_named(repository: Path) -> None:
    write(repository, PROTO)
    commit(repository)
    write(repository, BROKEN)
    code, said = check(repository)
    assert code != 0
    assert "buyer" in said


def test_last_release_counts_before_main(repository: Path) -> None:
    """What main broke since the release is found as well."""
    write(repository, PROTO)
    commit(repository)
    git(repository, "tag", "v0.1.0")
    write(repository, BROKEN)
    commit(repository)
    code, said = check(repository)
    assert code != 0
    assert "buyer" in said


def test_shallow_detached_clone_without_main_says_so_and_passes(repository: Path, tmp_path: Path) -> None:
    write(repository, PROTO)
    commit(repository)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", str(clone))
    git(clone, "checkout", "--quiet", "--detach")
    git(clone, "branch", "--quiet", "--delete", "--force", "main")
    git(clone, "remote", "remove", "origin")
    assert check(clone) == (0, "No release tag and no main in this clone: nothing to compare with\n")


def test_shallow_clone_with_main_is_compared(repository: Path, tmp_path: Path) -> None:
    write(repository, PROTO)
    commit(repository)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", str(clone))
    write(clone, BROKEN)
    code, said = check(clone)
    assert code != 0
    assert "buyer" in said
