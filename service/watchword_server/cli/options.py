"""The options that commands share, added to each so that they work where people type them: at the end."""

from __future__ import annotations

import enum
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from watchword_server.cli.connect import ADDRESS_DEFAULT, Session, endpoint, find_credential
from watchword_server.cli.durations import parse_duration, parse_when
from watchword_server.cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import TokenKind

_CONNECTION: Final = "Connection"

OutputOption = Annotated[
    OutputFormat,
    typer.Option("--output", "-o", envvar="WATCHWORD_OUTPUT", help="table for people, json for programs."),
]
AddressOption = Annotated[
    str,
    typer.Option(envvar="WATCHWORD_ADDRESS", help="HOST:PORT or unix:/path.", rich_help_panel=_CONNECTION),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        help="Your own token, to call the server with. Else WATCHWORD_TOKEN, WATCHWORD_TOKEN_FILE, or the "
        "administrator's on the server's own machine.",
        rich_help_panel=_CONNECTION,
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        envvar="WATCHWORD_TIMEOUT_SECONDS",
        min=0.001,
        max=3600,
        metavar="SECONDS",
        help="For each call.",
        rich_help_panel=_CONNECTION,
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option("--tls", help="TLS to this machine too. Other machines always.", rich_help_panel=_CONNECTION),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="WATCHWORD_CA_FILE", help="PEM with the authorities to trust; implies TLS.", rich_help_panel=_CONNECTION
    ),
]
CertificateFileOption = Annotated[
    Path | None,
    typer.Option(envvar="WATCHWORD_CERTIFICATE_FILE", help="For mutual TLS.", rich_help_panel=_CONNECTION),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(envvar="WATCHWORD_KEY_FILE", help="For mutual TLS.", rich_help_panel=_CONNECTION),
]
ServerNameOption = Annotated[
    str | None,
    typer.Option(
        help="The name in the server's certificate, where it is not the address's.",
        rich_help_panel=_CONNECTION,
    ),
]
PlaintextOption = Annotated[
    bool,
    typer.Option(
        "--allow-plaintext-on-network-danger",
        help="Send your token unencrypted to another machine.",
        rich_help_panel=_CONNECTION,
    ),
]


def duration(text: str) -> timedelta:
    """An option's parser: a length of time."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def when(text: str) -> datetime:
    """An option's parser: an instant, or how long ago it was."""
    try:
        return parse_when(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


WAIT_DEFAULT: Final = "75s"
WaitOption = Annotated[
    timedelta,
    typer.Option(parser=duration, metavar="DURATION", help="How long to wait until every verifier knows."),
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Return once it is durable, not once every verifier knows.")
]
ReasonOption = Annotated[
    str, typer.Option(help="For the audit log: LEAKED, ROTATED, RETIRED, or words.", show_default=False)
]
ForceOption = Annotated[bool, typer.Option("--force", help="Also if no administrator is left afterwards.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before ending many.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only the secret on stdout, to pipe into a secret manager.")
]
SecretFileOption = Annotated[
    Path | None,
    typer.Option(
        "--secret-file", metavar="FILE", help="Write the secret there, mode 0600, in one step, and show it nowhere."
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="FILE", help="The client certificate that calls come with: PEM or DER."),
]
CertificateHashOption = Annotated[
    str,
    typer.Option(
        "--certificate-sha256",
        metavar="HASH",
        help="The same by the SHA-256 of its DER form, in hex or base64url (x5t#S256).",
        show_default=False,
    ),
]


class Kind(enum.StrEnum):
    """What a token is for."""

    SERVICE = "service"
    SESSION = "session"
    PERSONAL = "personal"

    @property
    def message(self) -> TokenKind.ValueType:
        """As the API has it."""
        from watchword.v1.token_service_pb2 import TokenKind

        return TokenKind.Value(f"TOKEN_KIND_{self.name}")


LimitOption = Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")]
PageTokenOption = Annotated[
    str, typer.Option(help="Go on where an earlier list ended: its next_page_token.", show_default=False)
]


@dataclass(frozen=True, slots=True)
class Connection:
    """What the options say of a server. Nothing is looked for, and nothing opened, before `session`."""

    output: Output
    session: Callable[[], Session]
    """Opens one. Raises CommandError where the options contradict one another, or no token is found."""


def _connection(
    *,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = ADDRESS_DEFAULT,
    token_file: TokenFileOption = None,
    timeout_seconds: TimeoutOption = 30.0,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    certificate_file: CertificateFileOption = None,
    key_file: KeyFileOption = None,
    server_name: ServerNameOption = None,
    allow_plaintext_on_network_danger: PlaintextOption = False,
) -> Connection:
    def session() -> Session:
        target = endpoint(
            address,
            tls=tls,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
            server_name=server_name,
            allow_plaintext_on_network_danger=allow_plaintext_on_network_danger,
        )
        credential = find_credential(token_file, os.environ, target.is_local)
        return Session(target, credential, Output(output), timeout_seconds)

    return Connection(Output(output), session)


def remote(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a command of a function whose first parameter is a Session: the options above take that one's place."""

    def run(connection: Connection, **arguments: Any) -> None:
        with connection.session() as session:
            function(session, **arguments)

    return _with_options(function, run)


def perhaps_remote(function: Callable[..., None]) -> Callable[..., None]:
    """The same with a Connection for the Session: for a command that does its work without a server too."""
    return _with_options(function, function)


def _with_options(function: Callable[..., None], run: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `function`, save its first parameter, and the shared ones. It calls `run`."""
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(inspect.signature(function).parameters.values())[1:]
    ]
    shared_hints = get_type_hints(_connection, include_extras=True)
    shared = [
        parameter.replace(annotation=shared_hints[parameter.name])
        for parameter in inspect.signature(_connection).parameters.values()
    ]
    names = {parameter.name for parameter in own}

    @functools.wraps(function)
    def command(**given: Any) -> None:
        arguments = {name: given.pop(name) for name in names}
        run(_connection(**given), **arguments)

    # Typer reads commands by their signatures.
    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]  # not declared on functions
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return command
