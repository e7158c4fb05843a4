"""What was admitted from memory is counted, each use once, and nobody's answer depends on it."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.client.caches import EPOCH, READ, WRITE, Bench, Made, active, inactive, made
from watchword.lease import instant
from watchword.network import Networks
from watchword.verifier import Active, Answer, Bindings, Bound, Insufficient
from watchword.verifier.entries import _COVERED_MAX
from watchword.verifier.limits import CacheLimits
from watchword.verifier.usage import Used

ALL = ("orders.read", "orders.write", "orders.*")
CALLER, OTHER = "203.0.113.7", "198.51.100.9"
TOKENS_MAX = 1_000_000


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.cache.uses.want(True)
    return bench


def known(bench: Bench, scopes: tuple[str, ...] = ALL) -> Made:
    token = made()
    bench.ask(token, active(token, bench.number, scopes=scopes))
    return token


def use(bench: Bench, token: Made, required: tuple[str, ...] = READ, address: str | None = CALLER) -> bool:
    """Whether it is admitted from memory."""
    return isinstance(bench.cache.decide(token.text, required, address=address), Active)


def taken(bench: Bench) -> dict[str, Used]:
    return {used.token_id: used for used in bench.cache.uses.take(TOKENS_MAX)}


def test_the_first_use_of_a_token_is_counted_with_where_it_came_from_and_the_next_ones_without(bench: Bench) -> None:
    token = known(bench)
    assert not use(bench, token, address=None), "it has to be asked where the call comes from"
    assert use(bench, token)
    bench.clock.advance(5.0)
    assert use(bench, token, address=None)
    assert use(bench, token, address=None)
    assert taken(bench) == {
        token.token_id: Used(token.token_id, 3, bench.clock.boottime(), CALLER, frozenset(READ), 0, "")
    }


def test_so_is_the_first_use_for_each_requirement(bench: Bench) -> None:
    token = known(bench)
    assert use(bench, token, READ)
    assert not use(bench, token, WRITE, address=None)
    assert not use(bench, token, READ + WRITE, address=None)
    assert not use(bench, token, (), address=None)
    assert use(bench, token, WRITE, OTHER)
    assert use(bench, token, (), "")
    assert use(bench, token, READ, address=None)
    used = taken(bench)[token.token_id]
    assert (used.count, used.address, set(used.scopes)) == (4, OTHER, {*READ, *WRITE})


def test_what_was_told_is_counted_anew(bench: Bench) -> None:
    token = known(bench)
    for _ in range(3):
        assert not use(bench, token, address=None)
        assert use(bench, token)
        assert use(bench, token, address=None)
        assert taken(bench)[token.token_id].count == 2
        assert taken(bench) == {}


def test_unless_somebody_wants_to_be_told_nothing_is_counted() -> None:
    bench = Bench()
    token = known(bench)
    assert use(bench, token, address=None)
    assert use(bench, token)
    bench.cache.uses.count_bound(token.token_id, READ, CALLER, is_admitted=True)
    assert len(bench.cache.uses) == 0


def test_what_is_no_longer_wanted_is_forgotten_and_later_counted_anew(bench: Bench) -> None:
    token = known(bench)
    assert use(bench, token)
    bench.cache.uses.want(False)
    assert use(bench, token, address=None)
    bench.cache.uses.want(True)
    assert not use(bench, token, address=None)
    assert use(bench, token)
    assert taken(bench)[token.token_id].count == 1


def test_only_what_is_admitted_is_counted(bench: Bench) -> None:
    token, bad = known(bench, READ), made()
    bench.ask(bad, inactive(bench.number))
    for address in (None, CALLER):
        assert isinstance(bench.cache.decide(token.text, WRITE, address=address), Insufficient)
        assert bench.cache.decide(bad.text, READ, address=address) is not None
        assert bench.cache.decide(made().text, READ, address=address) is None
    assert taken(bench) == {}


def test_a_look_that_is_no_use_is_not_counted_and_needs_no_address(bench: Bench) -> None:
    token = known(bench)
    assert isinstance(bench.cache.decide(token.text, READ, is_use=False), Active)
    assert taken(bench) == {}


def test_nothing_is_counted_without_a_lease(bench: Bench) -> None:
    token = known(bench)
    bench.cache.lapse()
    assert not use(bench, token)
    assert taken(bench) == {}


def test_who_has_waited_longest_is_told_first(bench: Bench) -> None:
    tokens = [known(bench) for _ in range(5)]
    for token in tokens:
        assert use(bench, token)
    assert use(bench, tokens[0], address=None)
    ids = [token.token_id for token in tokens]
    assert [used.token_id for used in bench.cache.uses.take(2)] == ids[:2]
    assert not use(bench, tokens[0], address=None)
    assert use(bench, tokens[0])
    assert [used.token_id for used in bench.cache.uses.take(9)] == [*ids[2:], ids[0]]


def test_what_is_forgotten_of_a_token_does_not_forget_its_uses(bench: Bench) -> None:
    token = known(bench)
    assert use(bench, token)
    bench.change(bench.number + 1, token)
    bench.ask(token, active(token, bench.number + 1, scopes=ALL))
    assert not use(bench, token, address=None)
    assert use(bench, token)
    bench.cache.flush(EPOCH, bench.number + 1)
    assert taken(bench)[token.token_id].count == 2


def test_a_token_that_was_narrowed_in_between_is_told_with_the_needs_from_before_and_after(bench: Bench) -> None:
    token = known(bench, ALL)
    assert use(bench, token, WRITE)
    bench.ask(token, active(token, bench.number, scopes=READ))
    assert not use(bench, token, READ, address=None)
    assert use(bench, token, READ, OTHER)
    assert use(bench, token, READ, address=None)
    assert isinstance(bench.cache.decide(token.text, WRITE), Insufficient)
    used = taken(bench)[token.token_id]
    assert (used.count, used.address, set(used.scopes)) == (3, OTHER, {*READ, *WRITE})


def test_tokens_that_share_their_rights_do_not_share_their_uses(bench: Bench) -> None:
    one, two = known(bench), known(bench)
    assert use(bench, one)
    assert not use(bench, two, address=None)
    assert use(bench, one, address=None)
    assert use(bench, two)
    assert {token_id: used.count for token_id, used in taken(bench).items()} == {one.token_id: 2, two.token_id: 1}


def test_more_tokens_than_there_is_room_for_are_admitted_and_their_uses_counted_as_dropped() -> None:
    bench = Bench(limits=CacheLimits(uses_max=2))
    bench.cache.uses.want(True)
    tokens = [known(bench) for _ in range(4)]
    assert all(use(bench, token) for token in tokens)
    assert use(bench, tokens[3])
    assert len(bench.cache.uses) == 2
    assert bench.cache.uses.dropped_count == 3
    assert set(taken(bench)) == {token.token_id for token in tokens[:2]}
    assert use(bench, tokens[3])
    assert set(taken(bench)) == {tokens[3].token_id}


def test_uses_for_more_requirements_than_a_profile_remembers_are_counted_all_the_same(bench: Bench) -> None:
    token = known(bench)
    needs = [(f"orders.n{number}",) for number in range(_COVERED_MAX + 10)]
    for need in needs:
        assert use(bench, token, need)
    used = taken(bench)[token.token_id]
    assert used.count == len(needs)
    assert used.scopes == {scope for need in needs for scope in need}, "what is not told counts as never needed"


def test_a_child_of_a_fork_does_not_tell_what_its_parent_saw(bench: Bench) -> None:
    assert use(bench, known(bench))
    bench.cache._begin_anew()
    assert taken(bench) == {}
    assert not bench.cache.uses.is_counting


def bound(bench: Bench, *, networks: tuple[str, ...] = (), certificate: bytes = b"") -> Made:
    token = made()
    answer = active(token, bench.number)
    assert isinstance(answer.verdict, Active)
    bindings = Bindings(Networks(networks), certificate)
    bench.ask(token, replace(answer, verdict=Bound(bindings, answer.verdict)))
    return token


def test_a_bound_token_is_remembered_with_what_it_is_bound_to(bench: Bench) -> None:
    token = bound(bench, networks=("10.0.0.0/8",), certificate=b"c" * 32)
    for _ in range(2):
        verdict = bench.cache.decide(token.text, READ)
        assert isinstance(verdict, Bound)
        assert verdict.bindings == Bindings(Networks(["10.0.0.0/8"]), b"c" * 32)
        assert isinstance(verdict.verdict, Active)
    lacking = bench.cache.decide(token.text, WRITE)
    assert isinstance(lacking, Bound)
    assert isinstance(lacking.verdict, Insufficient)


def test_bound_tokens_share_their_networks_and_not_their_certificates(bench: Bench) -> None:
    verdicts = [
        bench.cache.decide(bound(bench, networks=("10.0.0.0/8",), certificate=one * 32).text, READ)
        for one in (b"a", b"b")
    ]
    assert [isinstance(verdict, Bound) for verdict in verdicts] == [True, True]
    one, two = (verdict.bindings for verdict in verdicts if isinstance(verdict, Bound))
    assert one.allowed_networks is two.allowed_networks
    assert (one.certificate_sha256, two.certificate_sha256) == (b"a" * 32, b"b" * 32)


def test_a_token_that_is_bound_is_never_remembered_as_one_that_is_not(bench: Bench) -> None:
    """Equal in everything else, they share what they hold."""
    free = known(bench, READ)
    token = bound(bench, networks=("10.0.0.0/8",))
    for _ in range(2):
        assert isinstance(bench.cache.decide(token.text, READ, address=""), Bound)
        assert isinstance(bench.cache.decide(free.text, READ, address=""), Active)


def test_calls_with_bound_tokens_are_counted_when_it_is_known_what_became_of_them(bench: Bench) -> None:
    token, uses = bound(bench, networks=("10.0.0.0/8",)), bench.cache.uses
    assert isinstance(bench.cache.decide(token.text, READ), Bound)
    assert len(uses) == 0
    uses.count_bound(token.token_id, READ, CALLER, is_admitted=True)
    now = bench.clock.boottime()
    bench.clock.advance(5.0)
    uses.count_bound(token.token_id, WRITE, OTHER, is_admitted=False)
    assert taken(bench) == {token.token_id: Used(token.token_id, 1, now, CALLER, frozenset(READ), 1, OTHER)}


def test_every_use_is_told_once_however_many_threads_use_and_tell() -> None:
    bench = Bench(limits=CacheLimits(entries_max=40))
    bench.cache.uses.want(True)
    tokens = [known(bench) for _ in range(50)]
    threads, rounds = 4, 300
    told: Counter[str] = Counter()
    done = threading.Event()

    def tell() -> None:
        while True:
            last = done.is_set()
            for used in bench.cache.uses.take(7):
                told[used.token_id] += used.count
            if last and not len(bench.cache.uses):
                return

    def call(seed: int) -> Counter[str]:
        admitted: Counter[str] = Counter()
        for number in range(rounds):
            token = tokens[(number * (seed + 3)) % len(tokens)]
            if use(bench, token, address=None) or use(bench, token):
                admitted[token.token_id] += 1
            else:
                bench.ask(token, active(token, bench.number, scopes=ALL))
        return admitted

    with ThreadPoolExecutor(threads + 1) as pool:
        telling = pool.submit(tell)
        try:
            admitted = sum(pool.map(call, range(threads)), Counter[str]())
        finally:
            done.set()
        telling.result()
    assert told == admitted
    assert sum(told.values()) > threads


def test_uses_can_be_told_while_new_requirements_come_up(bench: Bench) -> None:
    """By the time it is found out what they needed nobody holds the lock."""
    token = known(bench)
    assert use(bench, token, READ)
    entry = bench.cache._good.get(token.token_id)
    assert entry is not None
    covered = entry.profile.covered

    class Bit(int):
        def __rand__(self, seen: int) -> int:
            assert use(bench, token, WRITE)
            return seen & int(self)

    covered[READ] = Bit(covered[READ])
    assert taken(bench)[token.token_id].scopes == {*READ}


def test_a_lease_granted_again_goes_on_counting(bench: Bench) -> None:
    token = known(bench)
    assert use(bench, token)
    bench.cache.lapse()
    bench.clock.advance(1.0)
    bench.cache.grant(instant(bench.clock), 60.0, EPOCH, bench.cache.applied)
    assert use(bench, token, address=None)
    assert taken(bench)[token.token_id].count == 2


def test_an_answer_that_is_bound_is_told_apart_from_one_that_is_not() -> None:
    token = made()
    free = active(token, 10)
    assert isinstance(free.verdict, Active)
    held: Answer = replace(free, verdict=Bound(Bindings(), free.verdict))
    assert held != free
