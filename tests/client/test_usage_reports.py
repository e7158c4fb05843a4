"""The authority is told what was admitted from memory, in both stacks, and as often as it asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.bound_calls import ADMITTED, REFUSED, outcome, serving
from tests.client.caches import EPOCH, READ, Bench, Made, active, made
from tests.client.subjects import Rig, Subject, until
from watchword.identity import Identity
from watchword.network import Networks
from watchword.scope import is_scope
from watchword.token import parse_token_id
from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier import Active, Bindings, Bound
from watchword.verifier.session import WatchSession
from watchword.verifier.wire import Question, batch_request

EVERY_SECONDS = 0.2
REPORTS_PER_INTERVAL_MAX = 4
REPORT_BYTES_MAX = 1024 * 1024
"""The service's limits."""
CALLER = "203.0.113.7"


# What is said


def session(bench: Bench, usage_every: Duration | None = Duration(seconds=60)) -> WatchSession:  # noqa: B008
    """One that was welcomed."""
    made = WatchSession(bench.cache, bench.clock, lease_seconds=60.0, name="orders", instance="1", library="test")
    made.hello()
    welcome = pb.Welcome(
        lease=Duration(seconds=60),
        renew_every=Duration(seconds=10),
        position=token_service_pb2.Position(epoch=EPOCH, number=bench.number),
        usage_every=usage_every,
    )
    made.receive(pb.WatchResponse(welcome=welcome))
    return made


def use(bench: Bench, token: Made | None = None, scopes: tuple[str, ...] = READ) -> Made:
    if token is None:
        token = made()
        bench.ask(token, active(token, bench.number, scopes=("orders.*",)))
    assert isinstance(bench.cache.decide(token.text, scopes, address=CALLER), Active)
    return token


def test_a_report_says_of_each_token_how_often_when_last_where_from_and_what_for() -> None:
    bench = Bench()
    one = session(bench)
    token = use(bench)
    use(bench, token)
    bench.clock.advance(2.5)
    bench.cache.uses.count_bound(made().token_id, READ, CALLER, is_admitted=False)
    report = one.report()
    assert report is not None
    first, second = report.usage.uses
    assert first == pb.Use(
        token_id=parse_token_id(token.token_id).bytes,
        use_count=2,
        ago=Duration(seconds=2, nanos=500_000_000),
        address=CALLER,
        scopes=READ,
    )
    assert (second.use_count, second.refused_count, second.refused_address) == (0, 1, CALLER)
    assert not second.HasField("ago")
    assert one.report() is None


def test_a_report_has_a_thousand_tokens_and_the_rest_follows_sooner() -> None:
    bench = Bench()
    one = session(bench)
    for _ in range(2_500):
        use(bench)
    sizes, waits = [], []
    for _ in range(3):
        report = one.report()
        assert report is not None
        sizes.append(len(report.usage.uses))
        waits.append(one.report_in_seconds)
    assert sizes == [1_000, 1_000, 500]
    assert max(waits[:2]) <= 30 < 48 <= waits[2] < 60
    assert one.report() is None


def test_scopes_that_no_service_knows_and_more_than_it_takes_are_left_out() -> None:
    bench = Bench()
    one = session(bench)
    token = use(bench)
    for number in range(80):
        use(bench, token, (f"orders.n{number}", "orders.*"))
    report = one.report()
    assert report is not None
    scopes = report.usage.uses[0].scopes
    assert len(scopes) == 64
    assert all(map(is_scope, scopes))


def test_a_report_is_never_longer_than_the_service_reads() -> None:
    bench = Bench()
    one = session(bench)
    scopes = tuple(f"orders.{number:02}{'x' * 119}" for number in range(64))
    for _ in range(1_000):
        use(bench, scopes=scopes)
    report = one.report()
    assert report is not None
    assert report.ByteSize() <= REPORT_BYTES_MAX
    assert len(report.usage.uses) == 1_000
    assert all(told.use_count == 1 for told in report.usage.uses)
    assert list(report.usage.uses[0].scopes) == sorted(scopes)


@pytest.mark.parametrize("usage_every", [None, Duration(), Duration(seconds=-1)])
def test_a_server_that_does_not_ask_is_told_nothing(usage_every: Duration | None) -> None:
    bench = Bench()
    one = session(bench, usage_every)
    use(bench)
    assert not bench.cache.uses.is_counting
    assert one.report() is None
    assert one.report_in_seconds == math.inf


