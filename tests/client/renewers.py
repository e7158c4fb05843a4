"""Tokens that renew themselves, of both stacks behind one face: the same tests for both."""

from __future__ import annotations

import asyncio
import random
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tests.client.rotating import Rotating
from watchword import TokenSource, aio, sync
from watchword.credentials.place import HandedToken
from watchword.credentials.place_file import SharedTokenFile
from watchword.credentials.renewal import Renewal


class Renewer(Protocol):
    """A token that renews itself, driven from a test's event loop."""

    token: Any

    async def start(self, address: str) -> None: ...
    async def close(self) -> None: ...


class AioRenewer:
    def __init__(self, token: aio.RenewingToken) -> None:
        self.token = token
        self._channel: Any = None

    async def start(self, address: str) -> None:
        self._channel = aio.connect(address, token=self.token)
        await self.token.start(self._channel)

    async def close(self) -> None:
        await self.token.close()
        if self._channel is not None:
            await self._channel.close()


class SyncRenewer:
    def __init__(self, token: sync.RenewingToken) -> None:
        self.token = token
        self._channel: Any = None

    async def start(self, address: str) -> None:
        self._channel = sync.connect(address, token=self.token)
        self.token.start(self._channel)

    async def close(self) -> None:
        await asyncio.to_thread(self.token.close)
        if self._channel is not None:
            await asyncio.to_thread(self._channel.close)


STACKS = ("aio", "sync")


@dataclass(frozen=True, slots=True)
class Kept:
    """A token's file."""

    path: Path

    def put(self, secret: str) -> None:
        self.path.write_text(secret)

    def get(self) -> str:
        return self.path.read_text().strip()

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.path.stat().st_mode)

    @property
    def beside(self) -> list[str]:
        """What else is in its folder, but for the lock."""
        return sorted(
            {entry.name for entry in self.path.parent.iterdir()} - {self.path.name, f".{self.path.name}.lock"}
        )


def early(low: float, high: float) -> float:
    """Chance, but for a tenth of what it should be: renewing is due long before the end, also on a busy machine."""
    return random.uniform(low, high) / 10


def from_file(stack: str, kept: Kept, **settings: Any) -> Renewer:
    """A token in a file, renewed between 6 and 8 % of its life."""
    new_renewal = partial(Renewal, uniform=early, **settings)
    place = SharedTokenFile(kept.path)
    if stack == "aio":
        return AioRenewer(aio.RenewingToken(place, new_renewal))
    return SyncRenewer(sync.RenewingToken(place, new_renewal))


def handing_to(stack: str, store: Callable[[str], Any], token: TokenSource | str, **settings: Any) -> Renewer:
    """A token that is handed to `store`, renewed as early."""
    new_renewal = partial(Renewal, uniform=early, **settings)
    place = HandedToken(token, store)
    if stack == "aio":
        return AioRenewer(aio.RenewingToken(place, new_renewal))
    return SyncRenewer(sync.RenewingToken(place, new_renewal))


@asynccontextmanager
async def renewing(renewer: Renewer, address: str) -> AsyncIterator[Any]:
    """Started, and closed at the end."""
    await renewer.start(address)
    try:
        yield renewer.token
    finally:
        await renewer.close()


class Caller:
    """Asks for the token all the time, as calls do, and counts those that would have been refused."""

    def __init__(self, service: Rotating, *tokens: Any) -> None:
        self.calls = 0
        self.failed = 0
        self._service = service
        self._tokens = tokens
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Caller:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        assert self.calls > 0

    async def _run(self) -> None:
        while True:
            for token in self._tokens:
                self.calls += 1
                self.failed += not self._service.is_live(token.token())
            await asyncio.sleep(0)
