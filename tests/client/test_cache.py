"""The cache of a verifier: what it answers by itself, and when it must not."""

from __future__ import annotations

import pytest

from tests.client.caches import EPOCH, LEASE_SECONDS, OTHER_EPOCH, READ, WRITE, Bench, active, forged, inactive, made
from tests.clocks import ManualClock
from watchword.lease import DRIFT, instant
from watchword.verifier import Active, Inactive, Insufficient
from watchword.verifier.cache import Cache
from watchword.verifier.limits import CacheLimits


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Decisions


def test_a_kept_answer_is_the_authority_s(bench: Bench) -> None:
    token = made()
    answer = active(token, 10, metadata={"team": "a"})
    bench.ask(token, answer)
    assert bench.cache.decide(token.text, READ) == answer.verdict
    assert bench.cache.counts.hits == 1


def test_a_call_that_needs_more_is_told_what_is_missing(bench: Bench) -> None:
    token = made()
    bench.ask(token, active(token, 10))
    verdict = bench.cache.decide(token.text, READ + WRITE)
    assert isinstance(verdict, Insufficient)
    assert verdict.missing_scopes == WRITE
    assert isinstance(bench.cache.decide(token.text, READ), Active)


def test_an_answer_that_lacked_scopes_serves_calls_that_need_less(bench: Bench) -> None:
    token = made()
    answer = active(token, 10)
    assert isinstance(answer.verdict, Active)
    lacking = Insufficient(answer.verdict.identity, WRITE)
    bench.ask(token, type(answer)(lacking, answer.position, 600.0, 3600.0))
    assert isinstance(bench.cache.decide(token.text, READ), Active)


def test_without_a_lease_nothing_is_known(bench: Bench) -> None:
    token, bad = made(), made()
    bench.ask(token, active(token, 10))
    bench.ask(bad, inactive(10))
    bench.cache.lapse()
    assert not bench.knows(token)
    assert not bench.knows(bad)
    bench.lease()
    assert bench.accepts(token)


@pytest.mark.parametrize(("past_seconds", "known"), [(-0.001, True), (0.0, False), (0.001, False)])
def test_answers_are_in_force_up_to_the_end_of_the_lease(bench: Bench, past_seconds: float, known: bool) -> None:
    token = made()
    bench.ask(token, active(token, 10))
    bench.clock.advance(LEASE_SECONDS * (1 - DRIFT) + past_seconds)
    assert bench.knows(token) is known


def test_on_a_machine_that_was_paused_nothing_is_known(bench: Bench) -> None:
    token = made()
    bench.ask(token, active(token, 10))
    bench.clock.pause(2)
    assert not bench.knows(token)


def test_the_clock_and_the_lease_are_read_under_the_lock_that_changes_take() -> None:
    """Whatever happens up to the moment the lock is had is seen by the decision."""
    happenings: list[object] = []

    class Lock:
        def __enter__(self) -> None:
            if happenings:
                happenings.pop()
                clock.advance(LEASE_SECONDS)

        def __exit__(self, *_: object) -> None: ...

    clock = ManualClock()
    cache = Cache(clock, lock=Lock)
    cache.flush(EPOCH, 10)
    cache.grant(instant(clock), LEASE_SECONDS, EPOCH, 10)
    token = made()
    cache.finish(cache.begin(token.text), active(token, 10))
    assert cache.decide(token.text, READ) is not None
    happenings.append("a long stop between the call and the lock")
    assert cache.decide(token.text, READ) is None


def test_the_id_of_a_known_token_admits_nobody(bench: Bench) -> None:
    token = made()
    bench.ask(token, active(token, 10))
    assert not bench.knows(forged(token))
    assert not bench.knows(type(token)(token.text[:-1] + ("0" if token.text[-1] != "0" else "1"), token.token_id))
    assert not bench.knows(type(token)("xx_" + token.text[3:], token.token_id))


def test_a_forged_token_pushes_out_neither_the_true_one_nor_hides_it(bench: Bench) -> None:
    token = made()
    bench.ask(token, active(token, 10))
    forgery = forged(token)
    bench.ask(forgery, inactive(10))
    assert isinstance(bench.cache.decide(forgery.text, READ), Inactive)
    assert bench.accepts(token)


