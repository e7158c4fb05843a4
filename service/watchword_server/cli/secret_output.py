"""Where a new secret goes, once: to standard output, or into a file for its owner's eyes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import message_json
from watchword_server.cli.private_output import replacing

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from watchword.v1.token_service_pb2 import IssueResponse, RotateResponse


class SecretPlace:
    """Takes one new secret: writes it to `file` if there is one, and shows the answer with it otherwise."""

    def __init__(self, session: Session, file: Path | None, write: Callable[[str], None] | None, quiet: bool) -> None:
        self._output = session.output
        self._file = file
        self._write = write
        self._quiet = quiet

    def take(self, response: IssueResponse | RotateResponse, show_record: Callable[[], None], remedy: str) -> None:
        """Puts the answer's secret where it belongs. Raises CommandError with `remedy` if that fails."""
        try:
            if self._write is None:
                self._show(response, response.secret, show_record)
                return
            self._write(response.secret + "\n")
        except Exception as error:
            raise CommandError(
                f"the token {response.token.token_id} was made, but its secret could not be written out "
                f"({type(error).__name__})",
                f"The secret is lost. {remedy}",
                ExitCode.BROKEN_PIPE if self._write is None else ExitCode.CONFIGURATION,
                "SECRET_LOST",
            ) from None
        response.ClearField("secret")
        self._show(response, "", show_record)
        if not self._quiet:
            self._output.note(f"The secret is in {self._file}, and nowhere else.")

    def _show(self, response: Message, secret: str, show_record: Callable[[], None]) -> None:
        output = self._output
        if self._quiet:
            if secret:
                output.line(secret)
        elif output.is_json:
            output.json(message_json(response))
        else:
            show_record()
            if secret:
                output.line(f"\n{secret}")
                output.note("\nThis is the secret, shown this once and stored nowhere. Put it where it belongs now.")


@contextmanager
def secret_place(session: Session, file: Path | None, *, quiet: bool) -> Iterator[SecretPlace]:
    """Opens the place before the secret is made, so that there is one for it. Raises CommandError if there is not."""
    if file is None:
        yield SecretPlace(session, None, None, quiet)
        return
    with replacing(file) as write:
        yield SecretPlace(session, file, write, quiet)
