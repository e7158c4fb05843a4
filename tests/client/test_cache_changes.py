"""What changes, flushes and grants do to the cache, and to the gates of open streams."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.client.caches import EPOCH, LEASE_SECONDS, OTHER_EPOCH, Bench, Made, active, forged, inactive, made
from watchword.lease import DRIFT, instant
from watchword.verifier.cache import Cache
from watchword.verifier.gates import Gate


@pytest.fixture
def bench() -> Bench:
    return Bench()


@dataclass
class Stream:
    """An open stream that notes what it is told."""

    cache: Cache
    token: Made
    told: list[str] = field(default_factory=list)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = self.cache.register(
            self.token.text, lambda: self.told.append("shut"), lambda: self.told.append("recheck")
        )


def known(bench: Bench, count: int) -> list[Made]:
    tokens = [made() for _ in range(count)]
    for token in tokens:
        bench.ask(token, active(token, bench.cache.applied))
    return tokens


def test_a_changed_token_is_no_longer_known_and_others_are(bench: Bench) -> None:
    revoked, other = known(bench, 2)
    bench.change(11, revoked)
    assert not bench.knows(revoked)
    assert bench.accepts(other)
    assert bench.cache.applied == 11
    assert bench.cache.counts.changes == 1


def test_a_position_in_parts_counts_at_its_last_and_acts_at_once(bench: Bench) -> None:
    first, second = known(bench, 2)
    bench.change(11, first, last=False)
    assert not bench.knows(first)
    assert bench.cache.applied == 10
    bench.change(11, second)
    assert not bench.knows(second)
    assert bench.cache.applied == 11


def test_a_position_that_was_applied_already_changes_nothing(bench: Bench) -> None:
    (token,) = known(bench, 1)
    bench.change(10, token)
    assert bench.accepts(token)
    assert bench.cache.applied == 10


def test_a_gap_forgets_everything(bench: Bench) -> None:
    (token,) = known(bench, 1)
    bad = made()
    bench.ask(bad, inactive(10))
    bench.change(12, made())
    assert not bench.knows(token)
    assert not bench.knows(bad)
    assert (bench.cache.applied, bench.cache.floor) == (12, 12)
    assert bench.cache.counts.flushes == 2


@pytest.mark.parametrize("number", [10, 11, 12])
def test_after_a_gap_no_answer_from_before_it_is_kept(bench: Bench, number: int) -> None:
    token = made()
    lookup = bench.cache.begin(token.text)
    bench.change(12, made())
    bench.cache.finish(lookup, active(token, number))
    assert bench.knows(token) is (number >= 12)


def test_a_gap_before_a_position_in_parts_counts_at_its_last_part(bench: Bench) -> None:
    token = made()
    bench.change(13, made(), last=False)
    assert (bench.cache.applied, bench.cache.floor) == (12, 13)
    bench.ask(token, active(token, 12))
    assert not bench.knows(token)
    bench.change(13, made())
    assert bench.cache.applied == 13
    assert bench.cache.counts.flushes == 2


def test_a_change_of_everything_forgets_everything(bench: Bench) -> None:
    (token,) = known(bench, 1)
    bench.change(11, everything=True)
    assert not bench.knows(token)
    assert (bench.cache.applied, bench.cache.floor) == (11, 11)


def test_a_flush_of_the_same_epoch_keeps_the_lease(bench: Bench) -> None:
    (token,) = known(bench, 1)
    bench.cache.flush(EPOCH, 20)
    assert not bench.knows(token)
    bench.ask(token, active(token, 20))
    assert bench.accepts(token)


@pytest.mark.parametrize(("epoch", "number"), [(OTHER_EPOCH, 20), (OTHER_EPOCH, 10), (EPOCH, 9)])
def test_a_flush_to_another_epoch_or_backwards_ends_the_lease(bench: Bench, epoch: bytes, number: int) -> None:
    bench.cache.flush(epoch, number)
    assert not bench.cache.lease.live(bench.clock)
    assert (bench.cache.epoch, bench.cache.applied, bench.cache.floor) == (epoch, number, number)


def test_a_grant_above_what_was_applied_is_a_gap(bench: Bench) -> None:
    (token,) = known(bench, 1)
    bench.cache.grant(instant(bench.clock), LEASE_SECONDS, EPOCH, 12)
    assert not bench.knows(token)
    assert (bench.cache.applied, bench.cache.floor) == (12, 12)
    assert bench.cache.lease.live(bench.clock)


def test_a_grant_up_to_what_was_applied_forgets_nothing(bench: Bench) -> None:
    (token,) = known(bench, 1)
    bench.lease()
    assert bench.accepts(token)


def test_a_grant_of_another_epoch_counts_for_nothing(bench: Bench) -> None:
    bench.cache.lapse()
    bench.cache.grant(instant(bench.clock), LEASE_SECONDS, OTHER_EPOCH, 10)
    assert not bench.cache.lease.live(bench.clock)


def test_forgetting_leaves_nothing_to_resume_from(bench: Bench) -> None:
    (token,) = known(bench, 1)
    stream = Stream(bench.cache, token)
    bench.cache.forget()
    assert bench.cache.epoch is None
    assert not bench.cache.lease.live(bench.clock)
    assert bench.cache.entries == 0
    assert stream.told == ["recheck"]


# Gates


def test_a_change_shuts_the_gates_of_its_token_before_it_counts_as_applied(bench: Bench) -> None:
    token, other = known(bench, 2)
    streams = [Stream(bench.cache, token), Stream(bench.cache, token)]
    bystander = Stream(bench.cache, other)
    bench.change(11, token)
    assert [stream.told for stream in streams] == [["shut"], ["shut"]]
    assert bystander.told == []


def test_a_gate_is_shut_by_a_part_of_a_position_and_behind_a_gap(bench: Bench) -> None:
    stream, late = Stream(bench.cache, made()), Stream(bench.cache, made())
    bench.change(11, stream.token, last=False)
    assert stream.told == ["shut"]
    bench.change(13, late.token)
    assert "shut" in late.told


def test_a_change_between_registering_and_the_answer_shuts_the_gate(bench: Bench) -> None:
    """Why a stream registers before its lookup: the answer, read before the change, would admit it for good."""
    token = made()
    stream = Stream(bench.cache, token)
    lookup = bench.cache.begin(token.text)
    bench.change(11, token)
    bench.cache.finish(lookup, active(token, 10))
    assert stream.told == ["shut"]


@pytest.mark.parametrize("how", ["flush", "gap", "everything", "grant"])
def test_a_flush_has_every_stream_judged_again(bench: Bench, how: str) -> None:
    stream = Stream(bench.cache, made())
    if how == "flush":
        bench.cache.flush(EPOCH, 20)
    elif how == "gap":
        bench.change(13)
    elif how == "everything":
        bench.change(11, everything=True)
    else:
        bench.cache.grant(instant(bench.clock), LEASE_SECONDS, EPOCH, 12)
    assert stream.told == ["recheck"]


def test_a_stream_that_ended_hears_nothing(bench: Bench) -> None:
    stream = Stream(bench.cache, made())
    bench.cache.unregister(stream.gate)
    bench.cache.unregister(stream.gate)
    bench.change(11, stream.token)
    bench.cache.flush(EPOCH, 20)
    assert stream.told == []


def test_a_gate_that_fails_keeps_no_other_open(bench: Bench) -> None:
    token = made()

    def fail() -> None:
        raise OSError("gone")

    bench.cache.register(token.text, fail, fail)
    streams = [Stream(bench.cache, token) for _ in range(5)]
    bench.cache.register(token.text, fail, fail)
    with pytest.raises(OSError, match="gone"):
        bench.change(11, token)
    assert [stream.told for stream in streams] == [["shut"]] * 5


def test_gates_are_told_outside_the_lock(bench: Bench) -> None:
    token = made()
    told: list[bool] = []
    bench.cache.register(token.text, lambda: told.append(bench.knows(token)), lambda: None)
    bench.change(11, token)
    assert told == [False]


@pytest.mark.parametrize(("past_seconds", "due"), [(-0.001, False), (0.0, True), (0.001, True)])
def test_an_idle_stream_is_judged_again_when_its_answer_ends(bench: Bench, past_seconds: float, due: bool) -> None:
    token = made()
    stream = Stream(bench.cache, token)
    bench.ask(token, active(token, 10, remaining_seconds=40.0))
    bench.clock.advance(40 * (1 - DRIFT) + past_seconds)
    bench.cache.expire_gates()
    assert stream.told == (["recheck"] if due else [])


def test_a_stream_opened_on_a_known_token_is_judged_again_when_the_entry_ends(bench: Bench) -> None:
    token = made()
    bench.ask(token, active(token, 10, remaining_seconds=40.0))
    stream = Stream(bench.cache, token)
    bench.clock.advance(39)
    bench.cache.expire_gates()
    assert stream.told == []
    bench.clock.advance(1)
    bench.cache.expire_gates()
    assert stream.told == ["recheck"]


def test_an_answer_that_could_not_be_kept_holds_a_stream_for_seconds_only(bench: Bench) -> None:
    token = made()
    stream = Stream(bench.cache, token)
    lookup = bench.cache.begin(token.text)
    bench.cache.flush(EPOCH, 20)
    bench.cache.finish(lookup, active(token, 10))
    bench.cache.expire_gates()
    assert stream.told == ["recheck"]
    bench.clock.advance(5)
    bench.cache.expire_gates()
    bench.cache.expire_gates()
    assert stream.told == ["recheck", "recheck"]


def test_the_answer_for_a_forged_token_extends_no_other_stream(bench: Bench) -> None:
    token = made()
    stream = Stream(bench.cache, token)
    forgery = forged(token)
    bench.ask(forgery, active(forgery, 10))
    bench.clock.advance(6)
    bench.cache.expire_gates()
    assert stream.told == ["recheck"]