@pytest.mark.parametrize("text", ["", "ww_", "é" * 64, "\ud800" * 64, "\x00" * 64, "ww_" + "a" * 62, "ww_" + "a" * 60])
def test_what_is_no_token_is_never_known_and_never_an_error(bench: Bench, text: str) -> None:
    assert bench.cache.decide(text, READ) is None
    assert bench.cache.joinable(text) is None
    bench.cache.unregister(bench.cache.register(text, lambda: None, lambda: None))
    if len(text) != 64 or not text.isascii():
        with pytest.raises(ValueError, match="not a token"):
            bench.cache.begin(text)


def test_an_answer_about_another_token_is_not_kept(bench: Bench) -> None:
    token, other = made(), made()
    bench.ask(token, active(other, 10))
    assert not bench.knows(token)
    assert bench.cache.entries == 0


# Life of entries


@pytest.mark.parametrize(("past_seconds", "known"), [(-0.001, True), (0.0, False), (0.001, False)])
@pytest.mark.parametrize(
    ("cacheable", "remaining", "age_max", "life"),
    [(40.0, 3600.0, 3600.0, 40.0), (600.0, 30.0, 3600.0, 30.0), (600.0, 3600.0, 20.0, 20.0)],
)
def test_an_entry_ends_with_the_first_of_its_ends_counted_from_the_request(
    cacheable: float, remaining: float, age_max: float, life: float, past_seconds: float, known: bool
) -> None:
    bench = Bench(limits=CacheLimits(age_seconds_max=age_max))
    token = made()
    lookup = bench.cache.begin(token.text)
    bench.clock.advance(5)
    bench.cache.finish(lookup, active(token, 10, cacheable_for_seconds=cacheable, remaining_seconds=remaining))
    bench.clock.boottime_now = lookup.sent_at + life * (1 - DRIFT) + past_seconds
    bench.clock.realtime_now = 1_700_000_000 + bench.clock.boottime_now - 1_000
    bench.lease()
    assert bench.knows(token) is known


@pytest.mark.parametrize(("past_seconds", "known"), [(-0.001, True), (0.0, False), (0.001, False)])
def test_an_inactive_token_is_remembered_for_a_minute_at_most(bench: Bench, past_seconds: float, known: bool) -> None:
    token = made()
    bench.ask(token, inactive(10, cacheable_for_seconds=3600.0))
    bench.clock.advance(60 * (1 - DRIFT) + past_seconds)
    bench.lease()
    assert bench.knows(token) is known


def test_an_answer_that_may_not_be_kept_is_not(bench: Bench) -> None:
    token = made()
    bench.ask(token, active(token, 10, cacheable_for_seconds=0.0))
    bench.ask(made(), inactive(10, cacheable_for_seconds=0.0))
    assert (bench.cache.entries, bench.cache.negative_entries) == (0, 0)


# Filling


def test_an_answer_older_than_a_change_of_its_token_is_not_kept(bench: Bench) -> None:
    token, other = made(), made()
    lookup, undisturbed = bench.cache.begin(token.text), bench.cache.begin(other.text)
    bench.change(11, token)
    bench.cache.finish(lookup, active(token, 10))
    bench.cache.finish(undisturbed, active(other, 10))
    assert not bench.knows(token)
    assert bench.accepts(other)


@pytest.mark.parametrize(("number", "kept"), [(10, False), (11, True), (12, True)])
def test_an_answer_read_at_or_after_the_change_is_kept(bench: Bench, number: int, kept: bool) -> None:
    token = made()
    lookup = bench.cache.begin(token.text)
    bench.change(11, token)
    bench.cache.finish(lookup, active(token, number))
    assert bench.knows(token) is kept


def test_a_part_of_a_position_counts_for_answers_under_way(bench: Bench) -> None:
    token = made()
    lookup = bench.cache.begin(token.text)
    bench.change(11, token, last=False)
    bench.cache.finish(lookup, active(token, 10))
    assert not bench.knows(token)


@pytest.mark.parametrize(("number", "kept"), [(19, False), (20, True), (21, True)])
def test_an_answer_from_below_the_last_flush_is_not_kept(bench: Bench, number: int, kept: bool) -> None:
    token = made()
    lookup = bench.cache.begin(token.text)
    bench.cache.flush(EPOCH, 20)
    bench.cache.finish(lookup, active(token, number))
    assert bench.knows(token) is kept


def test_an_answer_of_another_epoch_is_not_kept(bench: Bench) -> None:
    token = made()
    bench.ask(token, active(token, 10, epoch=OTHER_EPOCH))
    assert bench.cache.entries == 0


def test_before_the_first_hello_nothing_is_kept() -> None:
    cache, token = Cache(ManualClock()), made()
    cache.finish(cache.begin(token.text), active(token, 10))
    assert cache.entries == 0


