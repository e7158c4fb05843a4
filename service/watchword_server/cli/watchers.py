"""`watchword watchers`: which verifiers are attached where, how far behind, and for how long they may answer alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.durations import format_duration
from watchword_server.cli.options import LimitOption, PageTokenOption
from watchword_server.cli.output import Column, message_json
from watchword_server.cli.pages import collect, note_more

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from watchword.v1.fleet_service_pb2 import ListWatchersResponse, Replica, Watcher
    from watchword.v1.token_service_pb2 import Position


def watchers(
    session: Session,
    *,
    lagging: Annotated[
        bool, typer.Option("--lagging", help="Only those that have not applied everything, or whose stream is lost.")
    ] = False,
    limit: LimitOption = 1000,
    page_token: PageTokenOption = "",
) -> None:
    """List the servers and the verifiers attached to each: whom a revocation waits for.

    `lag` counts the changes that a verifier has not acknowledged, `lease_left` how long it may still answer from its
    cache if nothing more is heard of it. Reported about once a second; --limit counts verifiers.
    """
    listed = list_watchers(session, limit, page_token)
    if lagging:
        _keep_lagging(listed)
    output = session.output
    if output.is_json:
        output.json(message_json(listed))
        return
    _show_replicas(session, listed)
    if not listed.watchers:
        output.note("No verifier lags." if lagging else "No verifier is attached: each of them asks at every check.")
    else:
        _show_watchers(session, listed)
    note_more(output, listed.next_page_token)


def list_watchers(session: Session, limit: int, page_token: str = "") -> ListWatchersResponse:
    """All replicas, and up to `limit` watchers. Raises CommandError."""
    from watchword.v1.fleet_service_pb2 import ListWatchersRequest

    return collect(
        lambda page_size, page: session.call(
            session.fleet.ListWatchers, ListWatchersRequest(page_size=page_size, page_token=page)
        ),
        lambda response: response.watchers,
        limit,
        page_token,
    )


def behind(listed: ListWatchersResponse, position: Position) -> list[str]:
    """Whom a revocation at `position` waits for, in words: verifiers that lag, or a replica none of whose does."""
    waited_for = []
    for replica in listed.replicas:
        if _has_applied(replica, position):
            continue
        lagging = [one for one in listed.watchers if one.replica_id == replica.replica_id and _lags(one)]
        waited_for += [_described(one) for one in lagging] or [
            f"the server {_name(replica)}, last heard of {_length(replica.renewed_ago)} ago"
        ]
    return waited_for


def _has_applied(replica: Replica, position: Position) -> bool:
    applied = replica.applied
    return replica.HasField("applied") and applied.epoch == position.epoch and applied.number >= position.number


def _lags(watcher: Watcher) -> bool:
    return watcher.lag > 0 or not watcher.attached


def _described(watcher: Watcher) -> str:
    lost = "" if watcher.attached else ", its stream is lost"
    return (
        f"the verifier {watcher.name or 'without a name'} ({watcher.instance or watcher.address or 'somewhere'}),"
        f" {watcher.lag} behind{lost}, lease for {_length(watcher.lease_remaining)} more"
    )


def _keep_lagging(listed: ListWatchersResponse) -> None:
    lagging = [watcher for watcher in listed.watchers if _lags(watcher)]
    del listed.watchers[:]
    listed.watchers.extend(lagging)


def _show_replicas(session: Session, listed: ListWatchersResponse) -> None:
    session.output.table(
        [Column("server"), Column("behind"), Column("watchers"), Column("lease"), Column("renewed"), Column("")],
        (
            (
                _name(replica),
                _distance(replica, listed.position),
                str(replica.watchers_count),
                _length(replica.lease),
                f"{_length(replica.renewed_ago)} ago",
                "draining" if replica.draining else "",
            )
            for replica in listed.replicas
        ),
    )


def _distance(replica: Replica, position: Position) -> str:
    if not replica.HasField("applied") or replica.applied.epoch != position.epoch:
        return "?"
    return str(max(0, position.number - replica.applied.number))


def _show_watchers(session: Session, listed: ListWatchersResponse) -> None:
    names: Mapping[str, str] = {replica.replica_id: _name(replica) for replica in listed.replicas}
    session.output.line("")
    session.output.table(
        [
            *(Column(title) for title in ("verifier", "instance", "subject", "server", "attached", "lag")),
            *(Column(title) for title in ("lease_left", "library", "address")),
        ],
        (
            (
                watcher.name,
                watcher.instance,
                watcher.subject,
                names.get(watcher.replica_id, watcher.replica_id),
                "yes" if watcher.attached else "LOST",
                str(watcher.lag),
                _length(watcher.lease_remaining),
                watcher.library,
                watcher.address,
            )
            for watcher in listed.watchers
        ),
    )


def _name(replica: Replica) -> str:
    return replica.name or replica.replica_id


def _length(duration: Duration) -> str:
    return format_duration(timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000))
