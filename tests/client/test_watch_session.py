"""One Watch stream as the verifier sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.client.caches import EPOCH, OTHER_EPOCH, READ, Made, active, made
from tests.clocks import ManualClock
from watchword.token import parse_token_id
from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier.cache import Cache
from watchword.verifier.session import WatchProtocolError, WatchSession

LEASE_SECONDS = 60.0
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
