"""Who uses which token: what the service answers and verifiers report, from their messages to what operators see."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword, running_watchword
from tests.databases import Databases
from tests.path.audit import awaited, listed
from tests.path.party import Party, administrator, unique
from tests.path.rows import move
from tests.path.servers import Fleet, running_fleet
from tests.path.watcher import Watcher, attached
from tests.servers import client
from watchword.token import parse_token_id
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import verifier_service_pb2 as watch_pb

OFTEN = {"WATCHWORD_USAGE_INTERVAL_SECONDS": "0.2"}
WAIT_SECONDS_MAX = 30
LATER, EARLIER = timedelta(hours=1), timedelta(seconds=-1)

T = TypeVar("T")


@pytest.fixture(scope="module", params=["grpcio", "native"])
def running(request: pytest.FixtureRequest, postgres: Databases) -> Iterator[Watchword]:
    """A server that stores uses often."""
    with postgres.fresh() as dsn, running_watchword(dsn, transport=request.param, **OFTEN) as made:
        yield made


@pytest.fixture
def admin(running: Watchword) -> Party:
    return administrator(running)


@pytest.fixture
def orders(admin: Party) -> Party:
    """A service that checks tokens."""
    return admin.party(unique("orders"), ["watchword.validate"])


def until(answer: Callable[[], T | None]) -> T:
    """Asks until there is an answer."""
    ends_at = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        if found := answer():
            return found
        assert time.monotonic() < ends_at


def usage(admin: Party, token_id: str, count: int = 1) -> pb.TokenUsage:
    """What is known of a token's use, once so many uses are."""

    def known() -> pb.TokenUsage | None:
        found = admin.record(token_id).usage
        return found if found.use_count >= count else None

    return until(known)


def subject_of(party: Party) -> str:
    return party.who_am_i().subject


def report(*uses: watch_pb.Use) -> watch_pb.WatchRequest:
    return watch_pb.WatchRequest(usage=watch_pb.UsageReport(uses=uses))


def use(token_id: str, *, count: int = 1, address: str = "", scopes: Sequence[str] = ()) -> watch_pb.Use:
    return watch_pb.Use(token_id=parse_token_id(token_id).bytes, use_count=count, address=address, scopes=scopes)


def test_what_the_service_answers_is_counted_at_the_verifier_that_asked(admin: Party, orders: Party) -> None:
    name = subject_of(orders)
    admin.register(scope := f"{unique('s')}.read", f"{scope}.more")
    made = admin.issue(unique(), [name], [scope, f"{scope}.more"])
    for _ in range(3):
        orders.validate(made.secret, scope, client_ip="192.0.2.1")
    orders.batch(made.secret, made.secret)
    known = usage(admin, made.token.token_id, 5)
    (service,) = known.services
    assert (service.service, service.use_count, service.address) == (name, 5, "192.0.2.1")
    assert list(service.scopes) == [scope]
    assert known.unused_scopes == [f"{scope}.more"]
    assert service.last_used_at.ToDatetime() >= made.token.created_at.ToDatetime()


def test_what_is_not_active_and_what_is_looked_at_again_is_no_use(admin: Party, orders: Party) -> None:
    name = subject_of(orders)
    made, used = admin.issue(unique(), [name]), admin.issue(unique(), [name])
    elsewhere = admin.issue(unique(), ["elsewhere"])
    assert orders.verdict(made.secret, "some.scope") == "insufficient"
    assert orders.verdict(elsewhere.secret) == "inactive"
    recheck = pb.ValidateRequest(token=made.secret, recheck=True)
    orders.tokens.Validate(recheck, metadata=orders.metadata, timeout=30)
    assert orders.verdict(used.secret) == "active"
    usage(admin, used.token.token_id)
    for one in (made, elsewhere):
        assert not admin.record(one.token.token_id).usage.services


def test_a_caller_uses_its_own_token_at_watchword(admin: Party, orders: Party) -> None:
    orders.verdict("nonsense")
    (service,) = usage(admin, orders.token_id).services
    assert (service.service, list(service.scopes)) == ("watchword", ["watchword.validate"])
    seen = until(lambda: orders.who_am_i().usage.services or None)
    assert [one.service for one in seen] == ["watchword"]
    assert orders.who_am_i().usage.unused_scopes == []


def test_what_a_verifier_reports_is_counted(admin: Party, orders: Party) -> None:
    name = subject_of(orders)
    made, anyones = admin.issue(unique(), [name]), admin.issue(unique(), ["*"])
    with Watcher(orders, lease_seconds=60) as watcher:
        welcome = watcher.hello()
        assert welcome.usage_every.ToMilliseconds() == 200
        watcher.send(
            report(use(made.token.token_id, count=7, address="192.0.2.1", scopes=["a.b"]), use(anyones.token.token_id))
        )
        (service,) = usage(admin, made.token.token_id, 7).services
        assert (service.service, service.use_count, service.address) == (name, 7, "192.0.2.1")
        usage(admin, anyones.token.token_id)


