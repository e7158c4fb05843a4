"""One Watch stream as the verifier sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.client.caches import EPOCH, OTHER_EPOCH, READ, Made, active, made
from tests.clocks import ManualClock
from watchword.lease import DRIFT
from watchword.token import parse_token_id
from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier.cache import Cache
from watchword.verifier.session import WatchProtocolError, WatchSession

LEASE_SECONDS = 60.0
WAIT_SECONDS_MAX = 30
LEASE_YEARS = 315_576_000_000


def position(number: int, epoch: bytes = EPOCH) -> token_service_pb2.Position:
    return token_service_pb2.Position(epoch=epoch, number=number)


def welcome(number: int, epoch: bytes = EPOCH) -> pb.WatchResponse:
    return pb.WatchResponse(
        welcome=pb.Welcome(
            lease=Duration(seconds=60),
            renew_every=Duration(seconds=2, nanos=500_000_000),
            position=position(number, epoch),
        )
    )


def reset(number: int, epoch: bytes = EPOCH) -> pb.WatchResponse:
    return pb.WatchResponse(reset=pb.Reset(position=position(number, epoch)))


def change(number: int, *tokens: Made, last: bool = True, everything: bool = False) -> pb.Change:
    ids = [parse_token_id(token.token_id).bytes for token in tokens]
    return pb.Change(number=number, token_ids=ids, last=last, everything=everything)


def changes(*parts: pb.Change) -> pb.WatchResponse:
    return pb.WatchResponse(changes=pb.Changes(changes=parts))


def grant(renewal: pb.WatchRequest, number: int, *, seconds: int = 60, epoch: bytes = EPOCH) -> pb.WatchResponse:
    return pb.WatchResponse(
        grant=pb.LeaseGrant(
            nonce=renewal.renew.nonce, position=position(number, epoch), lease=Duration(seconds=seconds)
        )
    )


MOVE = pb.WatchResponse(move=pb.Move())


@dataclass
class Watch:
    """A verifier, and the stream it is on."""

    clock: ManualClock = field(default_factory=ManualClock)
    cache: Cache = field(init=False)
    session: WatchSession = field(init=False)

    def __post_init__(self) -> None:
        self.cache = Cache(self.clock)
        self.connect()

    def connect(self) -> None:
        """A new stream. The old one is gone."""
        self.session = WatchSession(
            self.cache, self.clock, lease_seconds=LEASE_SECONDS, name="orders", instance="host:1", library="test"
        )

    def attach(self, number: int = 10, epoch: bytes = EPOCH) -> None:
        self.session.hello()
        self.receive(welcome(number, epoch))
        if not self.session.attached:
            self.receive(reset(number, epoch))

    def receive(self, message: pb.WatchResponse) -> Sequence[pb.WatchRequest]:
        return self.session.receive(message)

    def leased(self) -> bool:
        return self.cache.lease.live(self.clock)

    def know(self, token: Made) -> None:
        self.cache.finish(self.cache.begin(token.text), active(token, self.cache.applied))

    def knows(self, token: Made) -> bool:
        return self.cache.decide(token.text, READ) is not None


@pytest.fixture
def watch() -> Watch:
    watch = Watch()
    watch.attach()
    return watch


def acknowledged(answers: Sequence[pb.WatchRequest]) -> list[int]:
    assert all(answer.acknowledge.applied.epoch == EPOCH for answer in answers)
    return [answer.acknowledge.applied.number for answer in answers]


# Hello


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        (Duration(nanos=1), 0.1),
        (Duration(seconds=10), 10),
        (Duration(seconds=LEASE_YEARS), LEASE_SECONDS),
    ],
    ids=["no pause", "as told", "ages"],
)
def test_how_often_to_renew_is_bounded_whatever_the_server_says(told: Duration, taken: float) -> None:
    watch = Watch()
    watch.session.hello()
    hostile = welcome(10)
    hostile.welcome.renew_every.CopyFrom(told)
    watch.receive(hostile)
    assert watch.session.renew_every_seconds == taken


def test_positions_at_the_end_of_numbers_change_nothing_for_the_next_stream(watch: Watch) -> None:
    last = 2**64 - 1
    watch.receive(changes(change(last, everything=True)))
    assert (watch.cache.applied, watch.session.renew().renew.applied.number) == (last, last)
    assert watch.receive(changes(change(0), change(11), change(last))) == ()
    watch.connect()
    assert watch.session.hello().hello.resume_from.number == last
    watch.receive(welcome(10))
    watch.receive(reset(10))
    assert (watch.cache.applied, watch.leased()) == (10, False)


def test_the_first_hello_says_who_it_is_and_resumes_nowhere() -> None:
    watch = Watch()
    hello = watch.session.hello().hello
    assert hello.verifier_key == watch.cache.verifier_key
    assert len(hello.verifier_key) == 16
    assert (hello.name, hello.instance, hello.library) == ("orders", "host:1", "test")
    assert hello.lease.seconds == 60
    assert not hello.HasField("resume_from")


def test_a_later_hello_resumes_where_the_cache_is(watch: Watch) -> None:
    watch.connect()
    assert watch.session.hello().hello.resume_from == position(10)


def test_a_stream_that_resumed_goes_on_with_what_is_known(watch: Watch) -> None:
    token = made()
    watch.know(token)
    watch.connect()
    watch.session.hello()
    assert watch.receive(welcome(10)) == ()
    assert watch.session.attached
    assert watch.session.renew_every_seconds == 2.5
    watch.receive(grant(watch.session.renew(), 10))
    assert watch.knows(token)


@pytest.mark.parametrize(("number", "epoch"), [(9, EPOCH), (11, EPOCH), (10, OTHER_EPOCH)])
def test_what_could_not_be_resumed_counts_for_nothing_before_its_reset(watch: Watch, number: int, epoch: bytes) -> None:
    watch.connect()
    watch.session.hello()
    watch.receive(welcome(number, epoch))
    assert not watch.session.attached
    with pytest.raises(WatchProtocolError):
        watch.receive(changes(change(11)))
    assert watch.cache.applied == 10


def test_a_cache_that_forgot_after_its_hello_is_not_resumed(watch: Watch) -> None:
    watch.connect()
    watch.session.hello()
    watch.cache.forget()
    watch.receive(welcome(10))
    assert not watch.session.attached


def test_a_first_stream_begins_with_a_reset_and_acknowledges_it() -> None:
    watch = Watch()
    watch.session.hello()
    watch.receive(welcome(10))
    assert not watch.session.attached
    assert acknowledged(watch.receive(reset(10))) == [10]
    assert watch.session.attached


# Changes


def test_changes_are_applied_and_acknowledged_once_for_each_message(watch: Watch) -> None:
    tokens = [made(), made()]
    watch.receive(grant(watch.session.renew(), 10))
    for token in tokens:
        watch.know(token)
    assert acknowledged(watch.receive(changes(change(11, tokens[0]), change(12, tokens[1])))) == [12]
    assert not any(map(watch.knows, tokens))


def test_a_part_of_a_position_is_not_acknowledged(watch: Watch) -> None:
    assert watch.receive(changes(change(11, made(), last=False))) == ()
    assert acknowledged(watch.receive(changes(change(11, made())))) == [11]


def test_a_change_is_acknowledged_after_the_gates_are_shut(watch: Watch) -> None:
    token, told = made(), list[int]()
    watch.cache.register(token.text, lambda: told.append(1), lambda: None)
    answers = watch.receive(changes(change(11, token)))
    assert told == [1]
    assert acknowledged(answers) == [11]


def test_a_gap_in_changes_forgets_everything(watch: Watch) -> None:
    token = made()
    watch.receive(grant(watch.session.renew(), 10))
    watch.know(token)
    assert acknowledged(watch.receive(changes(change(12, made())))) == [12]
    assert not watch.knows(token)


@pytest.mark.parametrize("token_id", [b"", b"short", bytes(15), bytes(17)])
def test_a_message_with_an_id_that_is_none_changes_nothing(watch: Watch, token_id: bytes) -> None:
    with pytest.raises(WatchProtocolError):
        watch.receive(changes(change(11), pb.Change(number=12, token_ids=[token_id], last=True)))
    assert watch.cache.applied == 10


# Leases


def test_a_lease_counts_from_when_the_renewal_was_made(watch: Watch) -> None:
    renewal = watch.session.renew()
    assert renewal.renew.applied == position(10)
    watch.clock.advance(20)
    watch.receive(grant(renewal, 10))
    assert watch.cache.lease.remaining_seconds(watch.clock) == pytest.approx(60 * (1 - DRIFT) - 20)


def test_a_grant_for_less_than_asked_is_what_counts(watch: Watch) -> None:
    watch.receive(grant(watch.session.renew(), 10, seconds=5))
    assert watch.cache.lease.remaining_seconds(watch.clock) == pytest.approx(5 * (1 - DRIFT))


def test_a_grant_for_more_than_asked_lasts_as_long_as_asked(watch: Watch) -> None:
    watch.receive(grant(watch.session.renew(), 10, seconds=6_000))
    assert watch.cache.lease.remaining_seconds(watch.clock) == pytest.approx(60 * (1 - DRIFT))


def test_a_grant_counts_once(watch: Watch) -> None:
    renewal = watch.session.renew()
    watch.receive(grant(renewal, 10))
    with pytest.raises(WatchProtocolError):
        watch.receive(grant(renewal, 10))


def test_a_grant_for_a_renewal_of_another_stream_does_not_count(watch: Watch) -> None:
    renewal = watch.session.renew()
    watch.connect()
    watch.attach()
    watch.session.renew()
    with pytest.raises(WatchProtocolError):
        watch.receive(grant(renewal, 10))
    assert not watch.leased()


def test_nonces_never_come_again_whatever_the_stream(watch: Watch) -> None:
    nonces = [watch.session.renew().renew.nonce for _ in range(3)]
    watch.connect()
    watch.attach()
    nonces += [watch.session.renew().renew.nonce for _ in range(3)]
    watch.cache.forget()
    watch.connect()
    watch.attach()
    nonces.append(watch.session.renew().renew.nonce)
    assert len(set(nonces)) == 7


def test_a_grant_above_what_was_applied_forgets_everything_and_is_acknowledged(watch: Watch) -> None:
    token = made()
    watch.receive(grant(watch.session.renew(), 10))
    watch.know(token)
    assert acknowledged(watch.receive(grant(watch.session.renew(), 12))) == [12]
    assert not watch.knows(token)
    assert watch.leased()


def test_a_grant_of_another_epoch_counts_for_nothing(watch: Watch) -> None:
    assert watch.receive(grant(watch.session.renew(), 12, epoch=OTHER_EPOCH)) == ()
    assert not watch.leased()
    assert watch.cache.applied == 10


def test_a_reset_to_another_epoch_voids_the_lease_and_grants_under_way(watch: Watch) -> None:
    watch.receive(grant(watch.session.renew(), 10))
    under_way = watch.session.renew()
    watch.receive(reset(3, OTHER_EPOCH))
    assert not watch.leased()
    watch.receive(grant(under_way, 12))
    assert not watch.leased()
    watch.receive(grant(watch.session.renew(), 3, epoch=OTHER_EPOCH))
    assert watch.leased()


def test_renewals_that_nobody_answers_are_not_kept_for_ever(watch: Watch) -> None:
    first = watch.session.renew()
    for _ in range(64):
        last = watch.session.renew()
    assert len(watch.session._pending) == 64
    watch.receive(grant(last, 10))
    with pytest.raises(WatchProtocolError):
        watch.receive(grant(first, 10))


# Leaving


def test_a_release_is_said_only_when_the_lease_is_no_longer_relied_on(watch: Watch) -> None:
    watch.receive(grant(watch.session.renew(), 10))
    under_way = watch.session.renew()
    assert watch.session.release().HasField("release")
    assert not watch.leased()
    watch.receive(grant(under_way, 10))
    assert not watch.leased()


class Meeting:
    """Stands in the middle of one step of the session until another thread has done, or waits to do, another."""

    def __init__(self, pool: ThreadPoolExecutor, step: Callable[[], pb.WatchRequest]) -> None:
        self._pool = pool
        self._step = step
        self.other: Future[pb.WatchRequest] | None = None

    def __call__(self) -> None:
        self.other = self._pool.submit(self._step)
        # It must not end before this one does: nothing to wait for but a moment in which it could.
        with suppress(TimeoutError):
            self.other.result(0.05)

    @property
    def said(self) -> pb.WatchRequest:
        assert self.other is not None
        return self.other.result(WAIT_SECONDS_MAX)


def test_no_grant_that_meets_a_release_revives_the_lease(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as pool:
        meeting, take = Meeting(pool, watch.session.release), watch.cache.grant

        def grant_slowly(*arguments: Any) -> None:
            meeting()
            take(*arguments)

        answer = grant(watch.session.renew(), 10)
        monkeypatch.setattr(watch.cache, "grant", grant_slowly)
        watch.receive(answer)
        assert meeting.said.HasField("release")
        assert not watch.leased()


def test_no_renewal_tells_of_a_position_whose_gates_are_being_shut(watch: Watch) -> None:
    with ThreadPoolExecutor(1) as pool:
        meeting, token, shut = Meeting(pool, watch.session.renew), made(), threading.Event()

        def shut_slowly() -> None:
            meeting()
            if meeting.other is not None and not meeting.other.done():
                shut.set()

        watch.cache.register(token.text, shut_slowly, lambda: None)
        watch.receive(changes(change(11, token)))
        assert meeting.said.renew.applied.number == 11
        assert shut.is_set()


def test_who_is_asked_to_move_takes_no_further_lease_and_goes_on_applying(watch: Watch) -> None:
    under_way = watch.session.renew()
    assert watch.receive(MOVE) == ()
    assert watch.session.moved
    watch.receive(grant(under_way, 10))
    assert not watch.leased()
    assert acknowledged(watch.receive(changes(change(11, made())))) == [11]


# What no server sends


@pytest.mark.parametrize(
    "message", [pb.WatchResponse(), changes(), reset(10), MOVE, pb.WatchResponse(grant=pb.LeaseGrant(nonce=1))]
)
def test_anything_before_the_welcome_is_refused(message: pb.WatchResponse) -> None:
    watch = Watch()
    watch.session.hello()
    with pytest.raises(WatchProtocolError):
        watch.receive(message)
    assert watch.cache.epoch is None


@pytest.mark.parametrize("message", [pb.WatchResponse(), welcome(10), reset(10, b"")])
def test_a_message_out_of_place_is_refused(watch: Watch, message: pb.WatchResponse) -> None:
    with pytest.raises(WatchProtocolError):
        watch.receive(message)
    assert watch.cache.epoch == EPOCH


@pytest.mark.parametrize(
    "wrong",
    [
        pb.Welcome(position=position(10)),
        pb.Welcome(renew_every=Duration(seconds=-1), position=position(10)),
        pb.Welcome(renew_every=Duration(seconds=1)),
    ],
)
def test_a_welcome_without_an_epoch_or_a_time_to_renew_is_refused(wrong: pb.Welcome) -> None:
    watch = Watch()
    watch.session.hello()
    with pytest.raises(WatchProtocolError):
        watch.receive(pb.WatchResponse(welcome=wrong))
    with pytest.raises(WatchProtocolError):
        watch.receive(reset(10))


def test_a_stream_whose_cache_went_to_another_epoch_is_of_no_use(watch: Watch) -> None:
    renewal = watch.session.renew()
    watch.cache.flush(OTHER_EPOCH, 10)
    with pytest.raises(WatchProtocolError):
        watch.receive(changes(change(11)))
    with pytest.raises(WatchProtocolError):
        watch.receive(grant(renewal, 10))
    assert watch.cache.applied == 10
