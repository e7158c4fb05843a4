"""One cache, many threads: nothing that was revoked is accepted by a decision invoked afterwards."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.client.caches import EPOCH, Bench, Made, active, inactive, made
from watchword.verifier import Answer
from watchword.verifier.cache import Cache
from watchword.verifier.lookup import Lookup

TOKENS_COUNT = 200
CALLERS_COUNT = 4
SECONDS_MAX = 60.0


class Authority:
    """Knows what was revoked at which position. Reads are consistent, and may reach the cache late."""

    def __init__(self, number: int, tokens: list[Made]) -> None:
        self.asked = {token.token_id: threading.Event() for token in tokens}
        self._lock = threading.Lock()
        self._number = number
        self._revoked: set[str] = set()

    def read(self, token: Made) -> Answer:
        with self._lock:
            answer = inactive(self._number) if token.token_id in self._revoked else active(token, self._number)
        self.asked[token.token_id].set()
        os.sched_yield()
        return answer

    def revoke(self, token: Made) -> int:
        with self._lock:
            self._number += 1
            self._revoked.add(token.token_id)
            return self._number


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads take turns far more often than usual, so that they meet in the middle of things."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


class StoresWhatCame(Cache):
    """Looks for no change that came before the answer."""

    def _may_store(self, lookup: Lookup, answer: Answer) -> bool:
        return True


@pytest.mark.usefixtures("eager_switches")
def test_no_thread_accepts_a_token_whose_revocation_was_applied_before_it_asked() -> None:
    assert accepted_though_revoked(Bench()) == []


@pytest.mark.usefixtures("eager_switches")
def test_negative_control_storing_answers_that_a_change_overtook_is_found() -> None:
    assert accepted_though_revoked(Bench(made_by=StoresWhatCame)) != []


def accepted_though_revoked(bench: Bench) -> list[str]:
    """The tokens that a decision, invoked after their revocation was applied, found active."""
    tokens = [made() for _ in range(TOKENS_COUNT)]
    authority = Authority(bench.number, tokens)
    dead: set[str] = set()
    violations: list[str] = []
    current = 0
    over = threading.Event()

    def call(caller: int) -> None:
        dice = random.Random(caller)
        while not over.is_set():
            token = tokens[max(0, current - dice.randrange(2))]
            was_dead = token.token_id in dead
            if bench.accepts(token):
                if was_dead:
                    violations.append(token.token_id)
            elif not bench.knows(token):
                lookup = bench.cache.begin(token.text)
                bench.cache.finish(lookup, authority.read(token))

    callers = [threading.Thread(target=call, args=(i,)) for i in range(CALLERS_COUNT)]
    for caller in callers:
        caller.start()
    try:
        for current, token in enumerate(tokens):
            # Somebody has an answer in hand that is about to become wrong.
            assert authority.asked[token.token_id].wait(SECONDS_MAX)
            number = authority.revoke(token)
            if current % 20 == 19:
                bench.cache.flush(EPOCH, number)
            else:
                bench.change(number, token)
            dead.add(token.token_id)
    finally:
        over.set()
        for caller in callers:
            caller.join(SECONDS_MAX)
    return violations + [token.token_id for token in tokens if bench.accepts(token)]
