"""Secrets in files: private, whole, and never half in place of what was there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchword_server.private_file import PrivateFileError, create_private_file, replace_private_file

NOBODY = 65_534


def test_replaced_file_is_private_and_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    for text in ("first", "second"):
        with replace_private_file(path) as write:
            write(text)
        assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_secret_that_is_not_made_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    with pytest.raises(RuntimeError), replace_private_file(path):
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_gives_the_owner_of_the_old_file_the_new_one_and_nothing_that_he_puts_there(tmp_path: Path) -> None:
    path, roots = tmp_path / "secret", tmp_path / "roots"
    for file in (path, roots):
        file.write_text("old")
    os.chown(path, NOBODY, NOBODY)

    def swapped() -> Iterator[str]:
        (aside,) = tmp_path.glob(".secret.*")
        aside.unlink()
        aside.symlink_to(roots)
        yield "new"

    with replace_private_file(path) as write:
        write(swapped())
    assert (roots.stat().st_uid, roots.read_text()) == (0, "old")
    with replace_private_file(path) as write:
        write("new")
    os.chown(path, NOBODY, NOBODY)
    with replace_private_file(path) as write:
        write("newer")
    assert (path.stat().st_uid, path.stat().st_gid, path.read_text()) == (NOBODY, NOBODY, "newer")


def test_created_file_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    create_private_file(path, "first")
    create_private_file(path, "second")
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_no_place_is_found_out_before_a_secret_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = []
    with pytest.raises(PrivateFileError, match="cannot write to"), replace_private_file(tmp_path / "file" / "secret"):
        made.append("a secret")
    assert made == []
