"""Revoke of everything: for the day after a break-in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tests.path.party import Party, grant, refused, unique
from tests.path.servers import running_fleet
from tests.path.watcher import attached
from watchword.v1 import token_service_pb2 as pb


def _everything(before: datetime | None) -> pb.RevokeRequest:
    request = pb.RevokeRequest(reason="LEAKED")
    request.all.SetInParent()
    if before is not None:
        instant = Timestamp()
        instant.FromDatetime(before)
        request.all.issued_before.CopyFrom(instant)
    return request


def test_everything_but_the_calling_token_ends_and_verifiers_forget_all(dsn: str) -> None:
    with running_fleet(dsn, 1) as fleet:
        (admin,) = fleet.admins
        issued = [admin.issue(unique()).token for _ in range(3)]
        with attached(admin) as watcher:
            watcher.keep_up()
            answer = admin.revoke(_everything(issued[-1].created_at.ToDatetime(UTC) + timedelta(milliseconds=1)))
        assert answer.revoked_count >= 2
        assert answer.propagation == pb.PROPAGATION_COMPLETE
        states = [admin.record(token.token_id).state for token in issued]
        assert states[:2] == [pb.TOKEN_STATE_REVOKED] * 2
        # The caller lives on, and what is issued afterwards.
        assert admin.record(admin.issue(unique()).token.token_id).state == pb.TOKEN_STATE_LIVE


def test_the_instant_is_required_and_not_in_the_future(admin: Party) -> None:
    for before in (None, datetime.now(UTC) + timedelta(days=1)):
        answer = refused(admin.revoke, _everything(before))
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("all.issued_before",))


def test_it_needs_the_scope(admin: Party) -> None:
    reader = admin.party(unique(), ["watchword.read"], grants=[grant()])
    answer = refused(reader.revoke, _everything(datetime(2000, 1, 1, tzinfo=UTC)))
    assert answer.reason == "SCOPE_MISSING"
