"""`watchword keyring`: makes and rotates the peppers that tokens are hashed with. Shows keys only when told to.

A rotation takes three steps, because every server of a database has to know a key before any of them uses it: add a
version and distribute the file, restart; make it current and distribute, restart; drop the old one, once no live token
needs it (keyring_drop.py).
"""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchword_server.cli.connect import data_folder
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.local import server_side
from watchword_server.cli.options import OutputOption
from watchword_server.cli.output import Column, Output, OutputFormat
from watchword_server.data_folder import KEYRING_FILE

if TYPE_CHECKING:
    from watchword_server.keyring import Keyring

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", envvar="WATCHWORD_KEYRING_FILE", help="The keyring. Default: keyring.json in the data folder."
    ),
]
PrintOption = Annotated[
    bool, typer.Option("--print", help="Print the new keyring, keys and all, and leave the file as it is.")
]


def new() -> None:
    """Print a fresh keyring as JSON: a secret to put where WATCHWORD_KEYRING_FILE will find it.

    A server with the embedded database makes its own. Losing a keyring loses every token hashed with it.
    """
    with server_side("keyring new"):
        from watchword_server.keyring import Keyring

        text = Keyring.generate().dump()
    Output(OutputFormat.TABLE).line(text.rstrip("\n"))


def add_version(file: FileOption = None, print_instead: PrintOption = False) -> None:
    """Add a fresh key under a number that no key had before. The current one stays current.

    Bring the file to every server and restart them before `keyring make-current`.
    """
    with server_side("keyring add-version"):
        from watchword_server.keyring import PEPPER_BYTES

        path = keyring_path(file)
        keyring = load_keyring(path)
        version = keyring.highest + 1
        changed = replace(keyring, peppers={**keyring.peppers, version: secrets.token_bytes(PEPPER_BYTES)})
        done = f"Version {version} is in {path}; {keyring.current} is still current. "
        done += f"Bring the file to every server, restart them, then: watchword keyring make-current {version}"
        finish(path, changed, print_instead, done)


def make_current(
    version: Annotated[int, typer.Argument(help="The version to hash new tokens with.")],
    file: FileOption = None,
    print_instead: PrintOption = False,
) -> None:
    """Hash new tokens with this version. Every server must have it in its keyring already."""
    with server_side("keyring make-current"):
        path = keyring_path(file)
        keyring = load_keyring(path)
        if version not in keyring.peppers:
            raise CommandError(
                f"{path} has no version {version}",
                f"It has {', '.join(map(str, sorted(keyring.peppers)))}; `watchword keyring add-version` adds one.",
                ExitCode.NOTHING_MATCHED,
                "VERSION_UNKNOWN",
            )
        done = f"Version {version} is current in {path}. Restart the servers; keep the older versions while live "
        done += "tokens need them (`watchword doctor` tells)."
        finish(path, replace(keyring, current=version), print_instead, done)


def show_versions(file: FileOption = None, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the versions in a keyring, without their keys."""
    with server_side("keyring show-versions"):
        keyring = load_keyring(keyring_path(file))
    writer = Output(output)
    if writer.is_json:
        writer.json({"current": keyring.current, "versions": sorted(keyring.peppers)})
    else:
        rows = [(str(version), "current" if version == keyring.current else "") for version in sorted(keyring.peppers)]
        writer.table([Column("version"), Column("")], rows)


def keyring_path(file: Path | None) -> Path:
    """The file that was named, or the data folder's."""
    return file if file is not None else data_folder(os.environ) / KEYRING_FILE


def load_keyring(path: Path) -> Keyring:
    """Reads a keyring. Raises CommandError, KeyringError."""
    from watchword_server.keyring import Keyring

    try:
        return Keyring.load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"cannot read the keyring {path}: {error.strerror if isinstance(error, OSError) else 'it is not text'}",
            "Name it with --file or WATCHWORD_KEYRING_FILE; `watchword keyring new` makes a first one.",
            ExitCode.CONFIGURATION,
            "FILE_UNREADABLE",
        ) from None


def finish(path: Path, keyring: Keyring, print_instead: bool, done: str) -> None:
    """Puts a changed keyring in place and says so; or prints it and leaves the file as it is."""
    from watchword_server.private_file import replace_private_file

    output = Output(OutputFormat.TABLE)
    if print_instead:
        output.line(keyring.dump().rstrip("\n"))
        return
    with replace_private_file(path) as write:
        write(keyring.dump())
    output.note(done)
