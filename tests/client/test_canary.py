"""A token that goes through every path on the caller's and the service's side is found in no log, error or repr."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import grpc
import pytest

from tests.client.echo import KINDS, POLICY, aio_call, aio_echo, bearer, sync_call, sync_echo
from watchword import VerifierUnavailableError, aio, sync
from watchword.interceptor.call_aio import Call, Offers
from watchword.testing import FakeAuthority, serve
from watchword.verifier.caching import Caching

SECRET_PART = slice(25, 58)


async def failing(request: Any, context: Any) -> bytes:
    raise RuntimeError("the handler's own failure")


async def failing_stream(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield b"1"
    raise RuntimeError("the handler's own failure")


def failing_blocking(request: Any, context: Any) -> Any:
    raise RuntimeError("the handler's own failure")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_token_of_a_call_shows_nowhere(
    kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    authority = FakeAuthority()
    own = authority.issue("echo", scopes=["watchword.validate"], audiences=["watchword"])
    canaries = {
        "good": authority.issue("alice", scopes=["echo.use"]),
        "narrow": authority.issue("alice", scopes=["other"]),
        "revoked": authority.issue("alice", scopes=["echo.use"]),
    }
    canaries["broken"] = canaries["good"][:-1] + ("0" if canaries["good"][-1] != "0" else "1")
    authority.revoke(canaries["revoked"])
    said: list[str] = []
    behaviours = {"Unary": failing, "Down": failing_stream, "Up": failing, "Both": failing_stream}

    def blocking(address: str) -> None:
        with sync.connect(address, token=own) as channel:
            verifier = sync.RemoteVerifier(channel)
            said.append(repr(verifier) + repr(vars(verifier)))
            with sync_echo(verifier, dict.fromkeys(KINDS, failing_blocking)) as echo:
                for token in canaries.values():
                    with pytest.raises(grpc.RpcError) as caught:
                        sync_call(echo, kind, bearer(token))
                    said.append(str(caught.value) + repr(caught.value))

    with serve(authority) as address:
        async with aio.connect(address, token=own) as channel:
            verifier = aio.RemoteVerifier(channel)
            said.append(repr(verifier) + repr(vars(verifier)))
            async with aio_echo(verifier, behaviours) as echo:
                for token in canaries.values():
                    with pytest.raises(grpc.RpcError) as caught:
                        await aio_call(echo, kind, bearer(token))
                    said.append(str(caught.value) + repr(caught.value))
            with authority.unavailable(), pytest.raises(VerifierUnavailableError) as unavailable:
                await verifier.check(canaries["good"], ())
            said.append(str(unavailable.value) + repr(unavailable.value))
        await asyncio.to_thread(blocking, address)
    said.extend(
        (repr(authority), repr(vars(authority)), repr(POLICY), repr(Call(Offers(verifier), canaries["good"], ())))
    )
    said.extend((caplog.text, *capfd.readouterr()))
    everything = "\n".join(said)
    assert "the handler's own failure" in everything
    for secret in (own, *canaries.values()):
        assert secret[SECRET_PART] not in everything


def held(root: object) -> Iterator[str]:
    """Every text that is held below an object, bytes as text, and how each thing there shows itself. Not what functions
    enclose: those of an open stream hold its token, as its call does."""
    seen = {id(root)}
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        yield thing.decode("latin-1") if isinstance(thing, bytes) else thing if isinstance(thing, str) else repr(thing)
        for other in gc.get_referents(thing):
            if id(other) not in seen and not isinstance(other, type | ModuleType | FunctionType | BuiltinFunctionType):
                seen.add(id(other))
                waiting.append(other)


def cache_texts(verifier: Caching, good: str) -> str:
    assert verifier.status().caching
    assert verifier.status().entries == 2
    assert verifier.status().negative_entries == 2
    texts = [*held(verifier._cache), repr(vars(verifier)), repr(verifier.status())]
    assert good[3:25] in texts, "the public half is what changes name"
    return "\n".join(texts)


async def test_what_a_caching_verifier_remembers_shows_no_token(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    authority = FakeAuthority()
    own = authority.issue("echo", scopes=["watchword.validate"], audiences=["watchword"])
    good, narrow, revoked = (
        authority.issue("alice", scopes=["echo.use"]),
        authority.issue("alice", scopes=["other"]),
        authority.issue("alice", scopes=["echo.use"]),
    )
    forged = FakeAuthority().issue()
    authority.revoke(revoked)
    said: list[str] = []

    def blocking(address: str) -> None:
        with sync.connect(address, token=own) as channel:
            verifier = sync.CachingVerifier(channel, name="echo")
            verifier.start()
            while not verifier.status().caching:
                verifier.check(good, ())
            said.extend(repr(verifier.check(token, ("echo.use",))) for token in (good, narrow, revoked, forged) * 2)
            said.append(cache_texts(verifier, good))
            verifier.close()

    with serve(authority) as address:
        async with aio.connect(address, token=own) as channel:
            verifier = aio.CachingVerifier(channel, name="echo")
            await verifier.start()
            while not verifier.status().caching:
                await verifier.check(good, ())
            behaviours = {"Unary": failing, "Down": failing_stream, "Up": failing, "Both": failing_stream}
            async with aio_echo(verifier, behaviours) as echo:
                for kind in KINDS:
                    for token in (good, narrow, revoked, forged):
                        with pytest.raises(grpc.RpcError) as caught:
                            await aio_call(echo, kind, bearer(token))
                        said.append(str(caught.value) + repr(caught.value))
            said.append(cache_texts(verifier, good))
            with authority.unavailable(), suppress(VerifierUnavailableError):
                await verifier.check(FakeAuthority().issue(), ())
            await verifier.close()
        await asyncio.to_thread(blocking, address)
    said.extend((caplog.text, *capfd.readouterr()))
    everything = "\n".join(said)
    assert "checks are cached" in everything
    for secret in (own, good, narrow, revoked, forged):
        assert secret[SECRET_PART] not in everything
