"""Reading secrets: from standard input, a prompt that does not echo, or a file. Never from arguments.

Arguments stand in the shell's history and, while the command runs, in the process list of every user of the machine.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchword.token import BODY_LENGTH, ID_LENGTH, MalformedTokenError, parse_token, token_pattern
from watchword_server.cli.errors import CommandError, ExitCode

_SECRET_BYTES_MAX: Final = 4096
# Any deployment's prefix, not only this one's; the checksum then tells tokens from words.
_ANY_PREFIX: Final = re.compile(r"(?<![0-9A-Za-z])([a-z][a-z0-9]{0,14}_)[0-9A-Za-z]{" + str(BODY_LENGTH) + "}")


def refuse_tokens_in(arguments: Sequence[str]) -> None:
    """Raises CommandError if an argument holds a token. Its message names the public half only."""
    default = token_pattern()
    for argument in arguments:
        found = default.search(argument) or next(filter(_has_checksum, _ANY_PREFIX.finditer(argument)), None)
        if found is None:
            continue
        text = found.group()
        token_id = text[text.index("_") + 1 :][:ID_LENGTH]
        raise CommandError(
            "a token stands on the command line: it is now in your shell's history, and other users of this machine "
            "could read it. Nothing was sent.",
            f"Revoke it: watchword revoke --id {token_id} --reason LEAKED\n"
            "Pass tokens on standard input, where they leave no trace: watchword validate < token-file, "
            "or run the command without one and paste it at the prompt.",
            ExitCode.USAGE,
            "TOKEN_ON_COMMAND_LINE",
        )


def _has_checksum(found: re.Match[str]) -> bool:
    try:
        parse_token(found.group(), found.group(1))
    except MalformedTokenError:
        return False
    return True


def read_secret(file: Path | None, prompt: str) -> str:
    """One secret from `file` (`-` is standard input), from standard input, or, on a terminal, typed without echo.

    Raises CommandError if there is none, more than one line, or something that cannot be a token.
    """
    if file is not None and str(file) != "-":
        return read_secret_file(file, str(file))
    if sys.stdin.isatty():
        from getpass import getpass

        return _one_line(getpass(prompt, stream=sys.stderr).encode("utf-8", "replace"), "the prompt")
    return _one_line(sys.stdin.buffer.read(_SECRET_BYTES_MAX + 1), "standard input")


def read_secret_file(file: Path, source: str) -> str:
    """The secret in `file`, without the newline around it. `source` is how messages call the file."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise CommandError(
            f"cannot read the token from {source}: {error.strerror}",
            "Check the path and who may read it.",
            ExitCode.CONFIGURATION,
            "FILE_UNREADABLE",
        ) from None
    return _one_line(raw, source)


def _one_line(raw: bytes, source: str) -> str:
    text = raw.decode("utf-8", "replace").strip()
    if not text:
        problem = "is empty"
    elif len(raw) > _SECRET_BYTES_MAX or len(text.split()) > 1:
        problem = "holds more than one token"
    elif not text.isascii() or not text.isprintable():
        problem = "does not hold a token: it has characters that no token has"
    else:
        return text
    raise CommandError(
        f"{source} {problem}",
        "Give the token alone, on one line, without the word Bearer.",
        ExitCode.USAGE,
        "TOKEN_UNREADABLE",
    )
