"""`watchword revoke`: ends tokens, and says how far the news has reached."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.durations import format_duration
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import duration, when
from watchword_server.cli.output import instant, message_json
from watchword_server.cli.secrets_input import read_secret
from watchword_server.cli.waiting import in_words, seconds_text, wait_with_line, waited_for

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import RevokeRequest, RevokeResponse

_PROMPT: Final = "Token to revoke (not shown): "
_COUNT_MAX: Final = 1_000
WAIT_DEFAULT: Final = "75s"
WaitOption = Annotated[
    timedelta,
    typer.Option(parser=duration, metavar="DURATION", help="How long to wait until no verifier accepts them any more."),
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Return once it is durable, not once every verifier knows.")
]


def revoke(
    session: Session,
    *,
    token_id: Annotated[str, typer.Option("--id", help="The token with this public half.", show_default=False)] = "",
    subject: Annotated[str, typer.Option(help="Every token of this subject.", show_default=False)] = "",
    issued_by: Annotated[
        str, typer.Option(metavar="TOKEN_ID", help="Every token issued by the one with this id.", show_default=False)
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every token there is, save your own. Needs --issued-before.")
    ] = False,
    issued_before: Annotated[
        datetime | None,
        typer.Option(parser=when, metavar="WHEN", help="With --all: those issued before 2h ago, or an instant."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where the token is. Default: standard input, or a prompt.")
    ] = None,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also everything these tokens issued, to the leaves.")
    ] = False,
    reason: Annotated[
        str, typer.Option(help="For the audit log: LEAKED, ROTATED, RETIRED, or words.", show_default=False)
    ] = "",
    wait: WaitOption = WAIT_DEFAULT,  # type: ignore[assignment]  # the parser reads defaults too
    no_wait: NoWaitOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before revoking many.")] = False,
) -> None:
    """End tokens: one by its secret (standard input) or its id, or many by subject or issuer, or all.

    Waits until no verifier accepts them any more, and says how far it got if that takes longer than --wait: then the
    exit code is 7, and they are revoked for good all the same. 4 if nothing matched. Revoking twice does no harm.
    """
    from watchword.v1.token_service_pb2 import Propagation, RevokeRequest

    if sum(map(bool, (token_id, subject, issued_by, everything, file))) > 1:
        raise CommandError(
            "more than one thing to revoke was named",
            "Give one of --id, --subject, --issued-by, --all, --file.",
            ExitCode.USAGE,
        )
    if everything != (issued_before is not None):
        raise CommandError(
            "--all and --issued-before belong together",
            "Say which are meant: --all --issued-before 2h, or with an instant.",
            ExitCode.USAGE,
        )
    check_wait(wait)
    request = RevokeRequest(reason=reason, cascade=cascade, no_wait=no_wait)
    if issued_before is not None:
        request.all.issued_before.FromDatetime(issued_before)
    elif not _named(request, token_id=token_id, subject=subject, issued_by=issued_by):
        request.token = read_secret(file, _PROMPT)
    if not yes and (cascade or subject or issued_by or everything):
        _confirm(session, request)
    started_at_seconds = time.monotonic()
    response = revoked(session, request, wait)
    _show(session, response, time.monotonic() - started_at_seconds)
    if response.revoked_count == 0:
        raise CommandError(
            f"nothing matched: no token that was not already revoked. {_of_earlier_ones(response)}",
            "Look it up: watchword tokens list --all-states (with --subject or --issued-by).",
            ExitCode.NOTHING_MATCHED,
            "NOTHING_MATCHED",
        )
    if response.propagation != Propagation.PROPAGATION_COMPLETE and not no_wait:
        tell_pending(session, response)
        raise typer.Exit(ExitCode.PENDING)


def check_wait(wait: timedelta) -> None:
    """Raises CommandError for a wait in which no server could answer."""
    if wait < timedelta(seconds=1):
        raise CommandError("--wait is under a second", "To return at once, use --no-wait.", ExitCode.USAGE)


def _named(request: RevokeRequest, **targets: str) -> bool:
    """Sets the one of the targets that was given; False if none was."""
    for name, value in targets.items():
        if value:
            setattr(request, name, value)
            return True
    return False


def revoked(session: Session, request: RevokeRequest, wait: timedelta) -> RevokeResponse:
    """The server's answer, waited for with a line on a terminal unless the request says not to. Raises CommandError."""
    try:
        # The server waits as long as the call may take, less a little for its answer.
        if request.no_wait:
            return session.call(session.tokens.Revoke, request)
        return wait_with_line(session, session.begin(session.tokens.Revoke, request, wait.total_seconds()))
    except KeyboardInterrupt:
        session.output.note(
            "Interrupted. Whether it is revoked is not known, and neither how far it has reached: run it again."
        )
        raise


