"""A whole scan: files first, then histories, and what could not be read."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from watchword.token import ParsedToken
from watchword_server.scan.git import GitError, Repository
from watchword_server.scan.search import Searcher
from watchword_server.scan.tree import Tree, list_files, opened


@dataclass(frozen=True, slots=True)
class Finding:
    """A token and where it stands. The token is a secret: its `repr` is its id."""

    path: str
    line: int
    token: ParsedToken
    object_id: str = ""
    """The blob, commit or tag in git's history; empty for a file."""


@dataclass(slots=True)
class Scanned:
    """What a scan found, and what it read."""

    findings: dict[Finding, None] = field(default_factory=dict)
    """In the order in which they were found, each once."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """What could not be read, or not all of it, and why."""
    files_count: int = 0
    objects_count: int = 0
    bytes_count: int = 0


class Progress(Protocol):
    """Is told how a scan goes on."""

    def begin(self, what: str, total_bytes: int) -> None:
        """The next part of the scan begins."""

    def advance(self, count_bytes: int) -> None:
        """So much more was read."""


def scan(paths: Sequence[str], searcher: Searcher, progress: Progress, *, history: bool) -> Scanned:
    """Searches the files that the paths stand for and, with `history`, that of each repository among them.

    Raises GitError where git does not list the files.
    """
    tree = list_files(paths, with_repositories=history)
    scanned = Scanned(unreadable=tree.unreadable)
    _scan_files(tree, searcher, progress, scanned)
    if history:
        for repository in tree.repositories.values():
            try:
                _scan_history(repository, searcher, progress, scanned)
            except GitError as error:
                scanned.unreadable[str(repository.git_dir)] = str(error)
    return scanned


def _scan_files(tree: Tree, searcher: Searcher, progress: Progress, scanned: Scanned) -> None:
    def advance(count_bytes: int) -> None:
        scanned.bytes_count += count_bytes
        progress.advance(count_bytes)

    progress.begin("files", sum(file.size_bytes for file in tree.files))
    for file in tree.files:
        try:
            with opened(file, advance) as read_into:
                for hit in searcher.hits(read_into):
                    scanned.findings[Finding(file.path, hit.line, hit.token)] = None
        except OSError as error:
            # Deleted since it was listed, or become a link, which is not followed.
            if file.named or error.errno not in (errno.ENOENT, errno.ELOOP):
                tree.note(file.path, error)
        else:
            scanned.files_count += 1


def _scan_history(repository: Repository, searcher: Searcher, progress: Progress, scanned: Scanned) -> None:
    known = repository.history()
    if known.gaps:
        scanned.unreadable[str(repository.git_dir)] = "; ".join(known.gaps)
    progress.begin("history", sum(blob.size_bytes for blob in known.blobs))
    with repository.contents(known.blobs) as contents:
        for blob, read_into in zip(known.blobs, contents, strict=True):
            for hit in searcher.hits(read_into):
                scanned.findings[Finding(blob.path, hit.line, hit.token, blob.object_id)] = None
            scanned.objects_count += 1
            scanned.bytes_count += blob.size_bytes
            progress.advance(blob.size_bytes)
