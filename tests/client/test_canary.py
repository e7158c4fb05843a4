"""A token that goes through every path on the caller's and the service's side is found in no log, error or repr."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.client.echo import KINDS, POLICY, aio_call, aio_echo, bearer, sync_call, sync_echo
from watchword import VerifierUnavailableError, aio, sync
from watchword.interceptor.call_aio import Call, Offers
from watchword.testing import FakeAuthority, serve

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