def _confirm(session: Session, request: RevokeRequest) -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            "this may revoke many tokens, and there is no terminal to ask on",
            "If that is meant, add --yes.",
            ExitCode.USAGE,
            "CONFIRMATION_NEEDED",
        )
    with_descendants = " and everything issued with it, to the leaves" if request.cascade else ""
    session.output.note(f"This revokes {_what(session, request)}{with_descendants}. It cannot be undone.")
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        session.output.note("Nothing was revoked.")
        raise typer.Exit(ExitCode.NO)


def _what(session: Session, request: RevokeRequest) -> str:
    match request.WhichOneof("target"):
        case "token_id":
            return f"the token {request.token_id}"
        case "subject":
            return f"every token of {request.subject!r}{_count(session, request)}"
        case "issued_by":
            return f"every token issued by {request.issued_by}{_count(session, request)}"
        case "all":
            return f"EVERY token issued before {instant(request.all.issued_before)}, save the one you call with"
        case _:
            return "this token"


def _count(session: Session, request: RevokeRequest) -> str:
    """How many live ones there are, if the caller may know: a courtesy, which must not stand in a revocation's way."""
    from watchword.v1.token_service_pb2 import ListTokensRequest

    try:
        listed = session.call(
            session.tokens.ListTokens,
            ListTokensRequest(subject=request.subject, issued_by=request.issued_by, page_size=_COUNT_MAX),
        )
    except CommandError:
        return ""
    return f" ({'more than ' if listed.next_page_token else ''}{len(listed.tokens)} live)"


def _show(session: Session, response: RevokeResponse, elapsed_seconds: float) -> None:
    output = session.output
    if output.is_json:
        output.json(message_json(response) | {"elapsed_seconds": round(elapsed_seconds, 6)})
        return
    if response.revoked_count == 0:
        return
    out_of_reach = str(response.out_of_reach_count) if response.out_of_reach_count else ""
    output.record(
        [
            ("revoked", str(response.revoked_count)),
            ("out of your reach", out_of_reach),
            ("propagation", reached(response, elapsed_seconds)),
        ]
    )


def reached(response: RevokeResponse, elapsed_seconds: float) -> str:
    """How far the revocation has come, in words."""
    from watchword.v1.token_service_pb2 import Propagation

    took = seconds_text(elapsed_seconds)
    if response.propagation == Propagation.PROPAGATION_COMPLETE:
        return f"COMPLETE: dead everywhere after {took}, {_fleet(response)}"
    return f"PENDING after {took}: revoked for good, and dead everywhere within {_effective_in(response)}"


def _fleet(response: RevokeResponse) -> str:
    replicas, verifiers = response.replicas_count, response.verifiers_count
    return f"{replicas} replica{'s' * (replicas != 1)}, {verifiers} verifier{'s' * (verifiers != 1)}"


def _effective_in(response: RevokeResponse) -> str:
    limit = response.effective_in
    return format_duration(timedelta(seconds=limit.seconds, microseconds=limit.nanos // 1000))


def _of_earlier_ones(response: RevokeResponse) -> str:
    """A revocation that ends nothing waits all the same: it speaks for those before it."""
    from watchword.v1.token_service_pb2 import Propagation

    if response.propagation == Propagation.PROPAGATION_COMPLETE:
        return "What was revoked before is dead everywhere."
    return f"What was revoked before is dead everywhere within {_effective_in(response)}."


def tell_pending(session: Session, response: RevokeResponse) -> None:
    """Whom a revocation still waits for, and what that means, as remarks."""
    try:
        whom = waited_for(session, response.position)
    except CommandError:
        whom = []
    if whom:
        session.output.note(f"Waits for {in_words(whom)}.")
    session.output.note(
        "Until then a verifier that has not heard of it may still accept what is in its cache. Nothing more has to be"
        f" done: wait {_effective_in(response)}, or stop it. `watchword watchers --lagging` shows whom; running this"
        " again waits again."
    )
