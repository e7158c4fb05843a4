"""What git knows: which files of a folder are its work tree's, and every blob of its history.

Nothing in a scanned repository is run, and nothing is fetched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final, NamedTuple

from watchword_server.scan.search import ReadInto

# In a hook these point at the hook's repository, whichever one is asked about.
_OF_A_HOOK: Final = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
}
_SETTINGS: Final = "WATCHWORD_"
# A repository's own configuration can name a program for this.
_HARMLESS: Final = ("-c", "core.fsmonitor=false")
_OURS: Final = {
    "GIT_NO_LAZY_FETCH": "1",
    # For a git that is older than that: to fetch is to run what the repository's configuration names.
    "GIT_ALLOW_PROTOCOL": "none",
    # History as it was stored, and not as the repository says that it is to be seen.
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": f"{os.devnull}/none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
# Not folders: those hold names only.
_SEARCHED: Final = (b"blob", b"commit", b"tag")
_NOT_A_REPOSITORY: Final = "not a git repository"


class GitError(Exception):
    """git could not be run, or refused. The text says why."""


class Blob(NamedTuple):
    """One stored version of a file (or a commit's or a tag's text), under the first path that it was found at."""

    object_id: str
    path: str
    size_bytes: int


class History(NamedTuple):
    """What there is of a repository's history, and why that is not all of it."""

    blobs: list[Blob]
    gaps: list[str]


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository, and the folder of it that was asked about."""

    folder: Path
    git_dir: Path
    has_work_tree: bool

    def files(self) -> list[str] | None:
        """Tracked and untracked files below the folder, relative to it; None if the folder itself is ignored.

        A folder among them is another repository. Raises GitError.
        """
        if not self.has_work_tree or self._ignored():
            return None
        listed = _output(self.folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
        return [os.fsdecode(name) for name in sorted(set(listed.split(b"\0"))) if name]

    def history(self) -> History:
        """All that any ref or the index reaches, folders excepted, each once. Raises GitError."""
        gaps = []
        if _output(self.folder, "rev-parse", "--is-shallow-repository").strip() == b"true":
            gaps.append("a shallow clone, in which older commits are missing: git fetch --unshallow")
        with (
            # Told what to do about the missing, git does not fetch it.
            _started(self.folder, "rev-list", "--objects", "--all", "--indexed-objects", "--missing=print") as objects,
            _started(
                self.folder,
                "cat-file",
                "--batch-check=%(objecttype) %(objectname) %(objectsize) %(rest)",
                "--buffer",
                stdin=objects.stdout,
            ) as described,
        ):
            assert described.stdout is not None
            blobs = []
            missing_count = 0
            for line in described.stdout:
                kind, _, rest = line.rstrip(b"\n").partition(b" ")
                if kind in _SEARCHED:
                    blobs.append(_blob(kind.decode("ascii"), rest))
                elif kind != b"tree":
                    # `<object id> missing`, or `?<object id> missing`.
                    missing_count += 1
        if missing_count:
            gaps.append(
                f"{missing_count} objects cannot be read, as in a partial clone: git fetch --refetch --no-filter"
            )
        return History(blobs, gaps)

    @contextmanager
    def contents(self, blobs: Sequence[Blob]) -> Iterator[Iterator[ReadInto]]:
        """The blobs' contents in their order, each to be read before the next. Raises GitError."""
        with TemporaryFile() as names:
            names.writelines(f"{blob.object_id}\n".encode() for blob in blobs)
            names.seek(0)
            with _started(self.folder, "cat-file", "--batch", "--buffer", stdin=names) as objects:
                assert objects.stdout is not None
                yield _contents(objects.stdout, blobs)

    def _ignored(self) -> bool:
        return _run(self.folder, "check-ignore", "--quiet", ".").returncode == 0


def repository_of(folder: Path) -> Repository | None:
    """The repository that the folder lies in, if any. Raises GitError."""
    if not any((parent / ".git").exists() or _is_bare(parent) for parent in (folder, *folder.resolve().parents)):
        return None
    done = _run(folder, "rev-parse", "--is-inside-work-tree", "--absolute-git-dir")
    if done.returncode != 0:
        if _NOT_A_REPOSITORY in done.stderr.decode("utf-8", "replace"):
            return None
        raise _refused(done.stderr)
    inside, _, git_dir = done.stdout.rstrip(b"\n").partition(b"\n")
    return Repository(folder, Path(os.fsdecode(git_dir)), inside == b"true")


def _is_bare(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def _blob(kind: str, rest: bytes) -> Blob:
    object_id, size, path = (*rest.split(b" ", 2), b"")[:3]
    name = object_id.decode("ascii")
    return Blob(name, os.fsdecode(path) or f"{kind} {name}", int(size))


def _contents(stream: IO[bytes], blobs: Sequence[Blob]) -> Iterator[ReadInto]:
    for blob in blobs:
        header = stream.readline().split()
        if len(header) != 3:
            raise GitError(f"git did not read the object {blob.object_id}")
        one = _Content(stream, int(header[2]))
        yield one.read_into
        one.skip()


class _Content:
    """One object's bytes in the stream of all of them."""

    def __init__(self, stream: IO[bytes], size_bytes: int) -> None:
        self._stream = stream
        self._left = size_bytes

    def read_into(self, view: memoryview) -> int:
        if not self._left:
            return 0
        count: int = self._stream.readinto(view[: self._left])  # type: ignore[attr-defined]  # a BufferedReader has it
        if not count:
            raise GitError("git ended in the middle of an object")
        self._left -= count
        return count

    def skip(self) -> None:
        """To the next object: past what nobody read, and the newline behind it."""
        self._stream.read(self._left + 1)


def _environment() -> dict[str, str]:
    # Without what is ours alone: a token, perhaps.
    kept = {
        name: value for name, value in os.environ.items() if name not in _OF_A_HOOK and not name.startswith(_SETTINGS)
    }
    return kept | _OURS


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603  # git, with a folder and options of ours
            ["git", *_HARMLESS, *arguments],  # noqa: S607  # the user's git, wherever that is
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}") from None


def _output(folder: Path, *arguments: str) -> bytes:
    done = _run(folder, *arguments)
    if done.returncode != 0:
        raise _refused(done.stderr)
    return done.stdout


@contextmanager
def _started(folder: Path, *arguments: str, stdin: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A git whose output is read while it runs. Raises GitError if it fails; ends it if the block does not finish."""
    with TemporaryFile() as said:
        try:
            process = subprocess.Popen(  # noqa: S603  # as above
                ["git", *_HARMLESS, *arguments],  # noqa: S607  # as above
                cwd=folder,
                env=_environment(),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        except OSError as error:
            raise GitError(f"git cannot be run: {error.strerror}") from None
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            said.seek(0)
            raise _refused(said.read())


def _refused(said: bytes) -> GitError:
    return GitError("git refused: " + (said.decode("utf-8", "replace").strip() or "it did not say why"))
