"""Many verifiers in one process, each as its service would have it: a CachingVerifier with a connection of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import uvloop

from bench.conversation import Child, answer_questions, child
from bench.figures import MeasurementError
from bench.population import SCOPE
from watchword.aio import CachingVerifier, connect
from watchword.verifier import Active

_ATTACH_SECONDS_MAX: Final = 30.0
# Without it gRPC gives channels to the same address one connection.
_OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)


class Watchers:
    """What the child process holds."""

    def __init__(self) -> None:
        self._verifiers: list[CachingVerifier] = []

    async def open(self, ports: Sequence[int], secret: str, count: int, lease_seconds: float) -> None:
        """So many verifiers, in turn at each of the ports."""
        for number in range(count):
            channel = connect(f"127.0.0.1:{ports[number % len(ports)]}", token=secret, options=_OWN_CONNECTION)
            verifier = CachingVerifier(channel, name="bench", lease_seconds=lease_seconds)
            await verifier.start()
            self._verifiers.append(verifier)

    async def close(self) -> None:
        """Gives all leases back: revocations that come later would wait for them."""
        await asyncio.gather(*(verifier.close() for verifier in self._verifiers))

    async def caching(self) -> int:
        """How many answer from memory now."""
        return sum(verifier.status().caching for verifier in self._verifiers)

    async def learn(self, tokens: Sequence[str]) -> int:
        """Has every verifier asked about every token twice; how many answers of the second time came from memory."""
        hits = [verifier.status().hits for verifier in self._verifiers]
        for _ in range(2):
            await self.accepting(tokens)
        return sum(verifier.status().hits for verifier in self._verifiers) - sum(hits)

    async def accepting(self, tokens: Sequence[str]) -> int:
        """How many times one of the verifiers accepts one of the tokens."""
        verdicts = [
            verdict
            for token in tokens
            for verdict in await asyncio.gather(*(verifier.check(token, (SCOPE,)) for verifier in self._verifiers))
        ]
        return sum(isinstance(verdict, Active) for verdict in verdicts)


@dataclass(frozen=True, slots=True)
class Watching:
    """The running process and its number of verifiers."""

    child: Child
    count: int

    def wait_until_caching(self) -> None:
        """Raises MeasurementError unless all have a lease soon."""
        for _ in range(int(_ATTACH_SECONDS_MAX / 0.1)):
            if self.child.ask("caching") == self.count:
                return
            time.sleep(0.1)
        raise MeasurementError(f"not all of {self.count} verifiers were granted a lease")

    def learn(self, tokens: Sequence[str]) -> None:
        """Raises MeasurementError unless every verifier then knows every token."""
        wanted = self.count * len(tokens)
        if self.child.ask("learn", tokens=list(tokens)) != wanted:
            raise MeasurementError("the verifiers do not remember what they were told")

    def accepting(self, tokens: Sequence[str]) -> int:
        """How many times one of the verifiers accepts one of the tokens."""
        return int(self.child.ask("accepting", tokens=list(tokens)))


@contextmanager
def watching(ports: Sequence[int], secret: str, *, count: int, lease_seconds: float = 60.0) -> Iterator[Watching]:
    """A process with so many verifiers under live leases."""
    with child("bench.watchers") as running:
        running.ask("open", ports=list(ports), secret=secret, count=count, lease_seconds=lease_seconds)
        watchers = Watching(running, count)
        watchers.wait_until_caching()
        yield watchers
        running.ask("close")


async def main() -> None:
    watchers = Watchers()
    await answer_questions(
        {
            "open": watchers.open,
            "close": watchers.close,
            "caching": watchers.caching,
            "learn": watchers.learn,
            "accepting": watchers.accepting,
        }
    )


if __name__ == "__main__":
    uvloop.run(main())
