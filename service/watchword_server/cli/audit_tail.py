"""`watchword audit tail`: the latest events, and on request those that come."""

from __future__ import annotations

import select
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword.token import parse_token
from watchword_server.cli.audit_events import (
    ALLOWED,
    ActionOption,
    ActorOption,
    DeniedOption,
    EventFilter,
    SinceOption,
    TokenIdOption,
    event_cells,
)
from watchword_server.cli.connect import Session
from watchword_server.cli.errors import BrokenOutputError, CommandError, ExitCode
from watchword_server.cli.options import LimitOption, duration
from watchword_server.cli.output import Output, json_text, message_json, printable
from watchword_server.cli.pages import collect

if TYPE_CHECKING:
    from watchword.v1.audit_service_pb2 import AuditEvent

# An event bears the instant at which its transaction began, and can be seen once that has committed. Most take no time;
# a cascade of a million tokens takes a minute or two, and nothing of Watchword's takes ten (docs/api.md). So most looks
# reach back a little, and every so many one reaches back far: a busy log has a lot in ten minutes.
_OVERLAP: Final = timedelta(seconds=30)
_OVERLAP_FAR: Final = timedelta(minutes=10)
_FAR_LOOK_EVERY: Final = 12
# What one look takes in at most: after a long outage, the latest of what was missed.
_EVENTS_MAX: Final = 100_000
# What ListEvents itself is recorded as.
_LOOK: Final = "list_events"


def tail(
    session: Session,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    actor: ActorOption = "",
    token_id: TokenIdOption = "",
    action: ActionOption = "",
    denied: DeniedOption = False,
    since: SinceOption = None,
    limit: LimitOption = 20,
    every: Annotated[
        timedelta, typer.Option(parser=duration, metavar="DURATION", help="With --follow: how often to look.")
    ] = "5s",  # type: ignore[assignment]  # the parser reads defaults too
) -> None:
    """Show the latest recorded deeds, newest last, a line each; as JSON lines with --output json.

    With --follow it goes on with those that come, and outlasts an outage of the service. Its own looks, which are in
    the audit log too, it leaves out.
    """
    if every < timedelta(milliseconds=100):
        raise CommandError("--every is under 100 ms", "Look every second or so.", ExitCode.USAGE)
    feed = _Feed(session, EventFilter(actor, token_id, action, denied), follows=follow)
    latest = feed.begin(limit, since)
    if not latest:
        session.output.note("No events so far." if follow else "No events.")
    _write(session.output, latest)
    while follow:
        _wait(every)
        _write(session.output, feed.more())


class _Feed:
    """Each event once, however late it was committed."""

    def __init__(self, session: Session, wanted: EventFilter, *, follows: bool) -> None:
        self._session = session
        self._wanted = wanted
        self._follows = follows
        self._own_token_id = _own_token_id(session) if follows else ""
        self._seen: dict[str, datetime] = {}
        self._begin_at: datetime | None = None
        """Where the next look begins, less the overlap; None: at the first event there is."""
        self._looks_count = 0
        self._is_out = False

    def begin(self, limit: int, since: datetime | None) -> Sequence[AuditEvent]:
        """The latest ones, oldest first. Raises CommandError."""
        newest_at = self._newest_of_all()
        # What there is beside those that are asked for is no news later on. Looked at first: what happens between the
        # two looks is.
        known = self._listed(_EVENTS_MAX, newest_at - _OVERLAP_FAR) if self._follows and newest_at else ()
        shown = self._new(self._listed(limit, since), newest_at)
        self._seen |= {event.event_id: _at(event) for event in known}
        return shown

    def more(self) -> Sequence[AuditEvent]:
        """Those that came since, oldest first; none while the service cannot be reached. Raises CommandError."""
        output = self._session.output
        self._looks_count += 1
        is_far = self._looks_count % _FAR_LOOK_EVERY == 0
        since = self._begin_at and self._begin_at - (_OVERLAP_FAR if is_far else _OVERLAP)
        try:
            # Asked before: what happens between the two is of this look or the next.
            newest_at = self._newest_of_all() if self._wanted != EventFilter() else None
            events = self._listed(_EVENTS_MAX, since)
        except CommandError as error:
            if error.exit_code is not ExitCode.UNAVAILABLE:
                raise
            if not self._is_out:
                output.error(error)
                output.note("This goes on as soon as there is an answer, with what happened meanwhile.")
            self._is_out = True
            return ()
        if self._is_out:
            output.note("There is an answer again.")
        self._is_out = False
        if len(events) == _EVENTS_MAX and events[-1].event_id not in self._seen:
            output.note(f"More than {_EVENTS_MAX} events came at once; the older of them: watchword audit export")
        return self._new(events, newest_at)

    def _newest_of_all(self) -> datetime | None:
        """When the newest event of all happened, by the service's clock: where the look after this one may begin, also
        if nothing that is wanted happens for days."""
        newest = EventFilter().page(self._session, 1, "", None).events
        return _at(newest[0]) if newest else None

    def _listed(self, limit: int, since: datetime | None) -> Sequence[AuditEvent]:
        return collect(
            lambda size, page: self._wanted.page(self._session, size, page, since),
            lambda response: response.events,
            limit,
            "",
        ).events

    def _new(self, events: Sequence[AuditEvent], newest_at: datetime | None) -> Sequence[AuditEvent]:
        """Those of `events` that were not seen before, oldest first."""
        new = [event for event in events if event.event_id not in self._seen and not self._is_own_look(event)]
        self._begin_at = max(filter(None, (self._begin_at, newest_at, *map(_at, events))), default=None)
        self._seen |= {event.event_id: _at(event) for event in new}
        if self._begin_at is not None:
            begin_at = self._begin_at - _OVERLAP_FAR
            self._seen = {event_id: at for event_id, at in self._seen.items() if at >= begin_at}
        return sorted(new, key=lambda event: (event.occurred_at.ToNanoseconds(), event.event_id))

    def _is_own_look(self, event: AuditEvent) -> bool:
        """Whether it is there because this command looked: shown, each look would be followed by another line."""
        return (
            event.action == _LOOK
            and event.outcome in ("", ALLOWED)
            and bool(self._own_token_id)
            and event.actor_token_id == self._own_token_id
        )


def _at(event: AuditEvent) -> datetime:
    return event.occurred_at.ToDatetime(tzinfo=UTC)


def _own_token_id(session: Session) -> str:
    """The public half of the caller's token, in any deployment's prefix; empty for what is no token by its form."""
    secret = session.own_secret
    prefix = secret[: secret.find("_") + 1]
    try:
        return parse_token(secret, prefix).id_text
    except ValueError:
        return ""


def _write(output: Output, events: Sequence[AuditEvent]) -> None:
    for event in events:
        if output.is_json:
            output.line(json_text(message_json(event)))
        else:
            output.line(printable("  ".join(cell or "-" for cell in event_cells(event))))


def _wait(length: timedelta) -> None:
    """Until it is time to look again. Raises BrokenOutputError if the reader of the output goes away meanwhile: there
    may be nothing to write for days."""
    poller = select.poll()
    poller.register(sys.stdout, 0)
    if poller.poll(length / timedelta(milliseconds=1)):
        raise BrokenOutputError
