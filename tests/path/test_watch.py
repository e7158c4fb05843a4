"""Watch and Revoke between real servers: what is acknowledged, and what Revoke says of it. The verifiers are played by
hand, with leases of two seconds."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psycopg
import pytest

from tests.path.party import Party, refusal_of, unique
from tests.path.servers import LEASE_SECONDS, Fleet, running_fleet
from tests.path.watcher import WAIT_SECONDS_MAX, Watcher, attached
from watchword.token import new_token, parse_token, parse_token_id
from watchword.v1 import fleet_service_pb2 as fleet_pb
from watchword.v1 import token_service_pb2 as pb

TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "native"])


@pytest.fixture(scope="module", params=["grpcio", "native"])
def pair(request: pytest.FixtureRequest, postgres) -> Iterator[Fleet]:  # type: ignore[no-untyped-def]
    """Two servers on one database, shared by the module's tests."""
    with postgres.fresh() as dsn, running_fleet(dsn, 2, transport=request.param) as running:
        yield running


def _revoke(
    party: Party, token_id: str, *, timeout: float = WAIT_SECONDS_MAX, no_wait: bool = False
) -> pb.RevokeResponse:
    return party.revoke(pb.RevokeRequest(token_id=token_id, no_wait=no_wait), timeout=timeout)


def _revoke_shortly(party: Party, token_id: str) -> pb.RevokeResponse:
    """What is said before a short deadline; asked again where that came a moment too late to be heard."""
    while True:
        try:
            return _revoke(party, token_id, timeout=0.6)
        except grpc.RpcError as error:
            if refusal_of(error).code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise


def test_a_watch_is_welcomed_granted_and_told_of_a_revocation(pair: Fleet) -> None:
    admin = pair.admins[0]
    victim = admin.issue(unique()).token.token_id
    with Watcher(admin) as watcher:
        welcome = watcher.hello()
        assert welcome.lease.ToTimedelta().total_seconds() <= LEASE_SECONDS
        grant = watcher.renew()
        assert 0 < grant.lease.ToTimedelta().total_seconds() <= LEASE_SECONDS
        answer = _revoke(admin, victim, no_wait=True)
        assert answer.propagation == pb.PROPAGATION_PENDING
        assert parse_token_id(victim).bytes in watcher.changes(answer.position.number)


@pytest.mark.parametrize("at", [0, 1])
def test_revoke_waits_for_the_acknowledgement_of_a_verifier_at_any_server(pair: Fleet, at: int) -> None:
    victim = pair.admins[0].issue(unique()).token.token_id
    with attached(pair.admins[at]) as watcher, ThreadPoolExecutor(1) as pool:
        began = watcher.position.number
        revoking = pool.submit(_revoke, pair.admins[0], victim)
        watcher.changes(began + 1)
        # It has been told and said nothing yet; to keep its lease it renews without having applied.
        assert not revoking.done()
        watcher.acknowledge()
        answer = revoking.result(WAIT_SECONDS_MAX)
    assert answer.propagation == pb.PROPAGATION_COMPLETE
    assert answer.effective_in.ToTimedelta().total_seconds() == 0
    assert answer.replicas_count >= 2


def test_a_verifier_that_never_acknowledges_is_waited_for_until_its_lease_ran_out(pair: Fleet) -> None:
    victim = pair.admins[0].issue(unique()).token.token_id
    with Watcher(pair.admins[1]) as watcher:
        watcher.hello()
        asked_at = time.monotonic()
        lease = watcher.renew().lease.ToTimedelta().total_seconds()
        pending = _revoke_shortly(pair.admins[0], victim)
        assert pending.propagation == pb.PROPAGATION_PENDING
        left = pending.effective_in.ToTimedelta().total_seconds()
        assert left > 0
        complete = _revoke(pair.admins[0], victim)
        assert complete.propagation == pb.PROPAGATION_COMPLETE
        # Not before: the verifier may have answered from its cache until then.
        assert time.monotonic() - asked_at >= lease
        watcher.leave()


def test_a_lease_outlives_its_stream(pair: Fleet) -> None:
    victim = pair.admins[0].issue(unique()).token.token_id
    with attached(pair.admins[1]) as watcher:
        watcher.cut()
        assert _revoke_shortly(pair.admins[0], victim).propagation == pb.PROPAGATION_PENDING
        assert _revoke(pair.admins[0], victim).propagation == pb.PROPAGATION_COMPLETE


