"""Revocations of very many tokens at once, with a few among them that verifiers know."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import grpc
import psycopg

from tests.history.callers import DENIALS
from tests.history.events import Decision, Issue, Log, Revoke, now
from tests.history.fleet import Fleet
from tests.history.fleet_facts import AUDIENCE, SCOPE
from tests.history.lives import Held, bearer
from tests.history.verifier_process import UNARY
from tests.servers import Client
from watchword.v1 import token_service_pb2 as pb

KNOWN_COUNT: Final = 3
FEW_COUNT: Final = 4
CALL_SECONDS_MAX: Final = 60.0
CHECK_SECONDS_MAX: Final = 3.0
TTL_SECONDS: Final = 86_400 * 30


class Burst:
    """Issues a few tokens, has all verifiers know them, adds very many of the same subject, and revokes the subject."""

    def __init__(self, fleet: Fleet, log: Log, *, tokens_count: int) -> None:
        self._fleet = fleet
        self._log = log
        self._tokens_count = tokens_count
        self._number = 0

    def run(self, replica: str) -> None:
        """One burst by way of one replica."""
        self._number += 1
        subject = f"burst/{self._number}"
        with self._fleet.admin(replica) as admin, self._verifiers() as verifiers:
            known = self._issue(admin, subject, KNOWN_COUNT)
            self._check(verifiers, known)
            self._store_many(subject)
            self._revoke(admin, "subject", subject, pb.RevokeRequest(subject=subject))
            self._check(verifiers, known)

    def run_few(self, replica: str) -> None:
        """A few revocations of single tokens, that nobody waits for."""
        self._number += 1
        with self._fleet.admin(replica) as admin:
            for held in self._issue(admin, f"burst/{self._number}", FEW_COUNT):
                request = pb.RevokeRequest(token_id=held.token_id, no_wait=True)
                self._revoke(admin, "token_id", held.token_id, request)

    @contextmanager
    def _verifiers(self) -> Iterator[dict[str, grpc.Channel]]:
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(grpc.insecure_channel(address))
                for name, address in self._fleet.addresses.items()
            }

    def _issue(self, admin: Client, subject: str, count: int) -> list[Held]:
        made = []
        for _ in range(count):
            invoked = now()
            try:
                answer = admin.tokens.Issue(
                    pb.IssueRequest(subject=subject, audiences=[AUDIENCE], scopes=[SCOPE]),
                    metadata=admin.metadata,
                    timeout=CALL_SECONDS_MAX,
                )
            except grpc.RpcError:
                continue
            made.append(Held(answer.token.token_id, answer.secret))
            life = answer.token.expires_at.seconds - answer.token.created_at.seconds
            self._log.write(Issue(made[-1].token_id, subject, "", life, invoked, now(), "acknowledged"))
        return made

    def _check(self, verifiers: dict[str, grpc.Channel], tokens: list[Held]) -> None:
        for name, channel in verifiers.items():
            for held in tokens:
                invoked, code = now(), grpc.StatusCode.OK
                try:
                    call: Any = channel.unary_unary(UNARY)
                    call(b"", metadata=bearer(held), timeout=CHECK_SECONDS_MAX)
                except grpc.RpcError as error:
                    code = _code(error)
                outcome = "accept" if code is grpc.StatusCode.OK else "inactive" if code in DENIALS else "unavailable"
                self._log.write(Decision(held.token_id, "unary", name, invoked, now(), outcome, code.name))

    def _revoke(self, admin: Client, by: str, value: str, request: pb.RevokeRequest) -> None:
        invoked, code, effective_seconds = now(), grpc.StatusCode.OK, 0.0
        try:
            answer = admin.tokens.Revoke(request, metadata=admin.metadata, timeout=CALL_SECONDS_MAX)
            outcome = "complete" if answer.propagation == pb.PROPAGATION_COMPLETE else "pending"
            effective_seconds = answer.effective_in.seconds + answer.effective_in.nanos / 1e9
        except grpc.RpcError as error:
            outcome, code = "unknown", _code(error)
        self._log.write(
            Revoke(by, value, False, not request.no_wait, invoked, now(), outcome, effective_seconds, code.name)
        )

    def _store_many(self, subject: str) -> None:
        """As Issue would store them, without anybody to know their secrets."""
        expires_at = datetime.now(UTC) + timedelta(seconds=TTL_SECONDS)
        began_ms = int((time.time() + TTL_SECONDS) * 1000)
        with psycopg.connect(self._fleet.postgres.dsn) as database, database.cursor() as cursor:
            row = cursor.execute("select max(version) from pepper_checks").fetchone()
            assert row is not None
            columns = "id, created_at, expires_at, pepper_version, digest, subject, audiences, scopes"
            with cursor.copy(f"copy tokens ({columns}) from stdin") as copy:
                for _ in range(self._tokens_count):
                    copy.write_row(
                        (
                            _token_id(began_ms),
                            datetime.now(UTC),
                            expires_at,
                            row[0],
                            secrets.token_bytes(32),
                            subject,
                            [AUDIENCE],
                            [],
                        )
                    )


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    return error.code()


def _token_id(expiry_ms: int) -> UUID:
    """A UUIDv8 that begins with the end of its token's life."""
    number = expiry_ms << 80 | secrets.randbits(80)
    return UUID(int=number & ~(0xF << 76) & ~(0b11 << 62) | 0x8 << 76 | 0b10 << 62)
