"""The verifiers under test, with every decision written down, and on demand with a defect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from tests.history import defects
from tests.history.events import now
from watchword import aio, sync
from watchword.lease import Clock
from watchword.verifier.verdict import Verdict

if TYPE_CHECKING:
    from tests.history.verifier_process import Configuration, Recorder


class RecordedVerifier(aio.CachingVerifier):
    """For grpc.aio."""

    def __init__(self, recorder: Recorder, channel: grpc.aio.Channel, **settings: Any) -> None:
        super().__init__(channel, **settings)
        self.recorder: Final = recorder

    def check_now(self, token: str, required_scopes: tuple[str, ...]) -> Verdict | None:
        """See CachingVerifier."""
        invoked = now()
        verdict = super().check_now(token, required_scopes)
        if verdict is not None:
            self.recorder.decided(token, invoked, verdict)
        return verdict

    async def check(self, token: str, required_scopes: tuple[str, ...], **peer: Any) -> Verdict:
        """See CachingVerifier."""
        invoked, verdict = now(), None
        try:
            verdict = await super().check(token, required_scopes, **peer)
        finally:
            self.recorder.decided(token, invoked, verdict)
        return verdict


class RecordedBlockingVerifier(sync.CachingVerifier):
    """For the thread-pool server."""

    def __init__(self, recorder: Recorder, channel: grpc.Channel, **settings: Any) -> None:
        super().__init__(channel, **settings)
        self.recorder: Final = recorder

    def check_now(self, token: str, required_scopes: tuple[str, ...]) -> Verdict | None:
        """See CachingVerifier."""
        invoked = now()
        verdict = super().check_now(token, required_scopes)
        if verdict is not None:
            self.recorder.decided(token, invoked, verdict)
        return verdict

    def check(self, token: str, required_scopes: tuple[str, ...], **peer: Any) -> Verdict:
        """See CachingVerifier."""
        invoked, verdict = now(), None
        try:
            verdict = super().check(token, required_scopes, **peer)
        finally:
            self.recorder.decided(token, invoked, verdict)
        return verdict


def aio_verifier(
    channel: grpc.aio.Channel, configuration: Configuration, clock: Clock, recorder: Recorder
) -> RecordedVerifier:
    """As configured."""
    made = RecordedVerifier(recorder, channel, **_settings(configuration, clock))
    defects.spoil(made, clock, configuration.defect)
    return made


def blocking_verifier(
    channel: grpc.Channel, configuration: Configuration, clock: Clock, recorder: Recorder
) -> RecordedBlockingVerifier:
    """As configured."""
    made = RecordedBlockingVerifier(recorder, channel, **_settings(configuration, clock))
    defects.spoil(made, clock, configuration.defect)
    return made


def _settings(configuration: Configuration, clock: Clock) -> dict[str, Any]:
    return {"name": configuration.name, "lease_seconds": configuration.lease_seconds, "clock": clock}
