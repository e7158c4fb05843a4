"""How far the news that tokens became less valid has come, in words: what Revoke, Narrow, Rotate and BlockSubject
answer, each after a wait of its own."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.durations import format_duration
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import message_json
from watchword_server.cli.waiting import in_words, seconds_text, wait_with_line, waited_for

if TYPE_CHECKING:
    import grpc
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message

    from watchword.v1.token_service_pb2 import Position, Propagation

# What `again` of a revocation is.
WAITS_AGAIN: Final = "; running this again waits again"


class Told(Protocol):
    """An answer that says how far the news has come."""

    @property
    def position(self) -> Position: ...
    @property
    def propagation(self) -> Propagation.ValueType: ...
    @property
    def effective_in(self) -> Duration: ...


Q = TypeVar("Q")
T = TypeVar("T", bound=Told)


def check_wait(wait: timedelta) -> None:
    """Raises CommandError for a wait in which no server could answer."""
    if wait < timedelta(seconds=1):
        raise CommandError("--wait is under a second", "To return at once, use --no-wait.", ExitCode.USAGE)


def call_and_wait(
    session: Session, method: grpc.UnaryUnaryMultiCallable[Q, T], request: Q, wait: timedelta | None, doing: str
) -> tuple[T, float]:
    """The answer and how many seconds it took; waited for with a line on a terminal, unless `wait` is None. `doing` is
    what the line says. Raises CommandError."""
    began = time.monotonic()
    try:
        # The server waits as long as the call may take, less a little for its answer.
        if wait is None:
            response = session.call(method, request)
        else:
            response = wait_with_line(session, session.begin(method, request, wait.total_seconds()), doing)
    except KeyboardInterrupt:
        session.output.note("Interrupted. Whether it was done is not known, and neither how far it has reached.")
        raise
    return response, time.monotonic() - began


def is_complete(response: Told) -> bool:
    """Whether nothing in the fleet goes by what was before."""
    from watchword.v1.token_service_pb2 import Propagation

    return response.propagation == Propagation.PROPAGATION_COMPLETE


def effective_in(response: Told) -> str:
    """No longer than this from now until nothing goes by what was before."""
    limit = response.effective_in
    return format_duration(timedelta(seconds=limit.seconds, microseconds=limit.nanos // 1000))


def reached(response: Told, elapsed_seconds: float, *, complete: str, pending: str) -> str:
    """How far it has come. `COMPLETE: dead everywhere after 12 ms`, where `complete` is `dead everywhere`; or `PENDING
    after 75 s: revoked for good, and dead everywhere within 30s`, where `pending` is what stands before `within`."""
    took = seconds_text(elapsed_seconds)
    if is_complete(response):
        return f"COMPLETE: {complete} after {took}"
    return f"PENDING after {took}: {pending} within {effective_in(response)}"


def dead(response: Told, elapsed_seconds: float, fleet: str = "") -> str:
    """How far a revocation has come, in words. `fleet`: who that is, for one that is complete."""
    text = reached(
        response, elapsed_seconds, complete="dead everywhere", pending="revoked for good, and dead everywhere"
    )
    return f"{text}, {fleet}" if fleet and is_complete(response) else text


def waited_json(response: Message, elapsed_seconds: float) -> dict[str, Any]:
    """An answer that was waited for, for programs."""
    return message_json(response) | {"elapsed_seconds": round(elapsed_seconds, 6)}


def end_unless_complete(session: Session, response: Told, again: str = "") -> None:
    """Tells whom the news still waits for, and ends the command with PENDING."""
    if not is_complete(response):
        tell_pending(session, response, again)
        raise typer.Exit(ExitCode.PENDING)


def tell_pending(session: Session, response: Told, again: str = "") -> None:
    """Whom the news still waits for, and what that means, as remarks. `again` says what running the command again
    does."""
    try:
        whom = waited_for(session, response.position)
    except CommandError:
        whom = []
    if whom:
        session.output.note(f"Waits for {in_words(whom)}.")
    session.output.note(
        "Until then a verifier that has not heard of it may still go by what is in its cache. Nothing more has to be"
        f" done: wait {effective_in(response)}, or stop it. `watchword watchers --lagging` shows whom{again}."
    )
