"""In a git work tree `watchword scan` reads what git knows, and with --history what it ever knew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.test_scan import token, token_id

Found = Callable[..., list[tuple[str, int, str]]]


def git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {f"GIT_{role}_{part}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    return subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *arguments],
        cwd=folder,
        env={**environment, **who, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def commit(folder: Path, message: str = "m") -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    made.mkdir()
    git(made, "init", "--quiet")
    return made


@pytest.fixture
def found(offline: CommandLine) -> Found:
    """Runs a scan that has to succeed; what it found, without the repository's path before it."""

    def run(folder: Path, *arguments: str, **environment: str) -> list[tuple[str, int, str]]:
        ended = offline("scan", str(folder), "-o", "json", *arguments, **environment)
        answer: dict[str, Any] = json.loads(ended.stdout)
        assert ended.returncode == bool(answer["findings"]), ended.stderr
        return [(one["path"].removeprefix(f"{folder}/"), one["line"], one["token_id"]) for one in answer["findings"]]

    return run


def test_tracked_and_untracked_files_are_read_and_ignored_ones_are_not(repository: Path, found: Found) -> None:
    tracked, untracked, ignored = token(), token(), token()
    (repository / ".gitignore").write_text("*.env\nbuild/\n")
    (repository / "tracked ü\n.env").write_bytes(tracked.text)
    git(repository, "add", "--force", ".")
    git(repository, "commit", "--quiet", "--message", "m")
    (repository / "untracked").write_bytes(untracked.text)
    (repository / "ignored.env").write_bytes(ignored.text)
    (repository / "build").mkdir()
    (repository / "build" / "x").write_bytes(ignored.text)
    (repository / ".gitignore").write_text("*.env\nbuild/\nignored.env\n")
    assert found(repository) == [("tracked ü\n.env", 1, token_id(tracked)), ("untracked", 1, token_id(untracked))]
    # What is named is read: an ignored folder is no empty one.
    assert found(repository / "build") == [("x", 1, token_id(ignored))]
    assert found(repository / "ignored.env") == [(str(repository / "ignored.env"), 1, token_id(ignored))]


def test_only_the_folder_that_was_named_is_read(repository: Path, found: Found) -> None:
    one = token()
    (repository / "a").mkdir()
    (repository / "b").mkdir()
    (repository / "a" / "x").write_bytes(one.text)
    (repository / "b" / "y").write_bytes(token().text)
    commit(repository)
    assert found(repository / "a") == [("x", 1, token_id(one))]


def test_a_file_that_was_deleted_or_became_a_link_stops_no_scan(repository: Path, found: Found) -> None:
    for name in ("gone", "link"):
        (repository / name).write_text("x")
    commit(repository)
    for name in ("gone", "link"):
        (repository / name).unlink()
    (repository / "link").symlink_to("/etc/passwd")
    assert found(repository) == []


def test_history_finds_what_was_deleted_on_every_branch_each_blob_once(repository: Path, found: Found) -> None:
    deleted, elsewhere = token(), token()
    (repository / "deep").mkdir()
    (repository / "deep" / "settings ü.py").write_bytes(b"\n\n" + deleted.text)
    commit(repository)
    (repository / "deep" / "settings ü.py").rename(repository / "renamed.py")
    commit(repository)
    (repository / "renamed.py").unlink()
    commit(repository)
    git(repository, "checkout", "--quiet", "-b", "side")
    (repository / "other").write_bytes(elsewhere.text)
    commit(repository)
    git(repository, "checkout", "--quiet", "main")
    assert found(repository) == []
    history = found(repository, "--history")
    assert {(line, one) for _, line, one in history} == {(3, token_id(deleted)), (1, token_id(elsewhere))}
    assert len(history) == 2
    assert {path for path, _, _ in history} <= {"deep/settings ü.py", "renamed.py", "other"}


def test_history_has_the_index_stashes_and_what_commits_and_tags_say(repository: Path, found: Found) -> None:
    staged, stashed, said, tagged = (token() for _ in range(4))
    (repository / "x").write_text("x")
    commit(repository, f"uses {said.text.decode()}")
    git(repository, "tag", "--annotate", "v1", "--message", tagged.text.decode())
    (repository / "x").write_bytes(stashed.text)
    git(repository, "stash", "--quiet")
    (repository / "y").write_bytes(staged.text)
    git(repository, "add", "y")
    (repository / "y").unlink()
    expected = {token_id(one) for one in (staged, stashed, said, tagged)}
    assert {one for _, _, one in found(repository, "--history")} == expected