def test_a_lease_that_was_released_is_not_waited_for(pair: Fleet) -> None:
    victim = pair.admins[0].issue(unique()).token.token_id
    with attached(pair.admins[1]) as watcher:
        began = watcher.position.number
        with ThreadPoolExecutor(1) as pool:
            revoking = pool.submit(_revoke, pair.admins[0], victim)
            watcher.changes(began + 1)
            watcher.release()
            assert revoking.result(WAIT_SECONDS_MAX).propagation == pb.PROPAGATION_COMPLETE


def test_a_caller_that_does_not_wait_is_told_pending(pair: Fleet) -> None:
    victim = pair.admins[0].issue(unique()).token.token_id
    with attached(pair.admins[1]):
        answer = _revoke(pair.admins[0], victim, no_wait=True)
        assert answer.propagation == pb.PROPAGATION_PENDING
        assert answer.effective_in.ToTimedelta().total_seconds() > 0
    assert pair.admins[0].record(victim).state == pb.TOKEN_STATE_REVOKED


def test_a_deadline_that_ends_during_the_wait_loses_nothing(pair: Fleet) -> None:
    victim = pair.admins[0].issue(unique()).token.token_id
    with attached(pair.admins[1]):
        held = pair.admins[0].tokens.Revoke.future(
            pb.RevokeRequest(token_id=victim), metadata=pair.admins[0].metadata, timeout=WAIT_SECONDS_MAX
        )
        _wait_until_revoked(pair, victim)
        held.cancel()
    assert pair.admins[1].record(victim).state == pb.TOKEN_STATE_REVOKED


def _wait_until_revoked(pair: Fleet, token_id: str) -> None:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while pair.admins[0].record(token_id).state != pb.TOKEN_STATE_REVOKED:
        assert time.monotonic() < until


def test_many_revocations_at_once_are_all_complete(pair: Fleet) -> None:
    victims = [pair.admins[0].issue(unique()).token.token_id for _ in range(24)]
    with attached(pair.admins[1]) as watcher, ThreadPoolExecutor(25) as pool:
        last = watcher.position.number + 1
        stopped = threading.Event()

        def acknowledge() -> None:
            while not stopped.is_set():
                try:
                    watcher.expect("changes")
                except grpc.RpcError:
                    return
                watcher.acknowledge()

        acknowledging = pool.submit(acknowledge)
        answers = list(pool.map(lambda one: _revoke(pair.admins[0], one), victims))
        stopped.set()
        watcher.cut()
        acknowledging.result(WAIT_SECONDS_MAX)
    assert {answer.propagation for answer in answers} == {pb.PROPAGATION_COMPLETE}
    assert min(answer.position.number for answer in answers) >= last


