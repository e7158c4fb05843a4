"""Which open streams are judged again, how many at a time, and that each is shut once."""

from __future__ import annotations

import pytest

from tests.clocks import ManualClock
from watchword.identity import Identity
from watchword.lease import instant
from watchword.testing import FakeAuthority
from watchword.verifier import Active, Bindings, Bound, Inactive, Insufficient, Verdict
from watchword.verifier.caching import RECHECKS_MAX, Caching, WatchedStream

EPOCH = b"e" * 16


class Bench:
    """The memory of a verifier under a live lease, and no I/O."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.caching = Caching(name="orders", clock=self.clock)
        assert self.caching._cache is not None
        self.cache = self.caching._cache
        self.cache.flush(EPOCH, 1)
        self.cache.grant(instant(self.clock), 60.0, EPOCH, 1)
        self.token = FakeAuthority().issue()
        self.said: list[Verdict] = []


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_after_a_flush_the_streams_are_judged_again_so_many_at_a_time(bench: Bench) -> None:
    streams = [bench.caching.open_stream(bench.token, (), bench.said.append) for _ in range(RECHECKS_MAX + 10)]
    bench.cache.flush(EPOCH, 2)
    bench.cache.flush(EPOCH, 3)
    first = bench.caching._streams_due()
    assert len(first) == RECHECKS_MAX
    assert {*first, *bench.caching._streams_due()} == set(streams)
    assert bench.caching._streams_due() == []


def test_without_a_lease_nobody_asks_for_streams_that_say_nothing(bench: Bench) -> None:
    bench.caching.open_stream(bench.token, (), bench.said.append)
    bench.cache.flush(EPOCH, 2)
    bench.cache.lapse()
    assert bench.caching._streams_due() == []
    bench.cache.grant(instant(bench.clock), 60.0, EPOCH, 2)
    assert len(bench.caching._streams_due()) == 1


def test_streams_that_ended_while_there_was_no_lease_are_not_kept(bench: Bench) -> None:
    bench.cache.lapse()
    for number in range(2, 12):
        stream = bench.caching.open_stream(bench.token, (), bench.said.append)
        bench.cache.flush(EPOCH, number)
        stream.close()
        assert bench.caching._streams_due() == []
    assert not bench.caching._due, "each holds its token"


@pytest.mark.parametrize("junk", ["", "junk", "\N{SNOWMAN}", "w" * 5000])
def test_a_stream_opened_with_what_is_no_token_is_never_judged_again(bench: Bench, junk: str) -> None:
    """Nobody can be asked about it, and its first message is refused anyway."""
    stream = bench.caching.open_stream(junk, (), bench.said.append)
    bench.cache.flush(EPOCH, 2)
    assert bench.caching._streams_due() == []
    stream.close()


def test_a_stream_that_has_ended_is_not_judged_again(bench: Bench) -> None:
    stream = bench.caching.open_stream(bench.token, (), bench.said.append)
    bench.cache.flush(EPOCH, 2)
    stream.close()
    stream.close()
    assert bench.caching._streams_due() == []


def test_a_stream_whose_token_has_changed_is_judged_again_before_those_that_are_only_due(bench: Bench) -> None:
    """Not every change ends a token: one that was rotated lives on for a while."""
    others = [
        bench.caching.open_stream(FakeAuthority().issue(), (), bench.said.append) for _ in range(RECHECKS_MAX + 10)
    ]
    bench.cache.flush(EPOCH, 2)
    stream = bench.caching.open_stream(bench.token, (), bench.said.append)
    for number in (3, 4):
        bench.cache.apply(number, [bench.token[3:25]], everything=False, last=True)
    first = bench.caching._streams_due()
    assert first[0] is stream
    assert set(first) < {stream, *others}
    assert bench.said == []


def test_so_is_one_that_was_due_already_and_it_is_judged_once(bench: Bench) -> None:
    for _ in range(RECHECKS_MAX + 10):
        bench.caching.open_stream(FakeAuthority().issue(), (), bench.said.append)
    stream = bench.caching.open_stream(bench.token, (), bench.said.append)
    bench.cache.flush(EPOCH, 2)
    for number in (3, 4):
        bench.cache.apply(number, [bench.token[3:25]], everything=False, last=True)
    first, second = bench.caching._streams_due(), bench.caching._streams_due()
    assert first[0] is stream
    assert [*first, *second].count(stream) == 1
    assert len(first) + len(second) == RECHECKS_MAX + 11
    assert bench.caching._streams_due() == []


def test_a_stream_ends_once_with_what_its_token_is_found_to_be(bench: Bench) -> None:
    identity = Identity("id", "alice", ("orders.read",), ("*",))
    good, lacking = Active(identity), Insufficient(identity, ("orders.write",))
    for verdict in (Inactive(), lacking, Bound(Bindings(), lacking)):
        stream = bench.caching.open_stream(bench.token, (), bench.said.append)
        assert isinstance(stream, WatchedStream)
        for fine in (good, Bound(Bindings(), good)):
            stream.judged(fine)
        assert stream.is_open
        stream.judged(verdict)
        stream.judged(Inactive())
    assert bench.said == [Inactive(), lacking, lacking]


def test_a_stream_whose_judgement_has_run_out_is_judged_again(bench: Bench) -> None:
    bench.caching.open_stream(bench.token, (), bench.said.append)
    assert bench.caching._streams_due() == []
    bench.clock.advance(5.0)
    assert len(bench.caching._streams_due()) == 1


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": "x" * 256}, {"name": "x", "lease_seconds": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        Caching(**wrong)  # type: ignore[arg-type]


def test_neither_memory_nor_streams_show_a_token(bench: Bench) -> None:
    stream = bench.caching.open_stream(bench.token, (), bench.said.append)
    assert bench.token[25:] not in repr(stream) + repr(bench.caching) + repr(vars(bench.caching)) + repr(bench.cache)