def test_after_a_server_that_does_not_ask_the_next_one_that_does_is_told_what_was_used_since() -> None:
    bench = Bench()
    session(bench)
    use(bench)
    session(bench, None)
    later = session(bench)
    token = use(bench)
    report = later.report()
    assert report is not None
    assert [one.token_id for one in report.usage.uses] == [parse_token_id(token.token_id).bytes]


def test_nobody_is_told_before_the_welcome() -> None:
    bench = Bench()
    bench.cache.uses.want(True)
    use(bench)
    early = WatchSession(bench.cache, bench.clock, lease_seconds=60.0, name="orders", instance="1", library="test")
    early.hello()
    assert early.report() is None
    assert len(bench.cache.uses) == 1


KNOWN = [made().token_id for _ in range(1_000)]


@settings(deadline=None, max_examples=50)
@given(
    every_seconds=st.integers(1, 3_600),
    backlog=st.lists(st.sampled_from([0, 1, len(KNOWN)]), max_size=12),
    leaves_at=st.floats(0, 1),
)
def test_no_interval_sees_more_reports_than_the_service_takes(
    every_seconds: int, backlog: list[int], leaves_at: float
) -> None:
    """However full each is, wherever the interval begins, and with a last one when the verifier leaves."""
    bench = Bench()
    one = session(bench, Duration(seconds=every_seconds))
    assert 0 < one.report_in_seconds < every_seconds
    now, reports = 0.0, list[float]()
    for count in backlog:
        now += one.report_in_seconds
        for token_id in KNOWN[:count]:
            bench.cache.uses.count_bound(token_id, (), "", is_admitted=True)
        if one.report() is not None:
            reports.append(now)
    reports.append(now + leaves_at * one.report_in_seconds)
    for begin in reports:
        assert sum(begin <= at < begin + every_seconds for at in reports) <= REPORTS_PER_INTERVAL_MAX


def test_verifiers_that_are_welcomed_together_do_not_report_together() -> None:
    waits = [session(Bench()).report_in_seconds for _ in range(50)]
    assert max(waits) - min(waits) > 20


def test_questions_say_that_bindings_are_enforced_where_the_call_comes_from_and_whether_there_is_one() -> None:
    call, again = batch_request([Question("t", READ, CALLER), Question("t", READ, is_recheck=True)]).requests
    assert call == token_service_pb2.ValidateRequest(
        token="t", required_scopes=READ, client_ip=CALLER, enforces_bindings=True
    )
    assert (again.enforces_bindings, again.client_ip, again.recheck) == (True, "", True)


# What arrives