def test_the_watchers_token_is_judged_for_as_long_as_it_watches(pair: Fleet) -> None:
    verifier = pair.admins[0].party(unique(), ["watchword.validate"])
    with attached(verifier) as watcher:
        assert _revoke(pair.admins[1], verifier.token_id, no_wait=True).revoked_count == 1
        end = watcher.ended()
    assert (end.code, end.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


def test_naming_the_watchers_token_without_its_secret_ends_nothing(pair: Fleet) -> None:
    """The position moves for it, as for any token, and nobody is told for which."""
    verifier = pair.admins[0].party(unique(), ["watchword.validate"])
    forged = new_token(parse_token(verifier.secret).token_id).text.decode()
    with attached(verifier) as watcher:
        answer = pair.admins[1].revoke(pb.RevokeRequest(token=forged, no_wait=True))
        assert watcher.changes(answer.position.number) == set()
        watcher.acknowledge()
        watcher.renew()


def test_a_verifier_that_resumes_is_told_what_it_missed(pair: Fleet) -> None:
    admin = pair.admins[0]
    with attached(admin) as watcher:
        key, position = watcher.key, watcher.position
        watcher.release()
    victim = admin.issue(unique()).token.token_id
    answer = _revoke(admin, victim)
    with Watcher(pair.admins[1], key=key) as again:
        again.position.CopyFrom(position)
        welcome = again.hello(resume_from=position)
        assert welcome.position == position
        assert parse_token_id(victim).bytes in again.changes(answer.position.number)


def test_the_watchers_are_listed(pair: Fleet) -> None:
    verifier = pair.admins[1].party(unique("shop"), ["watchword.validate"])
    with attached(verifier) as watcher:
        found = _listed(pair, watcher.key)
        assert (found.name, found.instance, found.library, found.attached) == ("orders", "test", "hand", True)
        assert found.subject.startswith("shop")
        assert found.lease_remaining.ToTimedelta().total_seconds() <= LEASE_SECONDS * 1.01


def _listed(pair: Fleet, key: bytes) -> fleet_pb.Watcher:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < until:
        page = ""
        while True:
            answer = pair.admins[0].fleet.ListWatchers(
                fleet_pb.ListWatchersRequest(page_size=1, page_token=page), metadata=pair.admins[0].metadata, timeout=20
            )
            assert len(answer.replicas) >= 2
            for one in answer.watchers:
                if one.subject.startswith("shop"):
                    return one
            page = answer.next_page_token
            if not page:
                break
    raise AssertionError("not listed")


@TRANSPORTS
def test_a_killed_server_is_fenced_and_then_nobody_waits_for_it(dsn: str, transport: str) -> None:
    with running_fleet(dsn, 2, transport=transport) as fleet:
        victim = fleet.admins[0].issue(unique()).token.token_id
        assert _revoke(fleet.admins[0], victim).replicas_count == 2
        fleet.servers[1].signal(signal.SIGKILL)
        fleet.servers[1].wait()
        killed = time.monotonic()
        answer = _revoke(fleet.admins[0], victim)
        assert answer.propagation == pb.PROPAGATION_COMPLETE
        assert time.monotonic() - killed < 10 * LEASE_SECONDS
        with psycopg.connect(dsn) as database:
            assert database.execute("select count(*) from replicas").fetchone() == (1,)


@TRANSPORTS
def test_a_paused_server_answers_nothing_from_before(dsn: str, transport: str) -> None:
    """SIGSTOP for longer than its lease: it is fenced, and joins anew under another key when it goes on."""
    with running_fleet(dsn, 2, transport=transport) as fleet:
        with psycopg.connect(dsn, autocommit=True) as database:
            before = {row[0] for row in database.execute("select key from replicas")}
        victim = fleet.admins[0].issue(unique()).token.token_id
        fleet.servers[1].signal(signal.SIGSTOP)
        try:
            assert _revoke(fleet.admins[0], victim).propagation == pb.PROPAGATION_COMPLETE
        finally:
            fleet.servers[1].signal(signal.SIGCONT)
        fleet.servers[1].wait_for_log(re.compile("lease is lost"))
        fleet.servers[1].wait_for_log(re.compile("lease is live"))
        assert fleet.admins[1].record(victim).state == pb.TOKEN_STATE_REVOKED
        with psycopg.connect(dsn) as database:
            after = {row[0] for row in database.execute("select key from replicas")}
        assert len(after) == 2
        assert len(after - before) == 1


@TRANSPORTS
def test_a_draining_server_asks_its_verifiers_to_move_and_signs_off_when_they_did(dsn: str, transport: str) -> None:
    with running_fleet(dsn, 2, transport=transport) as fleet, attached(fleet.admins[1]) as watcher:
        fleet.servers[1].signal(signal.SIGTERM)
        watcher.expect("move")
        watcher.release()
        end = watcher.ended()
        assert (end.code, end.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert fleet.servers[1].wait() == 0
        with psycopg.connect(dsn) as database:
            assert database.execute("select count(*) from replicas").fetchone() == (1,)
        victim = fleet.admins[0].issue(unique()).token.token_id
        assert _revoke(fleet.admins[0], victim).replicas_count == 1


def test_a_server_whose_verifiers_do_not_move_leaves_its_row_behind(dsn: str) -> None:
    environment = {"WATCHWORD_LEASE_SECONDS_MAX": "20"}
    with running_fleet(dsn, 1, **environment) as fleet:
        with Watcher(fleet.admins[0], lease_seconds=20).attach() as watcher:
            fleet.servers[0].signal(signal.SIGTERM)
            watcher.expect("move")
            assert watcher.ended().reason == "DRAINING"
            fleet.servers[0].wait_for_log(re.compile("verifiers hold leases of this server"))
            assert fleet.servers[0].wait() == 0
        with psycopg.connect(dsn) as database:
            assert database.execute("select count(*) from replicas").fetchone() == (1,)
