"""A bound token is worth nothing from elsewhere or over another connection: both stacks, all calls, cached or not."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest

from tests.client.bound_calls import ADMITTED, REFUSED, Authority, connected, outcome, serving, sha256
from tests.client.echo import KINDS, SECONDS_MAX, bearer, path
from tests.client.subjects import Rig, Subject, until
from watchword.network import NetworkError
from watchword.testing import FakeAuthority
from watchword.verifier import Active, Bound, Insufficient

STACKS = ("aio", "aio-threaded", "sync")
CALLER = "203.0.113.7"
LOOPBACK, ELSEWHERE, CALLERS, PROXIES = "127.0.0.0/8", "10.0.0.0/8", "203.0.113.0/24", "127.0.0.1/32"


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def rig(stack: str) -> Rig:
    return Rig("sync" if stack == "sync" else "aio")


@pytest.fixture(params=["uncached", "cached"])
def cached(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "cached")


@pytest.fixture(scope="module")
def certificates() -> Authority:
    return Authority()


@asynccontextmanager
async def verifier_of(rig: Rig, *, cached: bool) -> AsyncIterator[Any]:
    """One that remembers, over the wire, or one that asks every time."""
    if cached:
        async with rig.attached() as subject:
            yield subject.verifier
    else:
        yield rig.authority.verifier("orders") if rig.kind == "aio" else rig.authority.blocking_verifier("orders")


def issue(rig: Rig, **bindings: Any) -> str:
    return rig.authority.issue("alice", scopes=["echo.use"], audiences=["orders"], **bindings)


async def outcomes(port: int, token: str, *forwarded_for: str, credentials: Any = None) -> set[object]:
    """Of a call of each kind, twice: the second time, one that remembers does so."""
    return {
        await outcome(port, kind, token, *forwarded_for, credentials=credentials) for kind in KINDS for _ in range(2)
    }


async def test_a_token_bound_to_a_certificate_is_good_over_connections_made_with_it_and_no_others(
    stack: str, rig: Rig, cached: bool, certificates: Authority
) -> None:
    own, other = certificates.client(), certificates.client("billing")
    token, free = issue(rig, certificate_sha256=sha256(own)), issue(rig)
    async with (
        verifier_of(rig, cached=cached) as verifier,
        serving(stack, verifier, credentials=certificates.server_credentials(mutual=True)) as port,
    ):
        theirs = certificates.channel_credentials(other)
        assert await outcomes(port, token, credentials=theirs) == {REFUSED}
        assert await outcomes(port, token, credentials=certificates.channel_credentials(own)) == {ADMITTED}
        assert await outcomes(port, token, credentials=theirs) == {REFUSED}
        assert await outcomes(port, free, credentials=theirs) == {ADMITTED}


async def test_a_token_bound_to_a_certificate_is_worth_nothing_over_tls_without_one(
    stack: str, rig: Rig, cached: bool, certificates: Authority
) -> None:
    own = certificates.client()
    token = issue(rig, certificate_sha256=sha256(own))
    async with (
        verifier_of(rig, cached=cached) as verifier,
        serving(stack, verifier, credentials=certificates.server_credentials(mutual=False)) as port,
    ):
        # Also when the client has it at hand: nobody asked for proof.
        for client in (None, own):
            credentials = certificates.channel_credentials(client)
            assert await outcomes(port, token, credentials=credentials) == {REFUSED}


async def test_a_token_bound_to_a_certificate_is_worth_nothing_in_the_clear(
    stack: str, rig: Rig, cached: bool, certificates: Authority
) -> None:
    token = issue(rig, certificate_sha256=sha256(certificates.client()))
    async with verifier_of(rig, cached=cached) as verifier, serving(stack, verifier) as port:
        assert await outcomes(port, token) == {REFUSED}


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ([LOOPBACK], ADMITTED),
        ([ELSEWHERE, LOOPBACK], ADMITTED),
        (["::ffff:127.0.0.0/104"], ADMITTED),
        ([ELSEWHERE], REFUSED),
        (["127.0.0.2/32"], REFUSED),
        (["::/0"], REFUSED),
    ],
)
async def test_a_token_bound_to_networks_is_good_from_inside_them_only(
    stack: str, rig: Rig, cached: bool, networks: list[str], expected: object
) -> None:
    token = issue(rig, allowed_networks=networks)
    async with verifier_of(rig, cached=cached) as verifier, serving(stack, verifier) as port:
        assert await outcomes(port, token) == {expected}


async def test_without_trusted_proxies_a_header_says_nothing(stack: str, rig: Rig, cached: bool) -> None:
    inside, outside = issue(rig, allowed_networks=[LOOPBACK]), issue(rig, allowed_networks=[CALLERS])
    async with verifier_of(rig, cached=cached) as verifier, serving(stack, verifier) as port:
        assert await outcomes(port, outside, CALLER) == {REFUSED}
        assert await outcomes(port, inside, CALLER) == {ADMITTED}


async def test_behind_a_trusted_proxy_the_caller_is_whom_it_names_last(stack: str, rig: Rig, cached: bool) -> None:
    token, of_proxy = issue(rig, allowed_networks=[CALLERS]), issue(rig, allowed_networks=[LOOPBACK])
    async with (
        verifier_of(rig, cached=cached) as verifier,
        serving(stack, verifier, trusted_proxies=(PROXIES,)) as port,
    ):
        assert await outcomes(port, token, CALLER) == {ADMITTED}
        assert await outcomes(port, token, "198.51.100.9", CALLER) == {ADMITTED}
        # What the caller wrote itself stands before what the proxy appended.
        assert await outcomes(port, token, f"{CALLER}, 198.51.100.9") == {REFUSED}
        assert await outcomes(port, token, CALLER, "198.51.100.9") == {REFUSED}
        assert await outcomes(port, token, "junk") == {REFUSED}
        # A proxy that says nothing vouches for nobody, and is nobody's address.
        assert await outcomes(port, token) == {REFUSED}
        assert await outcomes(port, of_proxy) == {REFUSED}


async def test_a_header_of_one_who_is_no_trusted_proxy_says_nothing(stack: str, rig: Rig, cached: bool) -> None:
    token = issue(rig, allowed_networks=[CALLERS])
    async with (
        verifier_of(rig, cached=cached) as verifier,
        serving(stack, verifier, trusted_proxies=(ELSEWHERE,)) as port,
    ):
        assert await outcomes(port, token, CALLER) == {REFUSED}


async def test_every_binding_has_to_match(stack: str, rig: Rig, cached: bool, certificates: Authority) -> None:
    own, other = certificates.client(), certificates.client("billing")
    good = issue(rig, allowed_networks=[LOOPBACK], certificate_sha256=sha256(own))
    elsewhere = issue(rig, allowed_networks=[ELSEWHERE], certificate_sha256=sha256(own))
    async with (
        verifier_of(rig, cached=cached) as verifier,
        serving(stack, verifier, credentials=certificates.server_credentials(mutual=True)) as port,
    ):
        ours, theirs = certificates.channel_credentials(own), certificates.channel_credentials(other)
        assert await outcomes(port, good, credentials=ours) == {ADMITTED}
        assert await outcomes(port, good, credentials=theirs) == {REFUSED}
        assert await outcomes(port, elsewhere, credentials=ours) == {REFUSED}


async def test_who_does_not_match_is_not_told_which_scopes_the_token_lacks(stack: str, rig: Rig, cached: bool) -> None:
    here, elsewhere = (
        rig.authority.issue("alice", scopes=["other.use"], audiences=["orders"], allowed_networks=[network])
        for network in (LOOPBACK, ELSEWHERE)
    )
    async with verifier_of(rig, cached=cached) as verifier, serving(stack, verifier) as port:
        assert await outcomes(port, here) == {(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")}
        assert await outcomes(port, elsewhere) == {REFUSED}


async def test_a_stream_stays_open_when_its_bound_token_is_judged_again(
    stack: str, rig: Rig, certificates: Authority
) -> None:
    own = certificates.client()
    token = issue(rig, allowed_networks=[LOOPBACK], certificate_sha256=sha256(own))
    async with rig.attached() as subject:
        credentials = certificates.server_credentials(mutual=True)
        async with serving(stack, subject.verifier, credentials=credentials) as port:
            with connected(port, certificates.channel_credentials(own)) as channel:
                requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
                call: Any = channel.stream_stream(path("Both"))(
                    iter(requests.get, None), metadata=bearer(token), timeout=SECONDS_MAX
                )
                for flushes in range(1, 3):
                    requests.put(b"1")
                    assert await asyncio.to_thread(next, call) == b"alice"
                    asked = subject.status().misses
                    rig.watch.reset()
                    await until(partial(_has_asked_again, subject, asked))
                    assert subject.status().flushes == flushes + 1
                requests.put(b"1")
                assert await asyncio.to_thread(next, call) == b"alice"
                # It is judged all the same.
                rig.authority.revoke(token)
                with pytest.raises(grpc.RpcError) as caught:
                    await asyncio.to_thread(next, call)
                requests.put(None)
                assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED)


async def test_a_stream_lives_on_when_its_token_is_rotated_and_ends_with_what_the_token_loses(
    stack: str, rig: Rig
) -> None:
    rotated, narrowed = issue(rig), issue(rig)
    async with rig.attached() as subject, serving(stack, subject.verifier) as port:
        with connected(port) as channel:
            for token in (rotated, narrowed):
                requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
                call: Any = channel.stream_stream(path("Both"))(
                    iter(requests.get, None), metadata=bearer(token), timeout=SECONDS_MAX
                )
                requests.put(b"1")
                assert await asyncio.to_thread(next, call) == b"alice"
                asked = subject.status().misses
                if token is rotated:
                    rig.authority.rotate(token, grace_seconds=3_600.0)
                    # The stream says nothing, and is looked at all the same.
                    await until(partial(_has_asked_again, subject, asked))
                    requests.put(b"1")
                    assert await asyncio.to_thread(next, call) == b"alice"
                else:
                    rig.authority.narrow(token[3:25], remove_scopes=["echo.use"])
                    with pytest.raises(grpc.RpcError) as caught:
                        await asyncio.to_thread(next, call)
                    assert caught.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.CANCELLED)
                requests.put(None)
                call.cancel()


def _has_asked_again(subject: Subject, asked: int) -> bool:
    return subject.status().misses > asked


async def test_verdicts_on_bound_tokens_admit_nobody_by_themselves(cached: bool) -> None:
    rig = Rig("aio")
    token = issue(rig, allowed_networks=[LOOPBACK])
    async with verifier_of(rig, cached=cached) as verifier:
        for scopes, inner in ((("echo.use",), Active), (("other.use",), Insufficient)) * 2:
            verdict = await verifier.check(token, scopes)
            assert isinstance(verdict, Bound)
            assert not isinstance(verdict, Active)
            assert isinstance(verdict.verdict, inner)
            with pytest.raises(TypeError, match="neither true nor false"):
                bool(verdict)


@pytest.mark.parametrize("wrong", [("10.0.0.1/8",), ("10.0.0.1",), "10.0.0.0/8"])
async def test_proxies_that_are_no_networks_are_refused_when_the_service_starts(wrong: Any, stack: str) -> None:
    authority = FakeAuthority()
    verifier = authority.blocking_verifier() if stack == "sync" else authority.verifier()
    with pytest.raises(NetworkError):
        async with serving(stack, verifier, trusted_proxies=wrong):
            pass
