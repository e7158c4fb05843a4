"""The audit log survives kill -9 at every step: whatever a call does, and wherever in it the server dies, the change is
there exactly if its event is, and both are there if the call was answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import grpc
import psycopg
import pytest

from tests.databases import Databases
from tests.faults.forked import Forked, forked_servers
from tests.faults.wire import Death, Wire, wire
from tests.path.party import Party, unique
from tests.servers import keyring_file
from watchword.token import parse_token_id
from watchword.v1 import subject_service_pb2
from watchword.v1 import token_service_pb2 as pb
from watchword_server import admin
from watchword_server.settings import load_settings

CALL_SECONDS_MAX = 30
WRITES_MAX = 30
"""More than any deed needs."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something under way: what to ask for, and what must be true of the database afterwards, all of it or none."""

    ask: Callable[[], object]
    facts: LiteralString
    """SQL with a column for each."""
    arguments: dict[str, Any]


def issue(party: Party) -> Deed:
    subject = unique()
    return Deed(
        lambda: party.issue(subject, timeout=CALL_SECONDS_MAX),
        """
        select
          exists (select from tokens where subject = %(subject)s),
          exists (select from audit_events where action = 'issue' and details ->> 'subject' = %(subject)s)
        """,
        {"subject": subject},
    )


def register(party: Party) -> Deed:
    name = unique("scope") + ".read"
    return Deed(
        lambda: party.register(name),
        """
        select
          exists (select from scopes where name = %(name)s),
          exists (select from audit_events where action = 'register_scopes' and details ->> 'scopes' = %(name)s)
        """,
        {"name": name},
    )


def rotate(party: Party) -> Deed:
    token_id = party.issue(unique()).token.token_id
    return Deed(
        lambda: party.rotate(pb.RotateRequest(token_id=token_id)),
        """
        select
          exists (select from tokens where id = %(id)s and successor_id is not null and rotated_at is not null),
          exists (select from tokens where predecessor_id = %(id)s),
          exists (select from changes where token_id = %(id)s),
          exists (select from audit_events where action = 'rotate' and token_id = %(id)s)
        """,
        {"id": parse_token_id(token_id)},
    )


def narrow(party: Party) -> Deed:
    scope = unique("scope") + ".read"
    party.register(scope)
    token_id = party.issue(unique(), scopes=[scope]).token.token_id
    return Deed(
        lambda: party.narrow(pb.NarrowRequest(token_id=token_id, remove_scopes=[scope], no_wait=True)),
        """
        select
          exists (select from tokens where id = %(id)s and scopes = '{}'),
          exists (select from changes where token_id = %(id)s),
          exists (select from audit_events where action = 'narrow' and token_id = %(id)s)
        """,
        {"id": parse_token_id(token_id)},
    )


def revoke(party: Party) -> Deed:
    """With all that it issued, two generations of it."""
    scopes = ["watchword.issue"]
    everything = pb.Grant(scopes=["*", "watchword.*"], subjects=["*"], audiences=["*", "watchword"])
    root = party.party(unique(), scopes, grants=[everything])
    child = root.party(unique(), scopes, grants=[everything])
    leaf_id = child.issue(unique()).token.token_id
    ids = [parse_token_id(one) for one in (root.token_id, child.token_id, leaf_id)]
    return Deed(
        lambda: party.revoke(pb.RevokeRequest(token_id=root.token_id, cascade=True, no_wait=True)),
        """
        select
          fact
        from tokens
        cross join lateral (
          values
          (tokens.revoked_at is not null),
          (exists (select from changes where changes.token_id = tokens.id)),
          (exists (select from audit_events where action = 'revoke' and audit_events.token_id = tokens.id))
        ) as facts (fact)
        where tokens.id = any(%(ids)s)
        """,
        {"ids": ids},
    )


def block(party: Party) -> Deed:
    subject = unique()
    token_id = party.issue(subject).token.token_id
    request = subject_service_pb2.BlockSubjectRequest(subject=subject, no_wait=True)
    return Deed(
        lambda: party.subjects.BlockSubject(request, metadata=party.metadata, timeout=CALL_SECONDS_MAX),
        """
        select
          exists (select from blocked_subjects where subject = %(subject)s),
          exists (select from tokens where id = %(id)s and revoked_at is not null),
          exists (select from changes where token_id = %(id)s),
          exists (select from audit_events where action = 'revoke' and token_id = %(id)s),
          exists (select from audit_events where action = 'block_subject' and details ->> 'subject' = %(subject)s)
        """,
        {"subject": subject, "id": parse_token_id(token_id)},
    )


