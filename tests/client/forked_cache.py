"""What a cache is after a fork. Run as a program by test_cache_fork.py: no gRPC is up here, so forking is safe."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from tests.client.caches import Bench, active, made
from watchword.aio import CachingVerifier


class Nowhere:
    """A channel without gRPC, which does not survive a fork."""

    def unary_unary(self, *args: object, **more: object) -> None: ...

    stream_stream = unary_unary


def in_child(judge: Callable[[], bool]) -> bool:
    """What `judge` says in a forked child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if judge() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def knows_nothing() -> bool:
    bench, token = Bench(), made()
    bench.ask(token, active(token, 10))
    told: list[str] = []
    bench.cache.register(token.text, lambda: told.append("shut"), lambda: told.append("recheck"))
    cache = bench.cache
    key, proof = cache.verifier_key, cache.begin(token.text).proof

    def judge() -> bool:
        return (
            cache.verifier_key != key
            and not cache.lease.live(bench.clock)
            and cache.epoch is None
            and cache.applied == cache.entries == 0
            and cache.joinable(token.text) is None
            and cache.begin(token.text).proof != proof
            and not bench.knows(token)
            and told == []
        )

    return in_child(judge) and bench.accepts(token) and cache.verifier_key == key


def can_decide_though_the_lock_was_held() -> bool:
    bench, token = Bench(), made()
    with bench.cache._lock:  # as another thread would
        return in_child(lambda: bench.cache.decide(token.text) is None and bench.cache.applied == 0)


def does_not_miss_a_cache_that_is_gone() -> bool:
    bench = Bench()
    del bench
    return in_child(lambda: True)


def looks_after_its_streams_in_a_loop_of_its_own() -> bool:
    logging.disable()  # of a watch that leads nowhere
    verifier = CachingVerifier(Nowhere(), name="orders")  # type: ignore[arg-type]

    async def looks() -> bool:
        await verifier.start()
        eye = verifier._eye
        assert eye is not None
        await asyncio.wait([eye], timeout=0.1)
        return not eye.done()

    return asyncio.run(looks()) and in_child(lambda: asyncio.run(looks()))


if __name__ == "__main__":
    sys.exit(0 if globals()[sys.argv[1]]() else 1)