@pytest.fixture(params=["aio", "aio-threaded", "sync"])
def stack(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def rig(stack: str) -> Rig:
    return Rig("sync" if stack == "sync" else "aio", usage_every_seconds=EVERY_SECONDS)


@asynccontextmanager
async def protected(rig: Rig, stack: str, **settings: Any) -> AsyncIterator[tuple[Subject, int]]:
    """A service whose verifier caches and was asked to report."""
    async with rig.attached() as subject, serving(stack, subject.verifier, **settings) as port:
        await until(lambda: subject.verifier._cache.uses.is_counting)
        yield subject, port


def issue(rig: Rig, **bindings: Any) -> str:
    return rig.authority.issue("alice", scopes=["echo.use"], audiences=["orders"], **bindings)


def totals(rig: Rig) -> Counter[tuple[str, str]]:
    """Uses and refusals so far, by what they are and the address they came from."""
    found: Counter[tuple[str, str]] = Counter()
    for one in rig.authority.reported:
        assert one.service == "orders"
        found["used", one.address] += one.use_count
        found["refused", one.refused_address] += one.refused_count
    return +found


async def test_what_was_admitted_from_memory_is_reported_once(rig: Rig, stack: str) -> None:
    token = issue(rig)
    async with protected(rig, stack) as (subject, port):
        for _ in range(6):
            assert await outcome(port, "Unary", token) == ADMITTED
        misses = subject.status().misses
        assert misses >= 1
        await until(lambda: totals(rig)["used", "127.0.0.1"] >= 6 - misses)
    assert totals(rig) == {("used", "127.0.0.1"): 6 - misses}
    assert {one.scopes for one in rig.authority.reported} == {("echo.use",)}
    assert {one.token_id for one in rig.authority.reported} == {token[3:25]}


async def test_behind_a_trusted_proxy_the_callers_address_is_reported(rig: Rig, stack: str) -> None:
    token = issue(rig)
    async with protected(rig, stack, trusted_proxies=("127.0.0.0/8",)) as (_, port):
        for _ in range(4):
            assert await outcome(port, "Unary", token, CALLER) == ADMITTED
        await until(lambda: totals(rig)["used", CALLER] >= 3)
    assert set(totals(rig)) == {("used", CALLER)}


async def test_calls_with_bound_tokens_are_reported_as_what_became_of_them(rig: Rig, stack: str) -> None:
    here, elsewhere = issue(rig, allowed_networks=["127.0.0.0/8"]), issue(rig, allowed_networks=["10.0.0.0/8"])
    async with protected(rig, stack) as (subject, port):
        for _ in range(4):
            assert await outcome(port, "Unary", here) == ADMITTED
            assert await outcome(port, "Unary", elsewhere) == REFUSED
        # The first call of each was asked about: the authority knows of it, and not whether it matched.
        expected = {("used", "127.0.0.1"): 4, ("refused", "127.0.0.1"): 4}
        assert subject.status().misses == 2
        await until(lambda: totals(rig) == expected)
    assert totals(rig) == expected
    assert {one.token_id for one in rig.authority.reported if one.use_count} == {here[3:25]}


async def test_judging_an_open_stream_again_is_no_use_of_its_token(rig: Rig) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        verifier = subject.verifier
        await until(lambda: verifier._cache.uses.is_counting)
        assert isinstance(await subject.check(token), Active)
        ended: list[object] = []
        stream = verifier.open_stream(token, (), ended.append)
        asked = subject.status().misses
        rig.watch.reset()
        await until(lambda: subject.status().misses > asked and subject.status().entries == 1)
        # And once more, from memory.
        verifier._recheck(stream)
        await until(lambda: not stream.is_due)
        stream.close()
        assert ended == []
    assert rig.authority.reported == []


async def test_what_was_used_while_the_watch_was_lost_is_reported_later(rig: Rig) -> None:
    tokens = [rig.issue() for _ in range(5)]
    async with rig.attached() as subject:
        await until(lambda: subject.verifier._cache.uses.is_counting)
        for token in tokens:
            await subject.check(token)
        rig.watch.end_streams()
        used: Counter[str] = Counter()
        for token in tokens:
            hits = subject.status().hits
            await subject.check(token)
            used[token[3:25]] += subject.status().hits - hits
        assert sum(used.values()) >= 1
        await until(lambda: sum(one.use_count for one in rig.authority.reported) >= sum(used.values()))
    assert Counter({one.token_id: one.use_count for one in rig.authority.reported}) == +used


async def test_the_last_uses_are_reported_when_the_verifier_closes() -> None:
    for kind in ("aio", "sync"):
        rig = Rig(kind, usage_every_seconds=3_600.0)
        token = rig.issue()
        async with rig.attached() as subject:
            await until(lambda subject=subject: subject.verifier._cache.uses.is_counting)  # type: ignore[misc]
            for _ in range(3):
                await subject.check(token)
        await until(lambda rig=rig: [one.use_count for one in rig.authority.reported] == [2])  # type: ignore[misc]
        await until(lambda rig=rig: rig.watch.releases_count == 1)  # type: ignore[misc]


async def test_an_authority_that_takes_no_reports_is_sent_none() -> None:
    for kind in ("aio", "sync"):
        rig = Rig(kind)
        token = rig.issue()
        async with rig.attached() as subject:
            for _ in range(3):
                assert isinstance(await subject.check(token), Active)
            assert subject.status().hits == 2
        assert rig.authority.reported == []


def test_equal_tokens_differ_by_what_they_are_bound_to() -> None:
    identity = Identity("id", "alice", READ, ("*",))
    bindings = Bindings(Networks(["10.0.0.0/8"]), b"")
    assert Bound(bindings, Active(identity)) == Bound(bindings, Active(identity))
    assert Bound(bindings, Active(identity)) != Bound(Bindings(), Active(identity))
