"""The caching verifiers of both stacks behind one face, and the authority they watch: the same tests for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol

from watchword import aio, sync
from watchword.fake_watch import FakeWatch
from watchword.testing import FakeAuthority, serve
from watchword.verifier import Verdict
from watchword.verifier.status import VerifierStatus

WAIT_SECONDS_MAX = 30.0
LEASE_SECONDS = 30.0


class Subject(Protocol):
    """A caching verifier, asked from a test's event loop."""

    verifier: Any

    async def start(self) -> None: ...
    async def check(self, token: str, *scopes: str) -> Verdict: ...
    async def close(self) -> None: ...
    def status(self) -> VerifierStatus: ...


class AioSubject:
    def __init__(self, verifier: aio.CachingVerifier) -> None:
        self.verifier = verifier

    async def start(self) -> None:
        await self.verifier.start()

    async def check(self, token: str, *scopes: str) -> Verdict:
        return await self.verifier.check(token, scopes)

    async def close(self) -> None:
        await self.verifier.close()

    def status(self) -> VerifierStatus:
        return self.verifier.status()


class SyncSubject:
    def __init__(self, verifier: sync.CachingVerifier) -> None:
        self.verifier = verifier

    async def start(self) -> None:
        self.verifier.start()

    async def check(self, token: str, *scopes: str) -> Verdict:
        return await asyncio.to_thread(self.verifier.check, token, scopes)

    async def close(self) -> None:
        await asyncio.to_thread(self.verifier.close)

    def status(self) -> VerifierStatus:
        return self.verifier.status()


class Rig:
    """A served authority and the way to verifiers that watch it."""

    def __init__(
        self, kind: str, lease_seconds: float = LEASE_SECONDS, usage_every_seconds: float | None = None
    ) -> None:
        self.kind = kind
        self.authority = FakeAuthority()
        self.watch = FakeWatch(self.authority, lease_seconds, usage_every_seconds)
        self.own_token = self.authority.issue("orders", scopes=["watchword.validate"], audiences=["watchword"])

    def issue(self, *scopes: str) -> str:
        return self.authority.issue("alice", scopes=scopes, audiences=["orders"])

    async def revoke(self, token: str) -> int:
        """As Revoke over the wire: returns when every verifier knows; how many did so."""
        self.authority.revoke(token)
        return await asyncio.to_thread(self.watch.wait_everywhere, self.authority.position)

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Inside, revocations are told to nobody."""
        listeners, self.authority._listeners[:] = list(self.authority._listeners), []
        try:
            yield
        finally:
            self.authority._listeners[:] = listeners

    @asynccontextmanager
    async def subject(self, **settings: Any) -> AsyncIterator[Subject]:
        """A verifier that watches the authority served here."""
        with serve(self.authority, watch=self.watch) as address:
            async with self.subject_at(address, **settings) as subject:
                yield subject

    @asynccontextmanager
    async def subject_at(self, address: str, **settings: Any) -> AsyncIterator[Subject]:
        arguments = {"name": "orders", "timeout_seconds": WAIT_SECONDS_MAX, **settings}
        subject: Subject
        if self.kind == "aio":
            async with aio.connect(address, token=self.own_token) as channel:
                subject = AioSubject(aio.CachingVerifier(channel, **arguments))
                try:
                    yield subject
                finally:
                    await subject.close()
        else:
            with sync.connect(address, token=self.own_token) as blocking_channel:
                subject = SyncSubject(sync.CachingVerifier(blocking_channel, **arguments))
                try:
                    yield subject
                finally:
                    await subject.close()

    def attached(self, **settings: Any) -> AbstractAsyncContextManager[Subject]:
        """A verifier that already caches."""
        return self._attached(settings)

    @asynccontextmanager
    async def _attached(self, settings: dict[str, Any]) -> AsyncIterator[Subject]:
        async with self.subject(**settings) as subject:
            await subject.start()
            await until(lambda: subject.status().caching)
            yield subject


async def until(holds: Callable[[], object]) -> None:
    """Waits for what another task or thread brings about."""
    tick = asyncio.Event()
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not holds():
            try:
                async with asyncio.timeout(0.005):
                    await tick.wait()
            except TimeoutError:
                continue