def test_a_repository_without_a_commit_has_the_index_for_its_history(repository: Path, found: Found) -> None:
    assert found(repository, "--history") == []
    one = token()
    (repository / "x").write_bytes(one.text)
    git(repository, "add", "x")
    (repository / "x").unlink()
    assert found(repository, "--history") == [("x", 1, token_id(one))]


def test_large_blobs_in_packs_are_read(repository: Path, found: Found) -> None:
    tokens = [token() for _ in range(30)]
    for at, one in enumerate(tokens):
        (repository / "large").write_bytes(os.urandom(100_000 * (at % 3)) + b"\n" + one.text + b"." * 1_500_000)
        commit(repository)
    git(repository, "gc", "--quiet")
    (repository / "large").unlink()
    assert {one for _, _, one in found(repository, "--history")} == {token_id(one) for one in tokens}


def test_submodules_and_repositories_inside_are_read(repository: Path, tmp_path: Path, found: Found) -> None:
    library, inner = tmp_path / "library", repository / "inner"
    below, nested, gone = token(), token(), token()
    for folder, one in ((library, below), (inner, nested)):
        folder.mkdir()
        git(folder, "init", "--quiet")
        (folder / "x").write_bytes(one.text)
        commit(folder)
    (library / "y").write_bytes(gone.text)
    commit(library)
    (library / "y").unlink()
    commit(library)
    git(repository, "submodule", "--quiet", "add", str(library), "sub")
    assert set(found(repository)) == {("sub/x", 1, token_id(below)), ("inner/x", 1, token_id(nested))}
    assert token_id(gone) in {one for _, _, one in found(repository, "--history")}
    git(repository, "submodule", "--quiet", "deinit", "--force", "sub")
    assert set(found(repository)) == {("inner/x", 1, token_id(nested))}


def test_a_folder_of_repositories_is_read_repository_by_repository(repository: Path, found: Found) -> None:
    one = token()
    (repository / ".gitignore").write_text("ignored\n")
    (repository / "ignored").write_bytes(token().text)
    (repository.parent / "beside").write_bytes(one.text)
    assert found(repository.parent) == [("beside", 1, token_id(one))]


def test_the_history_of_a_named_file_is_that_of_its_repository(repository: Path, found: Found) -> None:
    gone = token()
    (repository / "x").write_bytes(gone.text)
    commit(repository)
    (repository / "x").write_text("clean")
    assert found(repository / "x", "--history") == [("x", 1, token_id(gone))]


def test_a_bare_repository_has_history(repository: Path, tmp_path: Path, found: Found) -> None:
    one = token()
    (repository / "x").write_bytes(one.text)
    commit(repository)
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "bare")
    assert found(tmp_path / "bare", "--history") == [("x", 1, token_id(one))]


def test_a_shallow_clone_is_said_to_be_incomplete(repository: Path, tmp_path: Path, offline: CommandLine) -> None:
    for text in "ab":
        (repository / "x").write_text(text)
        commit(repository)
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository}", "clone")
    ended = offline("scan", "--history", str(tmp_path / "clone"))
    assert ended.returncode == 78
    assert "git fetch --unshallow" in ended.stderr


def test_a_partial_clone_is_said_to_be_incomplete_and_nothing_is_fetched(
    repository: Path, tmp_path: Path, offline: CommandLine
) -> None:
    for text in "ab":
        (repository / "x").write_text(text)
        commit(repository)
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{repository}", "clone")
    for _ in range(2):
        ended = offline("scan", "--history", str(tmp_path / "clone"))
        assert ended.returncode == 78
        assert "1 objects cannot be read" in ended.stderr


