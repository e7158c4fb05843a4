"""`watchword issue`: makes a token and shows its secret once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final
from uuid import uuid4

import typer

from watchword_server.cli.bindings import certificate_sha256
from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import (
    CertificateHashOption,
    CertificateOption,
    Kind,
    QuietOption,
    SecretFileOption,
    duration,
)
from watchword_server.cli.secret_output import secret_place
from watchword_server.cli.show_token import show_token

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import Grant

WATCHWORD: Final = "watchword"
_GRANT_FIELDS: Final = ("scopes", "subjects", "audiences")
_GRANT_HELP: Final = (
    "What the token's holder may put into tokens it issues: scopes=a.*,b.*,subjects=team/*,audiences=orders or the "
    "same as JSON. Repeat for more grants."
)


def issue(
    session: Session,
    *,
    subject: Annotated[str, typer.Option(help="Who the token stands for, such as orders-service or ada@example.org.")],
    audience: Annotated[
        list[str], typer.Option(help="A service that accepts it, by its own subject; '*' is all but watchword. Repeat.")
    ],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do: orders.read, orders.*. Repeat for more.")
    ] = None,
    grant: Annotated[list[str] | None, typer.Option(help=_GRANT_HELP)] = None,
    ttl: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="How long it lives: 90d, 12h, 30m. Default: the server's."
        ),
    ] = None,
    kind: Annotated[
        Kind, typer.Option(help="A service's, a session that ends when it is idle, or someone's own.")
    ] = Kind.SERVICE,
    owner: Annotated[str, typer.Option(help="The subject that a personal token belongs to.", show_default=False)] = "",
    idle: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="A session ends when it is not used for so long: 30m."),
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Where calls may come from: 10.1.0.0/16. Repeat for more.")
    ] = None,
    certificate: CertificateOption = None,
    certificate_hash: CertificateHashOption = "",
    tied: Annotated[
        bool, typer.Option("--tied", help="It dies with the token that you call with, or that one's successors.")
    ] = False,
    renewable: Annotated[
        bool, typer.Option("--renewable", help="So that it can rotate itself: adds the audience watchword.")
    ] = False,
    name: Annotated[str, typer.Option(help="A label for people.", show_default=False)] = "",
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Handed to verifiers with every answer. Repeat.")
    ] = None,
    request_id: Annotated[
        str,
        typer.Option(help="Makes running the command again safe for 24 h. Default: a random one.", show_default=False),
    ] = "",
    secret_file: SecretFileOption = None,
    quiet: QuietOption = False,
) -> None:
    """Make a token. Its secret is shown this once."""
    from watchword.v1.token_service_pb2 import IssueRequest

    audiences = [*audience, WATCHWORD] if renewable and WATCHWORD not in audience else audience
    request = IssueRequest(
        subject=subject,
        scopes=scope or (),
        audiences=audiences,
        grants=[parse_grant(text) for text in grant or ()],
        name=name,
        metadata=parse_metadata(metadata or []),
        request_id=request_id or f"cli-{uuid4().hex}",
        kind=kind.message,
        owner=owner,
        allowed_networks=network or (),
        certificate_sha256=certificate_sha256(certificate, certificate_hash),
        tied=tied,
    )
    if ttl is not None:
        request.ttl.FromTimedelta(ttl)
    if idle is not None:
        request.idle_timeout.FromTimedelta(idle)
    with secret_place(session, secret_file, quiet=quiet) as place:
        try:
            response = session.call(session.tokens.Issue, request)
        except CommandError as error:
            if error.exit_code is ExitCode.UNAVAILABLE:
                error.remedy += (
                    "\nIf the token was made all the same, the same command names it when run with "
                    f"--request-id {request.request_id}"
                )
            raise
        place.take(
            response,
            lambda: show_token(session.output, response.token),
            f"Revoke it: watchword revoke --id {response.token.token_id}, and issue another.",
        )


def parse_metadata(pairs: list[str]) -> dict[str, str]:
    """KEY=VALUE texts as a mapping. Raises CommandError for a pair without `=` or a key given twice."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in parsed:
            problem = "given twice" if key in parsed else "not KEY=VALUE"
            raise CommandError(f"--metadata {pair!r} is {problem}", "Write --metadata team=orders.", ExitCode.USAGE)
        parsed[key] = value
    return parsed


def parse_grant(text: str) -> Grant:
    """A grant from JSON, or from `scopes=a.*,b.*,subjects=x,audiences=y`. Raises CommandError."""
    from watchword.v1.token_service_pb2 import Grant

    fields = _json_fields(text) if text.lstrip().startswith("{") else _listed_fields(text)
    unknown = [name for name in fields if name not in _GRANT_FIELDS]
    missing = [name for name in _GRANT_FIELDS if not fields.get(name)]
    if unknown:
        raise _bad_grant(text, f"it has no field {unknown[0]!r}")
    if missing:
        raise _bad_grant(text, f"{' and '.join(missing)} must be given")
    return Grant(**fields)


def _listed_fields(text: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    current: list[str] | None = None
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if equals:
            current = fields.setdefault(name, [])
        else:
            value = name
        if current is None or not value:
            raise _bad_grant(text, f"{part!r} is not NAME=PATTERN")
        current.append(value)
    return fields


def _json_fields(text: str) -> dict[str, list[str]]:
    try:
        fields = json.loads(text)
    except ValueError:
        raise _bad_grant(text, "it is not JSON") from None
    if not isinstance(fields, dict):
        raise _bad_grant(text, "it is not an object")
    for name, patterns in fields.items():
        if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
            raise _bad_grant(text, f"{name} is not a list of strings")
    return fields


def _bad_grant(text: str, problem: str) -> CommandError:
    return CommandError(
        f"--grant {text!r}: {problem}",
        "Write --grant 'scopes=orders.*,subjects=team/*,audiences=orders', or a JSON object with these three lists.",
        ExitCode.USAGE,
    )
