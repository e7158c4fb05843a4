"""What a hostile verifier sends ends its own stream with a clear status, and no other one."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import grpc
import pytest

from tests.conftest import Watchword
from tests.path.party import Party, Refusal, refusal_of, unique
from tests.path.watcher import WATCH_PATH, Watcher, attached, duration
from watchword.v1 import token_service_pb2 as token_pb
from watchword.v1 import verifier_service_pb2 as pb

FUTURE = 1_000_000


@pytest.fixture(autouse=True)
def bystander(admin: Party) -> Iterator[None]:
    """Another verifier, attached all along, which is granted a lease at the end as at the beginning."""
    with Watcher(admin, lease_seconds=60).attach() as watcher:
        watcher.keep_up()
        yield
        watcher.renew()
        watcher.leave()


def _refused(watcher: Watcher) -> tuple[grpc.StatusCode, str]:
    end = watcher.ended()
    return end.code, end.reason


PROTOCOL = (grpc.StatusCode.INVALID_ARGUMENT, "WATCH_PROTOCOL")


def _raw(party: Party, *messages: bytes, metadata: Iterable[tuple[str, str]] | None = None) -> Refusal:
    """How a stream of any bytes ends."""
    outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for message in messages:
        outgoing.put(message)
    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = party.channel.stream_stream(WATCH_PATH, bytes, bytes)
    call = stream(
        iter(outgoing.get, None), metadata=party.metadata if metadata is None else tuple(metadata), timeout=30
    )
    try:
        with pytest.raises(grpc.RpcError) as caught:
            for _ in call:
                pass
    finally:
        outgoing.put(None)
    return refusal_of(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\xff", b"\x0a\x05ab", b"x" * 5000, b""])
def test_bytes_that_are_no_message_end_the_stream(admin: Party, data: bytes) -> None:
    end = _raw(admin, data)
    assert (end.code, end.reason) == PROTOCOL


def test_a_stream_that_ends_with_its_first_answer_on_the_way_ends(admin: Party) -> None:
    for _ in range(100):  # One in thirty did not, for want of its status.
        hello = pb.WatchRequest(hello=pb.Hello(verifier_key=uuid4().bytes, lease=duration(1)))
        end = _raw(admin, hello.SerializeToString(), b"\xff")
        assert (end.code, end.reason) == PROTOCOL


HELLOS: dict[str, Callable[[], pb.Hello]] = {
    "no key": lambda: pb.Hello(lease=duration(2)),
    "short key": lambda: pb.Hello(verifier_key=b"short", lease=duration(2)),
    "long key": lambda: pb.Hello(verifier_key=b"x" * 17, lease=duration(2)),
    "no lease": lambda: pb.Hello(verifier_key=uuid4().bytes),
    "negative lease": lambda: pb.Hello(verifier_key=uuid4().bytes, lease=duration(-2)),
    "long name": lambda: pb.Hello(verifier_key=uuid4().bytes, lease=duration(2), name="x" * 256),
    "name with an escape": lambda: pb.Hello(verifier_key=uuid4().bytes, lease=duration(2), name="a\x1b[2Jb"),
    "name with NUL": lambda: pb.Hello(verifier_key=uuid4().bytes, lease=duration(2), instance="a\x00b"),
}


@pytest.mark.parametrize("name", HELLOS)
def test_a_hello_that_no_verifier_says_ends_the_stream(admin: Party, name: str) -> None:
    with Watcher(admin) as watcher:
        watcher.send(pb.WatchRequest(hello=HELLOS[name]()))
        assert _refused(watcher) == PROTOCOL


@pytest.mark.parametrize("first", ["renew", "acknowledge", "release"])
def test_a_stream_that_does_not_begin_with_hello_ends(admin: Party, first: str) -> None:
    with Watcher(admin) as watcher:
        message = pb.WatchRequest()
        getattr(message, first).SetInParent()
        watcher.send(message)
        assert _refused(watcher) == PROTOCOL


def test_a_second_hello_ends_the_stream(admin: Party) -> None:
    with attached(admin) as watcher:
        watcher.send(pb.WatchRequest(hello=pb.Hello(verifier_key=watcher.key, lease=duration(2))))
        assert _refused(watcher) == PROTOCOL


def test_acknowledging_the_future_ends_the_stream(admin: Party) -> None:
    with attached(admin) as watcher:
        watcher.acknowledge(watcher.position.number + FUTURE)
        assert _refused(watcher) == PROTOCOL


def test_renewing_in_the_future_ends_the_stream(admin: Party) -> None:
    with attached(admin) as watcher:
        applied = token_pb.Position(epoch=watcher.position.epoch, number=watcher.position.number + FUTURE)
        watcher.send(pb.WatchRequest(renew=pb.Renew(nonce=99, applied=applied)))
        assert _refused(watcher) == PROTOCOL


def test_resuming_from_the_future_ends_the_stream(admin: Party) -> None:
    with attached(admin) as watcher:
        position = token_pb.Position(epoch=watcher.position.epoch, number=watcher.position.number + FUTURE)
    with Watcher(admin) as watcher:
        watcher.send(pb.WatchRequest(hello=pb.Hello(verifier_key=watcher.key, lease=duration(2), resume_from=position)))
        assert _refused(watcher) == PROTOCOL


def test_a_flood_of_renewals_ends_the_stream(admin: Party) -> None:
    with attached(admin) as watcher:
        for nonce in range(1000, 6000):
            watcher.send(pb.WatchRequest(renew=pb.Renew(nonce=nonce, applied=watcher.position)))
        assert _refused(watcher) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_FLOODING")


def test_silence_ends_a_stream_where_a_hello_or_an_acknowledgement_is_due(admin: Party) -> None:
    """Both at once, because each takes its timeout."""
    victim = admin.issue(unique())
    with Watcher(admin) as mute, Watcher(admin, lease_seconds=2).attach() as watcher:
        admin.revoke(token_pb.RevokeRequest(token=victim.secret, no_wait=True))
        assert _refused(watcher) == (grpc.StatusCode.ABORTED, "WATCH_LAGGING")
        assert _refused(mute) == PROTOCOL


def test_the_same_verifier_twice_keeps_the_newer_stream(admin: Party) -> None:
    with attached(admin) as watcher, Watcher(admin, key=watcher.key) as second:
        second.attach()
        assert _refused(watcher) == (grpc.StatusCode.ABORTED, "WATCH_REPLACED")
        second.renew()


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer nonsense"),)])
def test_without_a_token_nothing_is_told(admin: Party, metadata: tuple[tuple[str, str], ...]) -> None:
    for data in (b"", b"\xff\xff", pb.WatchRequest(hello=pb.Hello(verifier_key=b"x" * 16)).SerializeToString()):
        assert _raw(admin, data, metadata=metadata).code is grpc.StatusCode.UNAUTHENTICATED


def test_a_token_without_the_scope_may_not_watch(admin: Party) -> None:
    reader = admin.party(unique(), ["watchword.read"])
    with Watcher(reader) as watcher:
        assert _refused(watcher) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


def test_a_token_for_another_audience_may_not_watch(admin: Party) -> None:
    other = Party(admin.channel, admin.issue(unique(), ["orders"]).secret)
    with Watcher(other) as watcher:
        assert _refused(watcher) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


def test_one_caller_has_so_many_watches_and_no_more(watchword: Watchword, admin: Party) -> None:
    crowd = admin.party(unique(), ["watchword.validate"])
    with ExitStack() as stack:
        for _ in range(200):
            watcher = stack.enter_context(Watcher(crowd))
            watcher.hello()
            # The first must not fall silent before the last is there.
            watcher.acknowledge()
        assert _refused(stack.enter_context(Watcher(crowd))) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHES_LIMITED")
        with attached(admin):
            # Somebody else's are not refused, nor are calls.
            assert crowd.verdict(crowd.secret) == "inactive"
