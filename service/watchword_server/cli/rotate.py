"""`watchword rotate`: makes a token's successor, shows its secret once, and says who still uses the old one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import WAIT_DEFAULT, QuietOption, SecretFileOption, WaitOption, duration
from watchword_server.cli.output import instant_and_distance
from watchword_server.cli.propagation import call_and_wait, check_wait, dead, end_unless_complete
from watchword_server.cli.retries import insisting, is_worth_another
from watchword_server.cli.secret_output import secret_place
from watchword_server.cli.show_token import ends_at, show_token, show_users

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import RotateRequest, RotateResponse


def rotate(
    session: Session,
    *,
    token_id: Annotated[
        str, typer.Argument(help="The token to rotate. Without it, the one that you call with.", show_default=False)
    ] = "",
    ttl: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="How long the successor lives. Default: as long as the old one was.",
        ),
    ] = None,
    grace: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="How long the old one lives on. Default: the server's, an hour."
        ),
    ] = None,
    end_now: Annotated[bool, typer.Option("--end-now", help="End the old one at once, everywhere: no grace.")] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write the secret over your own token file, mode 0600, in one step.")
    ] = False,
    secret_file: SecretFileOption = None,
    quiet: QuietOption = False,
    request_id: Annotated[
        str,
        typer.Option(
            help="Makes running the command again safe for 24 h: it replaces the successor whose secret was lost.",
            show_default=False,
        ),
    ] = "",
    wait: WaitOption = WAIT_DEFAULT,  # type: ignore[assignment]  # the parser reads defaults too
) -> None:
    """Make a token's successor, with the same rights. Its secret is shown this once.

    The old one lives on for a grace period, or until the successor is in use and it has been silent for a while. With
    --end-now it waits as `revoke` does: exit code 7 while some verifier may still accept it. 6 if it has a successor.
    """
    from watchword.v1.token_service_pb2 import RotateRequest

    if end_now and grace is not None:
        raise CommandError("--end-now and --grace exclude each other", "Decide for one.", ExitCode.USAGE)
    check_wait(wait)
    request = RotateRequest(token_id=token_id, request_id=request_id or f"cli-{uuid4().hex}")
    if ttl is not None:
        request.ttl.FromTimedelta(ttl)
    if end_now or grace is not None:
        request.grace.FromTimedelta(grace or timedelta())
    waits = request.HasField("grace") and request.grace.ToTimedelta() == timedelta()
    with secret_place(session, _file(session, token_id, secret_file, in_place), quiet=quiet) as place:
        response, elapsed_seconds = _rotated(session, request, wait if waits else None)
        place.take(response, lambda: show_token(session.output, response.token), _remedy(request, response))
    if not quiet:
        _tell_of_the_old_one(session, response, elapsed_seconds if waits else None)
        if not token_id and not in_place:
            session.output.note("Your own calls go on with the old one until you replace it where it is kept.")
    if waits:
        end_unless_complete(session, response)


def _file(session: Session, token_id: str, secret_file: Path | None, in_place: bool) -> Path | None:
    if not in_place:
        return secret_file
    if secret_file is not None or token_id:
        raise CommandError(
            "--in-place is for your own token, and its file",
            "Leave TOKEN_ID and --secret-file away, or --in-place.",
            ExitCode.USAGE,
        )
    if session.own_file is None:
        raise CommandError(
            "--in-place has no file to write to: your own token did not come from one",
            "Give it with --token-file or WATCHWORD_TOKEN_FILE, or say where the new one goes: --secret-file FILE.",
            ExitCode.USAGE,
        )
    return session.own_file


def _rotated(session: Session, request: RotateRequest, wait: timedelta | None) -> tuple[RotateResponse, float]:
    """The answer and how many seconds the last attempt took: the request id lets no attempt leave a successor over.
    Raises CommandError."""
    attempts = 0

    def attempt() -> tuple[RotateResponse, float]:
        nonlocal attempts
        attempts += 1
        request.attempt = time.time_ns() // 1_000_000
        return call_and_wait(session, session.tokens.Rotate, request, wait, "Rotating")

    try:
        return insisting(session.output, attempt)
    except CommandError as error:
        if is_worth_another(error):
            error.remedy += f"\n{_again(request)}"
        elif attempts > 1 and error.reason == "TOKEN_INACTIVE" and not request.token_id:
            error.remedy = (
                "The first attempt was carried out, then: your own token has ended, and its successor's secret is lost."
                " An administrator finds that (watchword audit list --action rotate) and gives you another: "
                "watchword rotate SUCCESSOR_ID"
            )
        raise
    except KeyboardInterrupt:
        session.output.note(_again(request))
        raise


def _again(request: RotateRequest) -> str:
    return (
        "Whether there is a successor now is not known. The same command with "
        f"--request-id {request.request_id} ends one whose secret was lost, and makes another."
    )


def _remedy(request: RotateRequest, response: RotateResponse) -> str:
    return (
        f"The same command with --request-id {request.request_id} makes another in its place. (If the old one has "
        f"ended meanwhile: watchword rotate {response.token.token_id}, with an administrator's token.)"
    )


def _tell_of_the_old_one(session: Session, response: RotateResponse, elapsed_seconds: float | None) -> None:
    """When it ends, and who has yet to take the new one. `elapsed_seconds` is for one that was to end at once."""
    output = session.output
    if output.is_json:
        return
    now = datetime.now(UTC)
    old = response.rotated
    if elapsed_seconds is None:
        output.note(f"The old one, {old.token_id}, ends {instant_and_distance(ends_at(old), now)}.")
    else:
        output.note(f"The old one, {old.token_id}: {dead(response, elapsed_seconds)}.")
    if not old.usage.services:
        output.note("Nobody was seen with it so far. What is known of that is some minutes behind.")
        return
    output.note("Who still uses it:")
    show_users(output, old)
