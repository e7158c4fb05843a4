"""Writing what is for its owner's eyes alone into a file, in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watchword_server.cli.errors import CommandError, ExitCode


@contextmanager
def replacing(file: Path) -> Iterator[Callable[[str | Iterable[str]], None]]:
    """Gives a function that writes a text to `file`, mode 0600, in one step. That there is a place for it is known on
    entry. Raises CommandError if there is not."""
    from watchword_server.private_file import PrivateFileError, replace_private_file

    # A link stays one: what it points to is replaced.
    target = file.resolve()
    if target.exists() and not target.is_file():
        raise _unwritable(f"{file} is not a file")
    try:
        with replace_private_file(target) as write:
            yield write
    except PrivateFileError as error:
        raise _unwritable(str(error)) from None


def _unwritable(why: str) -> CommandError:
    return CommandError(
        f"{why}. Nothing was asked of the server",
        "Name a file in a folder that you may write to.",
        ExitCode.CONFIGURATION,
        "FILE_UNWRITABLE",
    )
