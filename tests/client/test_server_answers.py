"""What the interceptors answer, for both stacks and all four kinds of call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from tests.client.echo import (
    KINDS,
    POLICY,
    aio_call,
    aio_echo,
    bearer,
    generic,
    refusal,
    sync_call,
    sync_echo,
)
from watchword import PUBLIC, NoIdentityError, Policy, aio, current_identity, error_info, retry_delay_seconds, sync
from watchword.testing import FakeAuthority
from watchword.verifier import Verdict

Code = grpc.StatusCode


def whoami() -> bytes:
    return current_identity().subject.encode()


class AioEcho:
    async def unary(self, request: bytes, context: Any) -> bytes:
        return whoami()

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield whoami()
        yield request

    async def up(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return whoami() + b"".join([one async for one in requests])

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield whoami() + request

    async def down_writes(self, request: bytes, context: Any) -> None:
        await context.write(whoami())
        await context.write(request)

    async def up_reads(self, requests: Any, context: Any) -> bytes:
        received = b""
        while (one := await context.read()) is not grpc.aio.EOF:
            received += one
        return whoami() + received

    async def both_writes(self, requests: Any, context: Any) -> None:
        while (one := await context.read()) is not grpc.aio.EOF:
            await context.write(whoami() + one)


class SyncEcho:
    def unary(self, request: bytes, context: Any) -> bytes:
        return whoami()

    def down(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield whoami()
        yield request

    def up(self, requests: Iterator[bytes], context: Any) -> bytes:
        return whoami() + b"".join(requests)

    def both(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield whoami() + request


def kinds_of(echo: Any) -> dict[str, Any]:
    return {"Unary": echo.unary, "Down": echo.down, "Up": echo.up, "Both": echo.both}


AIO = AioEcho()
WRITING = {"Unary": AIO.unary, "Down": AIO.down_writes, "Up": AIO.up_reads, "Both": AIO.both_writes}
SYNC = kinds_of(SyncEcho())
# What grpc.aio runs: generators, coroutines that read and write, and plain functions in threads.
AIO_FORMS = [
    pytest.param(kinds_of(AIO), id="generators"),
    pytest.param(WRITING, id="writers"),
    pytest.param(SYNC, id="functions"),
]
ADMITTED = {"Unary": [b"alice"], "Down": [b"alice", b"1"], "Up": [b"alice1"], "Both": [b"alice1"]}


class Stack:
    """One server of either stack under test, asked through one call."""

    def __init__(self, name: str, authority: FakeAuthority) -> None:
        self.name = name
        self.authority = authority
        self.behaviours: dict[str, Any] = SYNC if name == "sync" else kinds_of(AIO)
        self.policy = POLICY

    async def call(self, method: str, metadata: Any, kind: str | None = None) -> list[bytes]:
        if self.name == "aio":
            verifier: Any = self.authority.verifier("echo")
            async with aio_echo(verifier, self.behaviours, self.policy) as channel:
                return await aio_call(channel, method, metadata, kind)
        return await asyncio.to_thread(self._call_sync, method, metadata, kind)

    def _call_sync(self, method: str, metadata: Any, kind: str | None) -> list[bytes]:
        with sync_echo(self.authority.blocking_verifier("echo"), self.behaviours, self.policy) as channel:
            return sync_call(channel, method, metadata, kind)

    async def refusal(self, method: str, metadata: Any, kind: str | None = None) -> tuple[Code, str | None]:
        return refusal(await self.failure(method, metadata, kind))

    async def failure(self, method: str, metadata: Any, kind: str | None = None) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            await self.call(method, metadata, kind)
        return caught.value


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture(params=["aio", "sync"])
def stack(request: pytest.FixtureRequest, authority: FakeAuthority) -> Stack:
    return Stack(request.param, authority)


@pytest.fixture
def good(authority: FakeAuthority) -> str:
    return authority.issue("alice", scopes=["echo.*"], audiences=["echo"])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_active_token_is_admitted_and_the_handler_knows_its_identity(
    stack: Stack, kind: str, good: str
) -> None:
    assert await stack.call(kind, bearer(good)) == ADMITTED[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behaviours", AIO_FORMS)
async def test_every_form_of_handler_is_admitted_and_refused_in_grpc_aio(
    authority: FakeAuthority, behaviours: dict[str, Any], kind: str, good: str
) -> None:
    async with aio_echo(authority.verifier("echo"), behaviours) as channel:
        assert await aio_call(channel, kind, bearer(good)) == ADMITTED[kind]
        authority.revoke(good)
        with pytest.raises(grpc.RpcError) as caught:
            await aio_call(channel, kind, bearer(good))
        assert refusal(caught.value) == (Code.UNAUTHENTICATED, "TOKEN_INACTIVE")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_without_a_token_is_unauthenticated(stack: Stack, kind: str) -> None:
    assert await stack.refusal(kind, ()) == (Code.UNAUTHENTICATED, "TOKEN_MISSING")
    assert stack.authority.checks_count == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_revoked_token_is_unauthenticated(stack: Stack, kind: str, good: str) -> None:
    stack.authority.revoke(good)
    assert await stack.refusal(kind, bearer(good)) == (Code.UNAUTHENTICATED, "TOKEN_INACTIVE")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lacking_scope_is_denied_and_named(stack: Stack, kind: str) -> None:
    token = stack.authority.issue("alice", scopes=["other.use"], audiences=["echo"])
    failure = await stack.failure(kind, bearer(token))
    assert refusal(failure) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
    info = error_info(failure)
    assert info is not None
    assert dict(info.metadata) == {"scope": "echo.use"}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_outage_refuses_as_unavailable_and_says_when_to_retry(stack: Stack, kind: str, good: str) -> None:
    with stack.authority.unavailable():
        failure = await stack.failure(kind, bearer(good))
    assert refusal(failure) == (Code.UNAVAILABLE, "VERIFIER_UNAVAILABLE")
    assert retry_delay_seconds(failure) == 1.0


async def test_a_token_for_another_service_is_inactive(stack: Stack) -> None:
    token = stack.authority.issue("alice", scopes=["echo.use"], audiences=["orders"])
    assert await stack.refusal("Unary", bearer(token)) == (Code.UNAUTHENTICATED, "TOKEN_INACTIVE")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("Bearer {}", None),
        ("bearer {}", None),
        ("bEARER {}", None),
        ("Bearer  {}", "TOKEN_MALFORMED"),
        ("Basic {}", "TOKEN_MALFORMED"),
        ("{}", "TOKEN_MALFORMED"),
        ("Bearer", "TOKEN_MALFORMED"),
        ("", "TOKEN_MALFORMED"),
        ("Bearer {}0", "TOKEN_MALFORMED"),
        ("Bearer x{}", "TOKEN_MALFORMED"),
        ("Bearer {}, Bearer {}", "TOKEN_AMBIGUOUS"),
        ("Bearer {},Bearer {}", "TOKEN_AMBIGUOUS"),
    ],
)
async def test_odd_authorization_values(stack: Stack, good: str, template: str, reason: str | None) -> None:
    metadata = (("authorization", template.format(good, good)),)
    if reason is None:
        assert await stack.call("Unary", metadata) == [b"alice"]
    else:
        assert await stack.refusal("Unary", metadata) == (Code.UNAUTHENTICATED, reason)


async def test_a_foreign_prefix_and_a_wrong_checksum_are_malformed(stack: Stack, good: str) -> None:
    foreign = FakeAuthority(token_prefix="xx_").issue("alice")
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    for token in (foreign, wrong):
        assert await stack.refusal("Unary", bearer(token)) == (Code.UNAUTHENTICATED, "TOKEN_MALFORMED")


async def test_two_authorization_entries_are_ambiguous_even_if_both_are_good(stack: Stack, good: str) -> None:
    assert await stack.refusal("Unary", bearer(good) * 2) == (Code.UNAUTHENTICATED, "TOKEN_AMBIGUOUS")


async def test_a_binary_entry_is_no_token(stack: Stack, good: str) -> None:
    metadata = (("authorization-bin", b"Bearer " + good.encode()),)
    assert await stack.refusal("Unary", metadata) == (Code.UNAUTHENTICATED, "TOKEN_MISSING")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["/test.Echo/Nowhere", "/other.Service/Unary", "/test.Echo/Unserved"])
async def test_only_authenticated_callers_learn_that_a_method_is_missing(
    stack: Stack, good: str, method: str, kind: str
) -> None:
    known_to_policy = method in stack.policy.rules
    revoked = stack.authority.issue("bob", audiences=["echo"])
    stack.authority.revoke(revoked)
    assert await stack.refusal(method, (), kind) == (Code.UNAUTHENTICATED, "TOKEN_MISSING")
    assert await stack.refusal(method, bearer(revoked), kind) == (Code.UNAUTHENTICATED, "TOKEN_INACTIVE")
    expected = (Code.UNIMPLEMENTED, None) if known_to_policy else (Code.PERMISSION_DENIED, "RULE_MISSING")
    assert await stack.refusal(method, bearer(good), kind) == expected


async def test_a_method_that_is_served_without_a_rule_is_denied(stack: Stack, good: str) -> None:
    stack.policy = Policy(table={"/test.Echo/Down": ["echo.use"]})
    assert await stack.refusal("Unary", bearer(good)) == (Code.PERMISSION_DENIED, "RULE_MISSING")


async def test_a_public_method_looks_at_no_token_and_has_no_identity(stack: Stack, good: str) -> None:
    async def aio_handler(request: bytes, context: Any) -> bytes:
        with pytest.raises(NoIdentityError):
            current_identity()
        return b"public"

    def sync_handler(request: bytes, context: Any) -> bytes:
        with pytest.raises(NoIdentityError):
            current_identity()
        return b"public"

    handler = sync_handler if stack.name == "sync" else aio_handler
    stack.behaviours = {"UnaryHealth": handler}
    stack.policy = Policy(table={"/test.Echo/UnaryHealth": PUBLIC})
    assert await stack.call("UnaryHealth", ()) == [b"public"]
    assert await stack.call("UnaryHealth", bearer(good) * 2) == [b"public"]
    assert stack.authority.checks_count == 0


class Broken:
    """A verifier with a bug."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def check(self, token: str, required_scopes: tuple[str, ...]) -> Verdict:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


