"""Which files a scan reads: git's list of them in a work tree, all of them elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from watchword_server.scan.git import Repository, repository_of
from watchword_server.scan.search import ReadInto

STDIN: Final = "-"
# Histories: packed and compressed, so that reading their files finds nothing.
_OF_VERSION_CONTROL: Final = {".git", ".hg", ".svn", ".jj", ".bzr", "CVS"}


class File(NamedTuple):
    """A file to read. One that was `named` is read whatever it is; the others are ordinary files."""

    path: str
    size_bytes: int
    named: bool


@dataclass(slots=True)
class Tree:
    """What a scan's paths stand for."""

    files: list[File] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Paths that could not be looked into, and why."""
    repositories: dict[Path, Repository] = field(default_factory=dict)
    """Those met on the way, by their git folders."""

    def note(self, path: str, error: OSError) -> None:
        """Remembers what could not be read."""
        self.unreadable[path] = error.strerror or type(error).__name__


def list_files(paths: Sequence[str], *, with_repositories: bool) -> Tree:
    """Everything that the paths stand for; nothing is read yet. Raises GitError.

    Of a file that is named, git is asked only for the repositories' sake.
    """
    tree = Tree()
    folders_of_files: dict[str, None] = {}
    for path in dict.fromkeys(paths):
        if path == STDIN:
            tree.files.append(File(path, 0, named=True))
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            tree.note(path, error)
            continue
        if stat.S_ISDIR(status.st_mode):
            _add_folder(tree, path)
        else:
            tree.files.append(File(path, status.st_size, named=True))
            folders_of_files[os.path.dirname(path) or "."] = None
    if with_repositories:
        for folder in folders_of_files:
            _repository(tree, folder)
    return tree


def _repository(tree: Tree, folder: str) -> Repository | None:
    repository = repository_of(Path(folder))
    if repository is not None:
        tree.repositories.setdefault(repository.git_dir, repository)
    return repository


def _add_folder(tree: Tree, folder: str) -> None:
    repository = _repository(tree, folder)
    names = None if repository is None else repository.files()
    if names is None:
        _walk(tree, folder)
        return
    real: dict[str, bool] = {}
    for name in names:
        if not _is_within(folder, name, real):
            continue
        path = os.path.normpath(os.path.join(folder, name))
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            # Tracked, and deleted since.
            continue
        except OSError as error:
            tree.note(path, error)
            continue
        if stat.S_ISDIR(status.st_mode):
            # A submodule, or a repository inside this one, which lists its files itself.
            (_add_folder if os.path.lexists(os.path.join(path, ".git")) else _walk)(tree, path)
        elif stat.S_ISREG(status.st_mode):
            tree.files.append(File(path, status.st_size, named=False))


def _is_within(folder: str, name: str, real: dict[str, bool]) -> bool:
    """Whether a name lies below the folder, with no link on the way: an index can name anything. `real` keeps what was
    seen of the folders between."""
    *between, last = name.rstrip("/").split("/")
    if last == ".." or ".." in between:
        return False
    at = folder
    for part in between:
        at = f"{at}/{part}"
        is_real = real.get(at)
        if is_real is None:
            is_real = real[at] = bool(part) and not os.path.islink(at)
        if not is_real:
            return False
    return True


def _walk(tree: Tree, folder: str) -> None:
    """All files below the folder. Links are not followed: what they lead to is elsewhere, or found on its own."""
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        try:
            with os.scandir(at) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    _add_entry(tree, entry, waiting)
        except OSError as error:
            tree.note(at, error)


def _add_entry(tree: Tree, entry: os.DirEntry[str], waiting: list[str]) -> None:
    path = os.path.normpath(entry.path)
    try:
        if entry.is_dir(follow_symlinks=False):
            if os.path.lexists(os.path.join(path, ".git")):
                _add_folder(tree, path)
            elif entry.name not in _OF_VERSION_CONTROL:
                waiting.append(path)
        elif entry.is_file(follow_symlinks=False):
            tree.files.append(File(path, entry.stat(follow_symlinks=False).st_size, named=False))
    except FileNotFoundError:
        return
    except OSError as error:
        tree.note(path, error)


@contextmanager
def opened(file: File, progress: Callable[[int], None]) -> Iterator[ReadInto]:
    """The file's bytes. Tells `progress` of each step, in bytes. Raises OSError."""
    if file.path == STDIN:
        descriptor = os.dup(0)
    else:
        # Between the listing and now a file may have become a link or a pipe: neither is followed or waited for.
        careful = 0 if file.named else os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | careful)

    def read_into(view: memoryview) -> int:
        count = os.readv(descriptor, [view])
        progress(count)
        return count

    try:
        yield read_into
    finally:
        os.close(descriptor)
