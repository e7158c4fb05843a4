"""`watchword subjects block|unblock|list`: for whom nothing can be issued."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from watchword_server.cli.confirm import confirm, refuse_without_terminal
from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import (
    WAIT_DEFAULT,
    ForceOption,
    LimitOption,
    NoWaitOption,
    PageTokenOption,
    ReasonOption,
    WaitOption,
    YesOption,
)
from watchword_server.cli.output import Column, instant_and_distance, message_json
from watchword_server.cli.pages import collect, note_more
from watchword_server.cli.propagation import (
    WAITS_AGAIN,
    call_and_wait,
    check_wait,
    dead,
    end_unless_complete,
    waited_json,
)

SubjectArgument = Annotated[str, typer.Argument(help="As it stands in its tokens.", show_default=False)]


def block(
    session: Session,
    *,
    subject: SubjectArgument,
    reason: ReasonOption = "",
    force: ForceOption = False,
    wait: WaitOption = WAIT_DEFAULT,  # type: ignore[assignment]  # the parser reads defaults too
    no_wait: NoWaitOption = False,
    yes: YesOption = False,
) -> None:
    """End every token of a subject and all it owns, and let nobody issue or rotate one for it.

    Waits as `revoke` does: exit code 7 while some verifier may still accept them. Blocking twice does no harm.
    """
    from watchword.v1.subject_service_pb2 import BlockSubjectRequest

    check_wait(wait)
    output = session.output
    if not yes:
        refuse_without_terminal()
        confirm(output, f"every token of {subject!r} and all it owns, and lets nobody issue one until it is unblocked")
    request = BlockSubjectRequest(subject=subject, reason=reason, no_wait=no_wait, force=force)
    response, elapsed_seconds = call_and_wait(
        session, session.subjects.BlockSubject, request, None if no_wait else wait, "Blocking"
    )
    if output.is_json:
        output.json(waited_json(response, elapsed_seconds))
    else:
        output.record(
            [
                ("blocked", subject),
                ("revoked", str(response.revoked_count)),
                ("out of your reach", str(response.out_of_reach_count) if response.out_of_reach_count else ""),
                ("propagation", dead(response, elapsed_seconds)),
            ]
        )
    if not no_wait:
        end_unless_complete(session, response, WAITS_AGAIN)


def unblock(session: Session, *, subject: SubjectArgument) -> None:
    """Let tokens be issued for a subject again. What was revoked stays revoked. Exit code 4 if it was not blocked."""
    from watchword.v1.subject_service_pb2 import UnblockSubjectRequest

    response = session.call(session.subjects.UnblockSubject, UnblockSubjectRequest(subject=subject))
    if session.output.is_json:
        session.output.json(message_json(response))
    if not response.was_blocked:
        raise CommandError(
            f"{subject!r} was not blocked", "watchword subjects list", ExitCode.NOTHING_MATCHED, "NOTHING_MATCHED"
        )
    session.output.note(f"Tokens can be issued for {subject!r} again. Those that were revoked stay so.")


def list_blocked(session: Session, *, limit: LimitOption = 100, page_token: PageTokenOption = "") -> None:
    """List the subjects for whom nothing can be issued."""
    from watchword.v1.subject_service_pb2 import ListBlockedSubjectsRequest

    listed = collect(
        lambda page_size, page: session.call(
            session.subjects.ListBlockedSubjects, ListBlockedSubjectsRequest(page_size=page_size, page_token=page)
        ),
        lambda response: response.subjects,
        limit,
        page_token,
    )
    output = session.output
    if output.is_json:
        output.json(message_json(listed))
        return
    if not listed.subjects:
        output.note("No subject is blocked.")
        return
    now = datetime.now(UTC)
    output.table(
        (Column("subject"), Column("reason"), Column("blocked_by"), Column("blocked_at")),
        (
            (one.subject, one.reason, one.blocked_by, instant_and_distance(one.blocked_at, now))
            for one in listed.subjects
        ),
    )
    note_more(output, listed.next_page_token)