def test_a_verifier_speaks_only_of_tokens_that_are_real_and_meant_for_it(
    running: Watchword, admin: Party, orders: Party
) -> None:
    mine, foreign = admin.issue(unique(), [subject_of(orders)]), admin.issue(unique(), ["elsewhere"])
    made_up = watch_pb.Use(token_id=uuid4().bytes, use_count=1)
    with Watcher(orders, lease_seconds=60) as watcher:
        watcher.hello()
        watcher.send(report(use(foreign.token.token_id), made_up, use(mine.token.token_id)))
        usage(admin, mine.token.token_id)
    assert not admin.record(foreign.token.token_id).usage.services
    with psycopg.connect(running.dsn) as database:
        strays = "select count(*) from token_usage where token_id not in (select id from tokens)"
        assert database.execute(strays).fetchone() == (0,)


def test_a_flood_of_reports_ends_its_stream_and_no_other(admin: Party, orders: Party) -> None:
    with attached(admin, lease_seconds=60) as other:
        with Watcher(orders, lease_seconds=60) as flooding:
            flooding.hello()
            for _ in range(1_000):
                flooding.send(report())
            end = flooding.ended()
        assert (end.code, end.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_FLOODING")
        other.send(report())
        other.renew()


def test_the_largest_report_arrives_and_a_larger_one_ends_the_stream(admin: Party, orders: Party) -> None:
    mine = admin.issue(unique(), [subject_of(orders)])
    scopes = [f"orders.{number:04}.{'x' * 100}" for number in range(8)]
    many = [watch_pb.Use(token_id=uuid4().bytes, use_count=1, scopes=scopes) for _ in range(999)]
    with Watcher(orders, lease_seconds=60) as watcher:
        watcher.hello()
        watcher.send(report(*many, use(mine.token.token_id)))
        usage(admin, mine.token.token_id)
    with Watcher(orders, lease_seconds=60) as watcher:
        watcher.hello()
        watcher.send(report(*many, *many))
        end = watcher.ended()
    assert (end.code, end.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WATCH_PROTOCOL")


def test_a_token_from_a_new_network_is_an_event(admin: Party, orders: Party) -> None:
    made = admin.issue(unique(), [subject_of(orders)])
    token_id = made.token.token_id
    for count, address in enumerate(("192.0.2.1", "192.0.2.200", "2001:db8::1", "192.0.2.7"), 1):
        orders.validate(made.secret, client_ip=address)
        usage(admin, token_id, count)
    (event,) = awaited(admin, token_id=token_id, action="new_network")
    assert (event.actor, event.address, event.outcome) == (subject_of(orders), "2001:db8::1", "noticed")
    assert dict(event.details) == {"network": "2001:db8::/48", "service": event.actor}


def test_a_rotated_token_presented_after_its_end_is_an_alarm_once(
    running: Watchword, admin: Party, orders: Party
) -> None:
    made = admin.issue(unique(), [subject_of(orders), "watchword"])
    old = Party(admin.channel, made.secret)
    old.rotate()
    assert orders.verdict(made.secret) == "active", "within its grace period"
    move(running.dsn, made.token.token_id, "expires_at", EARLIER)
    for _ in range(3):
        assert orders.validate(made.secret, client_ip="198.51.100.1").WhichOneof("verdict") == "inactive"
    with pytest.raises(grpc.RpcError):
        old.who_am_i()
    (event,) = awaited(admin, token_id=made.token.token_id, action="rotated_token_presented")
    assert (event.actor, event.address, event.outcome) == (subject_of(orders), "198.51.100.1", "noticed")
    assert len(listed(admin, token_id=made.token.token_id, action="rotated_token_presented")) == 1
    running.server.wait_for_log(re.compile(f"rotated token presented: {made.token.token_id}"))
    assert made.secret not in "".join(running.server.log)


@pytest.mark.parametrize("tokens", [0, 1, 1_000])
def test_a_rotated_token_that_calls_watchword_after_its_end_is_an_alarm(
    running: Watchword, admin: Party, tokens: int
) -> None:
    """Also with a stream, and with a request so large that its caller is looked up first."""
    made = admin.issue(unique(), ["watchword"])
    old = Party(admin.channel, made.secret)
    old.rotate()
    move(running.dsn, made.token.token_id, "expires_at", EARLIER)
    with pytest.raises(grpc.RpcError), ExitStack() as stack:
        old.batch(*[made.secret] * tokens) if tokens else stack.enter_context(attached(old))
    (event,) = awaited(admin, token_id=made.token.token_id, action="rotated_token_presented")
    assert event.actor == "watchword"


def test_a_wrong_secret_for_a_rotated_token_is_no_alarm(running: Watchword, admin: Party, orders: Party) -> None:
    made, other = admin.issue(unique(), [subject_of(orders), "watchword"]), admin.issue(unique(), ["watchword"])
    for one in (made, other):
        Party(admin.channel, one.secret).rotate()
        move(running.dsn, one.token.token_id, "expires_at", EARLIER)
    with psycopg.connect(running.dsn, autocommit=True) as database:
        # Of another's digest the secret is not known.
        database.execute(
            "update tokens set digest = sha256(id::text::bytea) where id = %s", [parse_token_id(made.token.token_id)]
        )
    assert orders.verdict(made.secret) == "inactive"
    orders.verdict(other.secret)
    with pytest.raises(grpc.RpcError):
        Party(admin.channel, other.secret).who_am_i()
    awaited(admin, token_id=other.token.token_id, action="rotated_token_presented")
    assert not listed(admin, token_id=made.token.token_id, action="rotated_token_presented")


def test_calls_that_verifiers_refused_for_their_bindings_are_an_alarm(admin: Party, orders: Party) -> None:
    bound = admin.make(audiences=[subject_of(orders)], allowed_networks=["192.0.2.0/24"])
    foreign = admin.make(audiences=["elsewhere"], allowed_networks=["192.0.2.0/24"])
    free = admin.make(audiences=[subject_of(orders)])
    stolen = [
        watch_pb.Use(token_id=parse_token_id(one.token.token_id).bytes, refused_count=4, refused_address="198.51.100.1")
        for one in (free, foreign, bound)
    ]
    with Watcher(orders, lease_seconds=60) as watcher:
        watcher.hello()
        watcher.send(report(*stolen))
        (event,) = awaited(admin, token_id=bound.token.token_id, action="bound_token_refused")
    assert (event.actor, event.address, event.details["count"]) == (subject_of(orders), "198.51.100.1", "4")
    assert event.outcome == "noticed"
    for one in (foreign, free):
        assert not listed(admin, token_id=one.token.token_id, action="bound_token_refused")
    assert not admin.record(bound.token.token_id).usage.services


def test_lists_tell_who_uses_what_and_what_nobody_does(running: Watchword, admin: Party, orders: Party) -> None:
    subject, name = unique(), subject_of(orders)
    used, unused = admin.issue(subject, [name]), admin.issue(subject, [name])
    for one in (used, unused):
        move(running.dsn, one.token.token_id, "created_at", -LATER)
    orders.verdict(used.secret)
    usage(admin, used.token.token_id)
    wanted = pb.ListTokensRequest(subject=subject, unused_for=Duration(seconds=1_800))
    assert [token.token_id for token in admin.list_tokens(wanted).tokens] == [unused.token.token_id]
    told = admin.list_tokens(pb.ListTokensRequest(subject=subject, with_usage=True)).tokens
    services = {token.token_id: [service.service for service in token.usage.services] for token in told}
    assert services == {used.token.token_id: [name], unused.token.token_id: []}


def test_what_was_counted_is_stored_when_the_server_stops(dsn: str) -> None:
    with running_watchword(dsn, WATCHWORD_USAGE_INTERVAL_SECONDS="3600") as running:
        admin = administrator(running)
        made = admin.issue(unique(), ["admin"])
        assert admin.verdict(made.secret) == "active"
        assert not admin.record(made.token.token_id).usage.services
        running.server.signal(signal.SIGTERM)
        assert running.server.wait() == 0
    with psycopg.connect(dsn) as database:
        rows = database.execute("select service, use_count from token_usage order by service").fetchall()
    assert ("admin", 1) in rows
    assert {service for service, _ in rows} == {"admin", "watchword"}


@pytest.fixture(scope="module")
def fleet(postgres: Databases) -> Iterator[Fleet]:
    """Two servers that store uses often."""
    with postgres.fresh() as dsn, running_fleet(dsn, 2, **OFTEN) as made:
        yield made


def _session(admin: Party, *networks: str) -> pb.IssueResponse:
    idle_timeout, ttl = Duration(seconds=600), Duration(seconds=36_000)
    return admin.make(kind=pb.TOKEN_KIND_SESSION, idle_timeout=idle_timeout, ttl=ttl, allowed_networks=networks)


def _idle_left(admin: Party, token_id: str) -> timedelta:
    token = admin.record(token_id)
    return token.idle_expires_at.ToDatetime() - token.created_at.ToDatetime()


@pytest.mark.parametrize("by", ["Validate", "a report"])
def test_a_session_slides_with_its_use_at_either_server(fleet: Fleet, by: str) -> None:
    one, other = fleet.admins
    made = _session(one)
    token_id = made.token.token_id
    for admin in (one, other):
        move(fleet.dsn, token_id, "idle_expires_at", timedelta(seconds=60))
        if by == "Validate":
            assert admin.verdict(made.secret) == "active"
            until(lambda: _idle_left(one, token_id) > timedelta(seconds=590))
        else:
            with attached(admin, lease_seconds=60) as watcher:
                watcher.send(report(use(token_id)))
                until(lambda: _idle_left(one, token_id) > timedelta(seconds=590))


def test_a_session_that_ended_is_ended_whatever_is_reported(fleet: Fleet) -> None:
    one, other = fleet.admins
    made = _session(one)
    move(fleet.dsn, made.token.token_id, "idle_expires_at", EARLIER)
    with attached(other, lease_seconds=60) as watcher:
        watcher.send(report(use(made.token.token_id)))
        usage(one, made.token.token_id)
    assert one.verdict(made.secret) == other.verdict(made.secret) == "inactive"


def test_a_stolen_bound_session_is_not_kept_alive_by_calls_that_are_refused(fleet: Fleet) -> None:
    """Whether a call matched, only its verifier knows, which reports it: an answer alone is no use."""
    admin = fleet.admins[0]
    made, control = (_session(admin, "192.0.2.0/24") for _ in range(2))
    token_id = made.token.token_id
    move(fleet.dsn, token_id, "idle_expires_at", timedelta(seconds=60))
    left = _idle_left(admin, token_id)
    for address in ("198.51.100.1", "192.0.2.1", ""):
        answer = admin.validate(made.secret, client_ip=address, enforces_bindings=True, reports_uses=True)
        assert answer.WhichOneof("verdict") == "active"
    # One that leaves the comparing to the service is told the outcome of it, and that is a use.
    assert admin.validate(control.secret, client_ip="192.0.2.1").WhichOneof("verdict") == "active"
    usage(admin, control.token.token_id)
    assert not admin.record(token_id).usage.services
    assert _idle_left(admin, token_id) == left
    with attached(admin, lease_seconds=60) as watcher:
        watcher.send(report(use(token_id, address="192.0.2.1")))
        until(lambda: _idle_left(admin, token_id) > left)


def test_a_bound_session_lives_by_a_verifier_that_asks_for_each_call_and_reports_nothing(fleet: Fleet) -> None:
    """Its answers are uses, unless the call came from elsewhere."""
    admin = fleet.admins[0]
    inside, outside = (_session(admin, "192.0.2.0/24") for _ in range(2))
    for made in (inside, outside):
        move(fleet.dsn, made.token.token_id, "idle_expires_at", timedelta(seconds=60))
    left = _idle_left(admin, outside.token.token_id)
    assert admin.validate(outside.secret, client_ip="198.51.100.1", enforces_bindings=True).HasField("active")
    assert admin.validate(inside.secret, client_ip="192.0.2.1", enforces_bindings=True).HasField("active")
    until(lambda: _idle_left(admin, inside.token.token_id) > left)
    assert _idle_left(admin, outside.token.token_id) == left


def test_uses_at_both_servers_add_up(fleet: Fleet) -> None:
    made = fleet.admins[0].make()
    for _ in range(5):
        for admin in fleet.admins:
            assert admin.verdict(made.secret) == "active"
    assert usage(fleet.admins[0], made.token.token_id, 10).use_count == 10


def test_a_silent_rotated_token_is_ended_in_the_background(dsn: str) -> None:
    settings = {"WATCHWORD_USAGE_INTERVAL_SECONDS": "0.2", "WATCHWORD_ROTATION_SILENCE_SECONDS": "600"}
    with running_watchword(dsn, **settings) as running:
        made = administrator(running).issue(unique(), ["watchword"])
        Party(running.admin.channel, made.secret).rotate()
        # It looks once when it starts, and then every minute.
        running.server.stop()
        with psycopg.connect(dsn) as database:
            database.execute("update tokens set rotated_at = now() - interval '1 hour' where successor_id is not null")
            database.execute(
                "insert into token_usage select successor_id, 'orders', now(), 1, '', '{}', '{}'"
                " from tokens where successor_id is not null"
            )
            database.execute(
                "update token_usage set last_used_at = now() - interval '1 hour' where service = 'watchword'"
            )
        running.server.start()
        with client(running.address, running.admin_token) as again:
            admin = Party(again.channel, running.admin_token)
            (event,) = awaited(admin, token_id=made.token.token_id, action="rotation_ended")
            assert event.details["successor"] == admin.record(made.token.token_id).successor_id
            with pytest.raises(grpc.RpcError):
                Party(again.channel, made.secret).who_am_i()