class BrokenAio(Broken):
    async def check(self, token: str, required_scopes: tuple[str, ...]) -> Verdict:  # type: ignore[override]
        return super().check(token, required_scopes)


@pytest.mark.parametrize("answer", [True, None, "active", RuntimeError("canary")])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_verifier_that_misbehaves_admits_nobody(
    good: str, answer: object, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with aio_echo(BrokenAio(answer), kinds_of(AIO)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await aio_call(channel, kind, bearer(good))
    assert refusal(caught.value) == (Code.UNAVAILABLE, "VERIFIER_UNAVAILABLE")

    def blocking() -> None:
        with sync_echo(Broken(answer), SYNC) as channel, pytest.raises(grpc.RpcError) as failed:
            sync_call(channel, kind, bearer(good))
        assert refusal(failed.value) == (Code.UNAVAILABLE, "VERIFIER_UNAVAILABLE")

    await asyncio.to_thread(blocking)
    assert "canary" not in caplog.text
    assert good not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_are_parsed_only_for_admitted_callers_and_parser_text_stays_inside(
    authority: FakeAuthority, good: str, kind: str
) -> None:
    parsed: list[bytes] = []

    def parse(raw: bytes) -> bytes:
        parsed.append(raw)
        raise ValueError("canary")

    async with aio_echo(authority.verifier("echo"), generic(kinds_of(AIO), parse)) as channel:
        with pytest.raises(grpc.RpcError):
            await aio_call(channel, kind, ())
        assert parsed == []
        with pytest.raises(grpc.RpcError) as caught:
            await aio_call(channel, kind, bearer(good))
    assert caught.value.code() is Code.INTERNAL
    assert "canary" not in str(caught.value)

    def blocking() -> None:
        parsed.clear()
        with sync_echo(authority.blocking_verifier("echo"), generic(SYNC, parse)) as channel:
            with pytest.raises(grpc.RpcError):
                sync_call(channel, kind, ())
            assert parsed == []
            with pytest.raises(grpc.RpcError) as failed:
                sync_call(channel, kind, bearer(good))
        assert failed.value.code() is Code.INTERNAL
        assert "canary" not in str(failed.value)

    await asyncio.to_thread(blocking)


def test_no_identity_outside_a_call() -> None:
    with pytest.raises(NoIdentityError):
        current_identity()


async def test_a_thread_of_the_pool_forgets_the_identity_of_its_last_call(authority: FakeAuthority) -> None:
    def blocking() -> None:
        def public(request: bytes, context: Any) -> bytes:
            try:
                return whoami()
            except NoIdentityError:
                return b"nobody"

        policy = Policy(table={"/test.Echo/Unary": ["echo.use"], "/test.Echo/UnaryPublic": PUBLIC})
        behaviours = {"Unary": SYNC["Unary"], "UnaryPublic": public}
        token = authority.issue("alice", scopes=["echo.use"])
        with sync_echo(authority.blocking_verifier(), behaviours, policy, threads_count=1) as channel:
            for _ in range(20):
                assert sync_call(channel, "Unary", bearer(token)) == [b"alice"]
                assert sync_call(channel, "UnaryPublic", ()) == [b"nobody"]

    await asyncio.to_thread(blocking)


def test_the_other_stack_s_verifier_is_refused_at_once(authority: FakeAuthority) -> None:
    with pytest.raises(TypeError, match=r"watchword\.aio"):
        aio.ServerInterceptor(authority.blocking_verifier(), POLICY)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"watchword\.sync"):
        sync.ServerInterceptor(authority.verifier(), POLICY)  # type: ignore[arg-type]
