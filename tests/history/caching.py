"""The verifiers under test, with every decision written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from tests.history.events import now
from watchword import aio, sync
from watchword.lease import Clock
from watchword.verifier.verdict import Verdict

if TYPE_CHECKING:
    from tests.history.verifier_process import Configuration, Recorder


class _Aio(aio.RemoteVerifier):
    def __init__(self, recorder: Recorder, channel: Any, **settings: Any) -> None:
        super().__init__(channel, **settings)
        self._recorder = recorder

    async def check(self, token: str, required_scopes: tuple[str, ...], **peer: Any) -> Verdict:
        invoked, verdict = now(), None
        try:
            verdict = await super().check(token, required_scopes, **peer)
            return verdict
        finally:
            self._recorder.decided(token, invoked, verdict)


class _Blocking(sync.RemoteVerifier):
    def __init__(self, recorder: Recorder, channel: Any, **settings: Any) -> None:
        super().__init__(channel, **settings)
        self._recorder = recorder

    def check(self, token: str, required_scopes: tuple[str, ...], **peer: Any) -> Verdict:
        invoked, verdict = now(), None
        try:
            verdict = super().check(token, required_scopes, **peer)
            return verdict
        finally:
            self._recorder.decided(token, invoked, verdict)


def aio_verifier(channel: grpc.aio.Channel, configuration: Configuration, clock: Clock, recorder: Recorder) -> _Aio:
    return _Aio(recorder, channel)


def blocking_verifier(
    channel: grpc.Channel, configuration: Configuration, clock: Clock, recorder: Recorder
) -> _Blocking:
    return _Blocking(recorder, channel)


def counts(verifier: Any) -> tuple[int, int, bool]:
    return 0, 0, True