def test_nothing_that_a_repository_configures_is_run(repository: Path, found: Found, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    program.chmod(0o755)
    (repository / "x").write_text("x")
    commit(repository)
    git(repository, "config", "core.fsmonitor", str(program))
    (repository / ".gitattributes").write_text("* filter=evil diff=evil\n")
    git(repository, "config", "filter.evil.clean", str(program))
    git(repository, "config", "filter.evil.smudge", str(program))
    git(repository, "config", "diff.evil.textconv", str(program))
    assert found(repository, "--history") == []
    assert not (tmp_path / "was-run").exists()


def test_a_git_that_fetches_what_is_missing_gets_nowhere(
    repository: Path, tmp_path: Path, offline: CommandLine
) -> None:
    # Where a clone gets its objects from is its own configuration, and so is the program that is asked for them.
    (repository / "d").mkdir()
    (repository / "d" / ".gitignore").write_text("*.x\n")
    commit(repository)
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", "--no-checkout", f"file://{repository}", "clone")
    clone, old = tmp_path / "clone", tmp_path / "old"
    git(clone, "read-tree", "HEAD")
    git(clone, "update-index", "--skip-worktree", "d/.gitignore")
    (clone / "d").mkdir()
    (clone / "d" / "untracked").write_text("x")
    old.mkdir()
    for path, script in (
        (tmp_path / "program", f"touch {tmp_path}/was-run\n"),
        # Before 2.45, and in what was mended of older ones, nothing knows that variable.
        (old / "git", f'unset GIT_NO_LAZY_FETCH\nexec {shutil.which("git")} "$@"\n'),
    ):
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
    git(clone, "config", "remote.origin.uploadpack", str(tmp_path / "program"))
    git(clone, "config", "protocol.allow", "always")
    ended = offline("scan", "--history", str(clone), PATH=f"{old}:{os.environ['PATH']}")
    assert ended.returncode == 78
    assert not (tmp_path / "was-run").exists()


def test_an_index_names_nothing_outside_the_folder(repository: Path, tmp_path: Path, found: Found) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(token().text)
    for name in ("link", "up/outside", "up/stays"):
        (repository / name).mkdir(parents=True)
        (repository / name / "x").write_text("x")
    commit(repository)
    shutil.rmtree(repository / "link")
    (repository / "link").symlink_to(outside)
    index = repository / ".git" / "index"
    content = index.read_bytes()[:-20].replace(b"up/outside/x", b"../outside/x")
    index.write_bytes(content + hashlib.sha1(content, usedforsecurity=False).digest())
    assert "../outside/x" in git(repository, "ls-files")
    assert found(repository) == []
    within = token()
    (repository / "up" / "stays" / "x").write_bytes(within.text)
    assert found(repository) == [("up/stays/x", 1, token_id(within))]


def test_history_that_was_replaced_is_read_as_it_was(repository: Path, found: Found) -> None:
    replaced, cut_off = token(), token()
    for content in (cut_off.text, replaced.text, b"clean"):
        (repository / "x").write_bytes(content)
        commit(repository)
    git(repository, "replace", "HEAD~1:x", "HEAD:x")
    (repository / ".git" / "info" / "grafts").write_text(git(repository, "rev-parse", "HEAD~1") + "\n")
    assert {one for _, _, one in found(repository, "--history")} == {token_id(replaced), token_id(cut_off)}


def test_git_is_not_told_the_callers_token(repository: Path, tmp_path: Path, found: Found) -> None:
    telling = tmp_path / "telling"
    telling.mkdir()
    (telling / "git").write_text(f'#!/bin/sh\nenv >> {tmp_path}/told\nexec {shutil.which("git")} "$@"\n')
    (telling / "git").chmod(0o755)
    secret = token().text.decode()
    path = f"{telling}:{os.environ['PATH']}"
    assert found(repository, "--history", PATH=path, WATCHWORD_TOKEN=secret) == []
    told = (tmp_path / "told").read_text()
    assert "PATH=" in told
    assert secret not in told


def test_in_a_hook_the_folder_that_was_named_counts(repository: Path, tmp_path: Path, found: Found) -> None:
    one = token()
    (repository / "x").write_bytes(one.text)
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    of_other = {"GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git" / "index")}
    assert found(repository, **of_other) == [("x", 1, token_id(one))]


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_broken_repository_is_no_clean_scan(repository: Path, offline: CommandLine, damage: str) -> None:
    one = token()
    (repository / "x").write_bytes(one.text)
    commit(repository)
    object_id = git(repository, "rev-parse", "HEAD:x")
    stored = repository / ".git" / "objects" / object_id[:2] / object_id[2:]
    stored.unlink()
    if damage == "garbage":
        stored.write_bytes(b"garbage")
    ended = offline("scan", "--history", str(repository))
    # What the files hold is told all the same.
    assert (ended.returncode, token_id(one) in ended.stdout) == (1, True)
    assert f"Not read: {repository}/.git: " in ended.stderr
    (repository / "x").unlink()
    assert offline("scan", "--history", str(repository)).returncode == 78


def test_without_git_a_work_tree_is_an_error_and_other_folders_are_read(
    repository: Path, tmp_path: Path, offline: CommandLine
) -> None:
    (repository / "x").write_bytes(token().text)
    ended = offline("scan", str(repository), PATH=str(tmp_path))
    assert ended.returncode == 78
    assert "git cannot be run" in ended.stderr
    # A file that is named is read without asking git, unless for its history.
    assert offline("scan", str(repository / "x"), PATH=str(tmp_path)).returncode == 1
    assert offline("scan", "--history", str(repository / "x"), PATH=str(tmp_path)).returncode == 78
    (tmp_path / "plain").mkdir()
    assert offline("scan", str(tmp_path / "plain"), PATH=str(tmp_path)).returncode == 0
