"""Clients whose tokens renew themselves, calling all the while: a process of them, in grpc.aio or in threads.

Each has a token's file, which it may share with clients of other processes, a channel to the authority and one to the
service that it calls. Every call is counted, and every failed one is told.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import grpc

from bench.conversation import Child, answer_questions, child
from bench.service import METHOD
from watchword import aio, error_info, sync

Stack = Literal["aio", "sync"]

_CALL_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class Work:
    """What every client of a process does."""

    authority: str
    service: str
    ttl_seconds: float
    grace_seconds: float
    pause_seconds: float
    """Between two calls."""


class Counted:
    """What the clients of a process met with."""

    def __init__(self) -> None:
        self.calls = 0
        self.failures: Counter[str] = Counter()
        self.tokens: list[aio.RenewingToken | sync.RenewingToken] = []

    def failed(self, error: Exception) -> None:
        info = error_info(error)
        code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
        self.failures[f"{code or type(error).__name__} {info.reason if info else ''}".strip()] += 1

    def told(self) -> dict[str, Any]:
        return {
            "clients": len(self.tokens),
            "calls": self.calls,
            "failures": dict(self.failures),
            "rotations": sum(token.status().renewals_count for token in self.tokens),
            "errors": dict(Counter(token.status().last_error for token in self.tokens if token.status().last_error)),
        }


class AioClients:
    """Each a task."""

    def __init__(self) -> None:
        self.counted: Final = Counted()
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, files: Sequence[str], work: Work) -> None:
        self._tasks = [asyncio.create_task(self._run(file, work)) for file in files]

    async def close(self) -> None:
        self._leaving.set()
        await asyncio.gather(*self._tasks)

    async def _run(self, file: str, work: Work) -> None:
        token = aio.RenewingToken.file(file, ttl_seconds=work.ttl_seconds, grace_seconds=work.grace_seconds)
        self.counted.tokens.append(token)
        async with (
            aio.connect(work.authority, token=token) as authority,
            token.renewing(authority),
            aio.connect(work.service, token=token) as service,
        ):
            call: Any = service.unary_unary(METHOD)
            while not self._leaving.is_set():
                self.counted.calls += 1
                try:
                    await call(b"", timeout=_CALL_SECONDS_MAX)
                except grpc.RpcError as error:
                    self.counted.failed(error)
                await asyncio.sleep(work.pause_seconds)


class SyncClients:
    """Each a thread."""

    def __init__(self) -> None:
        self.counted: Final = Counted()
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []

    async def open(self, files: Sequence[str], work: Work) -> None:
        self._threads = [threading.Thread(target=self._run, args=(file, work)) for file in files]
        for thread in self._threads:
            thread.start()

    async def close(self) -> None:
        self._leaving.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self, file: str, work: Work) -> None:
        token = sync.RenewingToken.file(file, ttl_seconds=work.ttl_seconds, grace_seconds=work.grace_seconds)
        self.counted.tokens.append(token)
        with (
            sync.connect(work.authority, token=token) as authority,
            token.renewing(authority),
            sync.connect(work.service, token=token) as service,
        ):
            call: Any = service.unary_unary(METHOD)
            while not self._leaving.wait(work.pause_seconds):
                self.counted.calls += 1
                try:
                    call(b"", timeout=_CALL_SECONDS_MAX)
                except grpc.RpcError as error:
                    self.counted.failed(error)


@contextmanager
def renewers(stack: Stack) -> Iterator[Child]:
    """A process that is ready to have clients."""
    with child("bench.renewers", [stack]) as running:
        yield running
        running.ask("close")


def open_renewers(process: Child, files: Sequence[str], work: Work) -> None:
    """A client for each of the files begins to work there."""
    process.ask("open", files=list(files), **asdict(work))


async def main(stack: str) -> None:
    clients = AioClients() if stack == "aio" else SyncClients()

    async def begin(files: list[str], **work: Any) -> None:
        await clients.open(files, Work(**work))

    async def status() -> dict[str, Any]:
        return clients.counted.told()

    await answer_questions({"open": begin, "status": status, "close": clients.close})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