def unblock(party: Party) -> Deed:
    subject = unique()
    party.block(subject)
    request = subject_service_pb2.UnblockSubjectRequest(subject=subject)
    return Deed(
        lambda: party.subjects.UnblockSubject(request, metadata=party.metadata, timeout=CALL_SECONDS_MAX),
        """
        select
          not exists (select from blocked_subjects where subject = %(subject)s),
          exists (select from audit_events where action = 'unblock_subject' and details ->> 'subject' = %(subject)s)
        """,
        {"subject": subject},
    )


class Mortal:
    """A server that dies, and comes back with the same database."""

    def __init__(self, dsn: str, wire: Wire, forked: Forked, keyring: Path) -> None:
        self._dsn = dsn
        self._wire = wire
        self._forked = forked
        self._environment = {
            "WATCHWORD_DATA_DIR": str(keyring.parent),
            "WATCHWORD_DATABASE_URL": wire.dsn,
            "WATCHWORD_KEYRING_FILE": str(keyring),
            "WATCHWORD_LISTEN": "127.0.0.1:0",
            "WATCHWORD_METRICS_LISTEN": "",
        }
        self._secret = asyncio.run(admin.bootstrap(load_settings(self._environment))).secret
        self._running: tuple[int, Party] | None = None

    def tries(self, deed: Callable[[Party], Deed], *, number: int, after: bool) -> bool:
        """Whether it lives through a deed in which it is killed at that write, if there is one."""
        pid, party = self._alive()
        prepared = deed(party)
        self._wire.arm(Death(number, after, pid))
        try:
            prepared.ask()
            answered = True
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            answered = False
            self._bury(party)
        finally:
            self._wire.disarm()
        facts = self._facts(prepared)
        assert len(set(facts)) == 1, (facts, self._wire.writes)
        if answered:
            assert facts[0], self._wire.writes
        return answered

    @property
    def writes(self) -> list[str]:
        """Of the last try."""
        return self._wire.writes

    def _alive(self) -> tuple[int, Party]:
        if self._running is None:
            pid, address = self._forked.serve(self._environment)
            self._running = pid, Party(grpc.insecure_channel(address), self._secret)
        return self._running

    def _bury(self, party: Party) -> None:
        """Waits until PostgreSQL has noticed, and taken back what was not committed."""
        party.channel.close()
        self._running = None
        until = time.monotonic() + CALL_SECONDS_MAX
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while connection.execute(
                "select from pg_stat_activity where datname = current_database() and application_name = 'watchword'"
            ).fetchall():
                assert time.monotonic() < until, "the dead server's connections are still there"

    def _facts(self, deed: Deed) -> list[bool]:
        with psycopg.connect(self._dsn) as connection:
            return [fact for row in connection.execute(deed.facts, deed.arguments) for fact in row]


@pytest.fixture(scope="module")
def mortal(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """One for all deeds."""
    folder = tmp_path_factory.mktemp("mortal")
    keyring = keyring_file(folder)
    with postgres.fresh() as dsn, wire(dsn) as line, forked_servers(folder / "log") as forked:
        yield Mortal(dsn, line, forked, keyring)


def torn(party: Party) -> Deed:
    """Two calls, which share no transaction."""
    one, other = issue(party), register(party)
    return Deed(
        lambda: (one.ask(), other.ask()),
        """
        select
          exists (select from tokens where subject = %(subject)s),
          exists (select from scopes where name = %(name)s)
        """,
        {**one.arguments, **other.arguments},
    )


def die_before_each_write(mortal: Mortal, deed: Callable[[Party], Deed]) -> int:
    """How many there are, by the first try that is lived through. Before a write is after the one before it."""
    for number in range(1, WRITES_MAX):
        if mortal.tries(deed, number=number, after=False):
            assert len(mortal.writes) < number
            return len(mortal.writes)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("deed", [issue, register, rotate, narrow, revoke, block, unblock])
def test_a_change_is_there_exactly_if_its_event_is_wherever_the_server_dies(
    mortal: Mortal, deed: Callable[[Party], Deed]
) -> None:
    count = die_before_each_write(mortal, deed)
    assert count
    # And after the last one, while the answer is on its way.
    assert not mortal.tries(deed, number=count, after=True)


def test_a_change_without_its_event_would_be_found(mortal: Mortal) -> None:
    with pytest.raises(AssertionError, match="True, False"):
        die_before_each_write(mortal, torn)
