"""The bounds of what is remembered, and who has to go."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.caches import READ, Bench, active, inactive, made
from watchword.identity import Identity
from watchword.verifier.entries import BadTokens, GoodTokens
from watchword.verifier.limits import CacheLimits

BYTES_PER_ENTRY_MAX = 700
ENTRY_BYTES_MIN = 480


def identity(token_id: str, *, subject: str = "ada", team: str = "a") -> Identity:
    return Identity(token_id, subject, READ, ("*",), {"team": team})


def proof(token_id: str) -> bytes:
    return token_id.encode().rjust(16)


def test_what_is_asked_for_stays_when_the_cache_is_full() -> None:
    pool = GoodTokens(100, 1 << 30)
    for i in range(10_000):
        pool.put(identity(f"once-{i}"), proof(str(i)), 1.0)
        if i == 0:
            pool.put(identity("often"), proof("often"), 1.0)
        entry = pool.get("often")
        assert entry is not None
        entry.used = True
    assert len(pool) == 100


def test_an_insert_into_a_cache_full_of_entries_in_use_looks_at_few_of_them() -> None:
    pool = GoodTokens(1_000, 1 << 30)
    for i in range(1_000):
        pool.put(identity(str(i)), proof(str(i)), 1.0)
    for i in range(1_000):
        entry = pool.get(str(i))
        assert entry is not None
        entry.used = True
    assert pool.put(identity("new"), proof("new"), 1.0) == 1
    assert pool.get("new") is not None
    entries = [pool.get(str(i)) for i in range(1_000)]
    assert sum(entry is not None and not entry.used for entry in entries) <= 16


def test_equal_scopes_audiences_and_metadata_are_held_once() -> None:
    pool = GoodTokens(10, 1 << 30)
    for token_id in ("one", "two"):
        pool.put(Identity(token_id, "ada", tuple(iter(READ)), ("*",), {"team": "a"}), proof(token_id), 1.0)
    one, two = pool.get("one"), pool.get("two")
    assert one is not None
    assert two is not None
    assert one.identity.scopes is two.identity.scopes
    assert one.identity.metadata is two.identity.metadata


def test_a_token_too_large_for_the_cache_is_not_remembered() -> None:
    pool = GoodTokens(10, 2_000)
    pool.put(identity("large", team="x" * 4_000), proof("large"), 1.0)
    assert (len(pool), pool.size_bytes) == (0, 0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove", "use"]),
        st.integers(0, 12),
        st.sampled_from(["", "s" * 50, "s" * 400]),
        st.sampled_from(["a", "b", "c" * 300]),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps=STEPS, entries_max=st.integers(1, 8), bytes_max=st.integers(1_000, 8_000))
def test_good_tokens_never_exceed_their_bounds(
    steps: list[tuple[str, int, str, str]], entries_max: int, bytes_max: int
) -> None:
    pool = GoodTokens(entries_max, bytes_max)
    last: dict[str, Identity] = {}
    for what, number, subject, team in steps:
        token_id = str(number)
        if what == "put":
            last[token_id] = identity(token_id, subject=subject, team=team)
            pool.put(last[token_id], proof(token_id), 1.0)
        elif what == "remove":
            last.pop(token_id, None)
            pool.remove(token_id)
        elif (entry := pool.get(token_id)) is not None:
            entry.used = True
        assert len(pool) <= entries_max
        assert len(pool) * ENTRY_BYTES_MIN <= pool.size_bytes <= bytes_max
        held = {token_id: entry for token_id in map(str, range(13)) if (entry := pool.get(token_id)) is not None}
        assert len(held) == len(pool)
        assert all(last[token_id] == entry.identity for token_id, entry in held.items())
    for number in range(13):
        pool.remove(str(number))
    assert (len(pool), pool.size_bytes) == (0, 0)


@settings(deadline=None)
@given(proofs=st.lists(st.integers(0, 20), max_size=60), entries_max=st.integers(1, 8))
def test_bad_tokens_never_exceed_their_bound_and_go_in_order(proofs: list[int], entries_max: int) -> None:
    pool = BadTokens(entries_max)
    order: list[int] = []
    for number in proofs:
        pool.put(proof(str(number)), float(number))
        order = ([one for one in order if one != number] + [number])[-entries_max:]
        assert len(pool) == len(order)
    assert all(pool.get(proof(str(one))) == one for one in order)


def test_junk_tokens_push_out_nothing_good() -> None:
    bench = Bench(limits=CacheLimits(entries_max=10, negative_entries_max=10))
    tokens = [made() for _ in range(10)]
    for token in tokens:
        bench.ask(token, active(token, 10))
    for _ in range(1_000):
        bench.ask(made(), inactive(10))
    assert all(bench.accepts(token) for token in tokens)
    assert bench.cache.negative_entries == 10
    assert bench.cache.counts.evictions == 0


def test_an_entry_costs_at_most_700_bytes_and_about_what_is_estimated() -> None:
    bench, count = Bench(), 5_000
    tokens = [made() for _ in range(count)]
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i, token in enumerate(tokens):
            bench.ask(token, active(token, 10, subject=f"service-{i}@example.org", metadata={"team": "a"}))
        gc.collect()
        cost = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert cost <= BYTES_PER_ENTRY_MAX
    assert cost <= bench.cache.size_bytes / count <= BYTES_PER_ENTRY_MAX


@pytest.mark.parametrize(
    "wrong",
    [
        {"entries_max": 0},
        {"negative_entries_max": 0},
        {"bytes_max": 0},
        {"changes_kept_max": 0},
        {"age_seconds_max": 0.0},
        {"negative_seconds_max": 0.0},
        {"negative_seconds_max": 61.0},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        CacheLimits(**wrong)  # type: ignore[arg-type]
