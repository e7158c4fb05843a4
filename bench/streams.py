"""Hundreds of watches from one process, as light as they can be: hello, then a renewal at its time, nothing else."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

import grpc
import uvloop
from google.protobuf.duration_pb2 import Duration

from bench.conversation import Child, answer_questions, child
from watchword.aio import connect
from watchword.v1 import token_service_pb2 as token_pb
from watchword.v1 import verifier_service_pb2 as pb
from watchword.v1.verifier_service_pb2_grpc import VerifierServiceStub

_OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)


class Streams:
    """What the child process holds."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._grants = 0
        self._nonces = itertools.count(1)

    async def open(self, port: int, secrets: Sequence[str], count: int, lease_seconds: int) -> float:
        """So many watches, each with a connection of its own, begun evenly over the time between two renewals; how
        often each renews, in seconds."""
        first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        for number in range(count):
            channel = connect(f"127.0.0.1:{port}", token=secrets[number % len(secrets)], options=_OWN_CONNECTION)
            self._tasks.append(asyncio.ensure_future(self._watch(channel, lease_seconds, first)))
            every_seconds = await first
            await asyncio.sleep(every_seconds / count)
        return every_seconds

    async def grants(self) -> int:
        """How many leases were granted so far. Raises if a watch has ended."""
        for task in self._tasks:
            if task.done():
                task.result()
        return self._grants

    async def close(self) -> None:
        """Gives all leases back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, channel: grpc.aio.Channel, lease_seconds: int, first: asyncio.Future[float]) -> None:
        call: Any = VerifierServiceStub(channel).Watch()
        hello = pb.Hello(verifier_key=uuid4().bytes, lease=Duration(seconds=lease_seconds), name="bench")
        await call.write(pb.WatchRequest(hello=hello))
        welcome = (await call.read()).welcome
        position: token_pb.Position = (await call.read()).reset.position
        every_seconds = welcome.renew_every.seconds + welcome.renew_every.nanos / 1e9
        try:
            while True:
                renew = pb.Renew(nonce=next(self._nonces), applied=position)
                await call.write(pb.WatchRequest(renew=renew))
                while not (message := await call.read()).HasField("grant"):
                    position.number = message.changes.changes[-1].number
                    await call.write(pb.WatchRequest(acknowledge=pb.Acknowledge(applied=position)))
                self._grants += 1
                if not first.done():
                    first.set_result(every_seconds)
                await asyncio.sleep(every_seconds)
        finally:
            await call.write(pb.WatchRequest(release=pb.Release()))
            await call.done_writing()


@contextmanager
def streams(port: int, secrets: Sequence[str], *, count: int, lease_seconds: int) -> Iterator[tuple[Child, float]]:
    """A process with so many watches, and how often each of them renews, in seconds."""
    with child("bench.streams") as running:
        every_seconds = running.ask("open", port=port, secrets=list(secrets), count=count, lease_seconds=lease_seconds)
        yield running, every_seconds
        running.ask("close")


async def main() -> None:
    held = Streams()
    await answer_questions({"open": held.open, "grants": held.grants, "close": held.close})


if __name__ == "__main__":
    uvloop.run(main())
