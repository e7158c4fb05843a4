"""`watchword revoke`: ends tokens, and says how far the news has reached."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.confirm import confirm, refuse_without_terminal
from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import (
    WAIT_DEFAULT,
    ForceOption,
    NoWaitOption,
    ReasonOption,
    WaitOption,
    YesOption,
    when,
)
from watchword_server.cli.output import instant
from watchword_server.cli.propagation import (
    WAITS_AGAIN,
    call_and_wait,
    check_wait,
    dead,
    effective_in,
    end_unless_complete,
    is_complete,
    waited_json,
)
from watchword_server.cli.revoke_preview import nothing_matched, show_preview
from watchword_server.cli.secrets_input import read_secret

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import RevokeRequest, RevokeResponse

_PROMPT: Final = "Token to revoke (not shown): "
_COUNT_MAX: Final = 1_000


def revoke(
    session: Session,
    *,
    token_id: Annotated[str, typer.Option("--id", help="The token with this public half.", show_default=False)] = "",
    subject: Annotated[
        str, typer.Option(help="Every token of this subject, and what it owns.", show_default=False)
    ] = "",
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
    own: Annotated[bool, typer.Option("--self", help="The token that you call with. Needs no scope.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where the token is. Default: standard input, or a prompt.")
    ] = None,
    cascade: Annotated[
        bool,
        typer.Option("--cascade", help="Also everything these tokens issued, and their successors, to the leaves."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would end.")] = False,
    force: ForceOption = False,
    reason: ReasonOption = "",
    wait: WaitOption = WAIT_DEFAULT,  # type: ignore[assignment]  # the parser reads defaults too
    no_wait: NoWaitOption = False,
    yes: YesOption = False,
) -> None:
    """End tokens: one by its secret (standard input) or its id, or many by subject or issuer, or all.

    Waits until no verifier accepts them any more, and says how far it got if that takes longer than --wait: then the
    exit code is 7, and they are revoked for good all the same. 4 if nothing matched. Revoking twice does no harm.
    """
    from watchword.v1.token_service_pb2 import RevokeRequest

    if sum(map(bool, (token_id, subject, issued_by, everything, own, file))) > 1:
        raise CommandError(
            "more than one thing to revoke was named",
            "Give one of --id, --subject, --issued-by, --all, --self, --file.",
            ExitCode.USAGE,
        )
    if everything != (issued_before is not None):
        raise CommandError(
            "--all and --issued-before belong together",
            "Say which are meant: --all --issued-before 2h, or with an instant.",
            ExitCode.USAGE,
        )
    check_wait(wait)
    many = bool(cascade or subject or issued_by or everything)
    request = RevokeRequest(reason=reason, cascade=cascade, no_wait=no_wait, dry_run=dry_run, force=force)
    if issued_before is not None:
        request.all.issued_before.FromDatetime(issued_before)
    elif own:
        request.token = session.own_secret
    elif not _named(request, token_id=token_id, subject=subject, issued_by=issued_by):
        request.token = read_secret(file, _PROMPT)
    if dry_run:
        show_preview(session, session.call(session.tokens.Revoke, request))
        return
    if many and not yes:
        refuse_without_terminal()
        confirm(session.output, _what(session, request))
    response, elapsed_seconds = revoked(session, request, wait)
    _show(session, response, elapsed_seconds)
    tell_successor(session, response)
    if response.revoked_count == 0:
        raise nothing_matched(_of_earlier_ones(response))
    if not no_wait:
        end_unless_complete(session, response, WAITS_AGAIN)


def _named(request: RevokeRequest, **targets: str) -> bool:
    """Sets the one of the targets that was given; False if none was."""
    for name, value in targets.items():
        if value:
            setattr(request, name, value)
            return True
    return False


def revoked(session: Session, request: RevokeRequest, wait: timedelta) -> tuple[RevokeResponse, float]:
    """The server's answer and how many seconds it took, waited for unless the request says not to. Raises
    CommandError."""
    return call_and_wait(session, session.tokens.Revoke, request, None if request.no_wait else wait, "Revoking")


def _what(session: Session, request: RevokeRequest) -> str:
    with_descendants = " and everything issued with it, to the leaves" if request.cascade else ""
    return _target(session, request) + with_descendants


def _target(session: Session, request: RevokeRequest) -> str:
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
        output.json(waited_json(response, elapsed_seconds))
        return
    if response.revoked_count == 0:
        return
    out_of_reach = str(response.out_of_reach_count) if response.out_of_reach_count else ""
    output.record(
        [
            ("revoked", str(response.revoked_count)),
            ("out of your reach", out_of_reach),
            ("propagation", dead(response, elapsed_seconds, _fleet(response))),
        ]
    )


def _fleet(response: RevokeResponse) -> str:
    replicas, verifiers = response.replicas_count, response.verifiers_count
    return f"{replicas} replica{'s' * (replicas != 1)}, {verifiers} verifier{'s' * (verifiers != 1)}"


def tell_successor(session: Session, response: RevokeResponse) -> None:
    """A remark where the token that was named lives on in its successor: whoever has that has all its rights."""
    if successor_id := response.live_successor_id:
        session.output.note(
            f"Its successor {successor_id} was left alone, and has the same rights. The same command with --cascade "
            "takes it too, and what both issued."
        )


def _of_earlier_ones(response: RevokeResponse) -> str:
    """A revocation that ends nothing waits all the same: it speaks for those before it."""
    if is_complete(response):
        return "What was revoked before is dead everywhere."
    return f"What was revoked before is dead everywhere within {effective_in(response)}."