@pytest.mark.parametrize(("number", "kept"), [(10, False), (11, True)])
def test_a_change_that_had_to_be_forgotten_raises_the_floor(number: int, kept: bool) -> None:
    bench = Bench(limits=CacheLimits(changes_kept_max=2))
    token = made()
    lookup = bench.cache.begin(token.text)
    bench.change(11, made())
    bench.change(12, made())
    bench.change(13, made())
    assert bench.cache.floor == 11
    bench.cache.finish(lookup, active(token, number))
    assert bench.knows(token) is kept


def test_a_token_that_changes_again_is_remembered_at_its_last_change() -> None:
    bench = Bench(limits=CacheLimits(changes_kept_max=2))
    token, other = made(), made()
    for number in (11, 13):
        bench.change(number, token)
        bench.change(number + 1, other)
    assert bench.cache.floor == 10
    bench.ask(token, active(token, 12))
    assert not bench.knows(token)


def test_the_change_that_is_forgotten_is_the_oldest() -> None:
    bench = Bench(limits=CacheLimits(changes_kept_max=2))
    again = made()
    bench.change(11, again)
    bench.change(12, made())
    bench.change(13, again)
    bench.change(14, made())
    assert bench.cache.floor == 12


# Joining


def test_a_lookup_under_way_is_joined_under_a_live_lease_only(bench: Bench) -> None:
    token = made()
    lookup = bench.cache.begin(token.text, "its future")
    joined = bench.cache.joinable(token.text)
    assert joined is lookup
    assert joined.result == "its future"
    bench.cache.lapse()
    assert bench.cache.joinable(token.text) is None
    assert not bench.cache.joined_may_use(lookup, active(token, 10))
    bench.lease()
    assert bench.cache.joined_may_use(lookup, active(token, 10))


@pytest.mark.parametrize(("number", "may"), [(10, False), (11, True)])
def test_who_joined_may_not_use_an_answer_older_than_a_change(bench: Bench, number: int, may: bool) -> None:
    token = made()
    lookup = bench.cache.begin(token.text)
    assert bench.cache.joinable(token.text) is lookup
    bench.change(11, token)
    answer = active(token, number)
    bench.cache.finish(lookup, answer)
    assert bench.cache.joined_may_use(lookup, answer) is may


def test_who_joined_may_not_use_an_answer_from_below_a_flush_or_of_another_epoch(bench: Bench) -> None:
    token = made()
    lookup = bench.cache.begin(token.text)
    assert not bench.cache.joined_may_use(lookup, active(token, 10, epoch=OTHER_EPOCH))
    bench.cache.flush(EPOCH, 20)
    assert not bench.cache.joined_may_use(lookup, active(token, 19))
    assert bench.cache.joined_may_use(lookup, active(token, 20))


@pytest.mark.parametrize("how", ["finished", "abandoned"])
def test_a_lookup_that_is_over_is_not_joined(bench: Bench, how: str) -> None:
    token = made()
    first, second = bench.cache.begin(token.text), bench.cache.begin(token.text)
    bench.cache.abandon(second)
    assert bench.cache.joinable(token.text) is first
    if how == "finished":
        bench.cache.finish(first, active(token, 10))
    else:
        bench.cache.abandon(first)
    assert bench.cache.joinable(token.text) is None


def test_a_lookup_of_a_forged_token_is_not_joined_by_the_true_one(bench: Bench) -> None:
    token = made()
    bench.cache.begin(forged(token).text)
    assert bench.cache.joinable(token.text) is None


# Discretion


def test_nothing_shown_or_held_contains_the_token(bench: Bench) -> None:
    token = made()
    lookup = bench.cache.begin(token.text)
    gate = bench.cache.register(token.text, lambda: None, lambda: None)
    bench.cache.finish(lookup, active(token, 10))
    entry = bench.cache._good.get(token.token_id)
    assert entry is not None
    secret = token.text[25:]
    for thing in (bench.cache, lookup, gate, entry, bench.cache.counts):
        assert secret not in repr(thing)
        assert repr(lookup.proof) not in repr(thing)
    held = [getattr(thing, name) for thing in (lookup, gate, entry) for name in type(thing).__slots__]
    assert all(secret not in repr(one) for one in held)


def test_proofs_of_two_caches_have_nothing_in_common() -> None:
    token = made()
    one, other = Bench().cache, Bench().cache
    assert one.begin(token.text).proof != other.begin(token.text).proof
    assert one.verifier_key != other.verifier_key
