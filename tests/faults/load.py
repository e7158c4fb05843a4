"""Callers that issue and revoke as fast as they can, and remember what they were told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import psycopg

from tests.servers import Client, client
from watchword.status import error_info
from watchword.v1 import token_service_pb2 as pb

CALLERS = 4
CALL_SECONDS_MAX = 10
ACKNOWLEDGED_SECONDS_MAX = 40
# What a caller hears when the server, or its database, is gone. Anything else is a fault of its own.
LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


@dataclass
class Told:
    """What was acknowledged, by token id, and which request ids got no answer."""

    issued: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    unanswered: list[str] = field(default_factory=list)
    unforeseen: list[grpc.StatusCode] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for_revocations(self, count: int) -> None:
        """Waits until so many revocations, and more than as many issues, were acknowledged."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.revoked) >= count, ACKNOWLEDGED_SECONDS_MAX), self.unforeseen


@contextmanager
def load(address: str, token: str) -> Iterator[Told]:
    """Callers at work until the block ends; each stops at its first call that fails."""
    told, stop = Told(), threading.Event()

    def call(caller: int) -> None:
        with client(address, token) as one:
            number = 0
            while not stop.is_set():
                number += 1
                if not _turn(one, told, f"{caller}-{number}", revoke=number % 2 == 0):
                    return

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def issue_request(request_id: str) -> pb.IssueRequest:
    return pb.IssueRequest(subject="caller", audiences=["orders"], request_id=request_id)


def _turn(one: Client, told: Told, request_id: str, *, revoke: bool) -> bool:
    issued = ""
    try:
        answer = one.tokens.Issue(issue_request(request_id), metadata=one.metadata, timeout=CALL_SECONDS_MAX)
        issued = answer.token.token_id
        with told.changed:
            told.issued.add(issued)
        if revoke:
            ended = one.tokens.Revoke(
                pb.RevokeRequest(token_id=issued), metadata=one.metadata, timeout=CALL_SECONDS_MAX
            )
            assert ended.revoked_count == 1
            with told.changed:
                told.revoked.add(issued)
                told.changed.notify_all()
    except grpc.RpcError as error:
        with told.changed:
            if error.code() not in LOST:
                told.unforeseen.append(error.code())
            if not issued:
                told.unanswered.append(request_id)
        return False
    return True


def check_nothing_was_lost(told: Told, admin: Client, dsn: str) -> None:
    """Every acknowledged token and revocation is there, nothing is half there, and request ids tell about the rest."""
    assert told.unforeseen == []
    for request_id in told.unanswered:
        try:
            told.issued.add(admin.tokens.Issue(issue_request(request_id), metadata=admin.metadata).token.token_id)
        except grpc.RpcError as error:
            info = error_info(error)
            assert info is not None
            assert info.reason == "REQUEST_ID_USED"
            told.issued.add(info.metadata["token_id"])
    tokens: list[pb.Token] = []
    page_token = ""
    while True:
        page = admin.tokens.ListTokens(
            pb.ListTokensRequest(subject="caller", include_inactive=True, page_size=1000, page_token=page_token),
            metadata=admin.metadata,
        )
        tokens += page.tokens
        page_token = page.next_page_token
        if not page_token:
            break
    assert {token.token_id for token in tokens} == told.issued
    revoked = {token.token_id for token in tokens if token.state == pb.TOKEN_STATE_REVOKED}
    assert revoked >= told.revoked
    # One more than acknowledged for each caller at most: the one whose answer never came.
    assert len(revoked) <= len(told.revoked) + CALLERS
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select (select count(*) from tokens where subject = 'caller'), "
            "(select count(*) from issue_requests), "
            "(select count(*) from audit_events where action = 'issue'), "
            "(select count(*) from tokens where revoked_at is not null), "
            "(select count(*) from changes), "
            "(select count(*) from audit_events where action = 'revoke'), "
            "(select position from feed) = (select count(*) from positions where number > 0)"
        ).fetchone()
    issued, ended = len(told.issued), len(revoked)
    # Revocations that came together share a position.
    assert row == (issued, issued, issued, ended, ended, ended, True)
