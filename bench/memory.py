"""A verifier that knows many tokens: how much memory that takes, and whether their number makes anything slower.

The answers are made up and go through the very code that reads those of the authority; so do the watch's messages.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final
from uuid import uuid4

import grpc
import psutil
import uvloop
from google.protobuf.duration_pb2 import Duration

from bench.conversation import answer_questions
from bench.population import SCOPE
from bench.service import POLICY, details_of, walk
from watchword.aio import CachingVerifier, ServerInterceptor
from watchword.lease import SystemClock
from watchword.token import new_token, new_token_id
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import verifier_service_pb2 as watch_pb
from watchword.verifier.cache import Cache
from watchword.verifier.limits import CacheLimits
from watchword.verifier.session import WatchSession
from watchword.verifier.wire import batch_answers

_BATCH: Final = 250
_HITS_AT_A_TIME: Final = 100
"""Presented by calls that have just arrived: the token's text is new, what is known of it was not touched for long."""
_LEASE: Final = Duration(seconds=3600)
_DAY: Final = Duration(seconds=86_400)


class Attached(WatchSession):
    """A watch without a network, attached at position 1 of an epoch of its own."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(
            cache, SystemClock(), lease_seconds=_LEASE.seconds, name="bench", instance="bench", library="bench"
        )
        self.position: Final = pb.Position(epoch=uuid4().bytes, number=1)
        self.hello()
        welcome = watch_pb.Welcome(lease=_LEASE, renew_every=Duration(seconds=10), position=self.position)
        self.receive(watch_pb.WatchResponse(welcome=welcome))
        self.receive(watch_pb.WatchResponse(reset=watch_pb.Reset(position=self.position)))
        self.renewed()

    def renewed(self) -> None:
        """One renewal, with what reading and writing its messages takes."""
        data = self.renew().SerializeToString()
        nonce = watch_pb.WatchRequest.FromString(data).renew.nonce
        grant = watch_pb.LeaseGrant(nonce=nonce, position=self.position, lease=_LEASE)
        data = watch_pb.WatchResponse(grant=grant).SerializeToString()
        self.receive(watch_pb.WatchResponse.FromString(data))


@dataclass(frozen=True, slots=True)
class Knowing:
    """A verifier that knows tokens, and some of those."""

    interceptor: ServerInterceptor
    cache: Cache
    session: Attached
    tokens: Sequence[str]


def knowing(entries: int, keep: int = 0) -> Knowing:
    """A verifier that knows so many tokens, of as many subjects, each with two scopes and an audience.

    About `keep` of the tokens themselves are kept, beside what it remembers.
    """
    limits = CacheLimits(entries_max=max(entries, CacheLimits().entries_max), bytes_max=entries * 1000 + 64 * 2**20)
    verifier = CachingVerifier(grpc.aio.insecure_channel("127.0.0.1:1"), name="bench", limits=limits)
    cache = verifier._cache
    assert cache is not None
    session = Attached(cache)
    tokens: list[str] = []
    for first in range(0, entries, _BATCH):
        made = [_new_text() for _ in range(min(_BATCH, entries - first))]
        _remember(cache, session.position, made, first)
        tokens += random.sample(made, min(len(made), -(-keep * len(made) // entries)))
    return Knowing(ServerInterceptor(verifier, POLICY), cache, session, tokens)


def _new_text() -> str:
    return new_token(new_token_id((int(time.time()) + 86_400) * 1000)).text.decode("ascii")


def _remember(cache: Cache, position: pb.Position, tokens: Sequence[str], first: int) -> None:
    response = pb.BatchValidateResponse(
        responses=[
            pb.ValidateResponse(
                active=pb.ActiveToken(
                    token_id=token[3:25],
                    subject=f"customer-{first + number:08d}@orders.example",
                    scopes=[SCOPE, "orders.write"],
                    audiences=["orders"],
                    remaining=_DAY,
                ),
                position=position,
                cacheable_for=_DAY,
            )
            for number, token in enumerate(tokens)
        ]
    )
    lookups = [cache.begin(token) for token in tokens]
    answers = batch_answers(pb.BatchValidateResponse.FromString(response.SerializeToString()), len(tokens))
    for lookup, answer in zip(lookups, answers, strict=True):
        assert answer is not None, "each token was judged"
        cache.finish(lookup, answer)


async def _answer(request: bytes, context: object) -> bytes:
    return request


class Memory:
    """What the child process holds."""

    def __init__(self) -> None:
        self._held: dict[int, Knowing] = {}

    async def grow(self, entries: int, keep: int) -> dict[str, int]:
        """Comes to know so many tokens; by how many bytes the process has grown, and how many it says these take."""
        process = psutil.Process()
        # What is made once, whatever the number of tokens, is not growth.
        knowing(_BATCH)
        before = process.memory_info().rss
        held = self._held[entries] = knowing(entries, keep)
        grown = process.memory_info().rss - before
        return {"bytes": grown, "entries": held.cache.entries, "said_bytes": held.cache.size_bytes}

    async def hit_us(self, entries: int, count: int) -> dict[str, float]:
        """CPU microseconds of an interceptor's whole part in a call, over `count` tokens at random."""
        held = self._held[entries]
        handler: Any = grpc.unary_unary_rpc_method_handler(_answer)
        before = held.cache.counts.hits
        times = []
        for _ in range(max(1, count // _HITS_AT_A_TIME)):
            calls = details_of(random.choices(held.tokens, k=_HITS_AT_A_TIME))
            times.append(await walk(held.interceptor, handler, calls, _HITS_AT_A_TIME))
        return {"us": median(times), "hits": held.cache.counts.hits - before, "calls": len(times) * _HITS_AT_A_TIME}

    async def renewal_us(self, entries: int, count: int) -> float:
        """CPU microseconds of one renewal, asked for and granted."""
        session = self._held[entries].session
        began = time.process_time_ns()
        for _ in range(count):
            session.renewed()
        return (time.process_time_ns() - began) / 1000 / count


async def main() -> None:
    memory = Memory()
    await answer_questions({"grow": memory.grow, "hit_us": memory.hit_us, "renewal_us": memory.renewal_us})


if __name__ == "__main__":
    uvloop.run(main())
