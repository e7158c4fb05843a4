"""When a verifier counts a lease as its own, and how it gives one up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.client.caches import OTHER_EPOCH, made
from tests.client.test_watch_session import (
    MOVE,
    Watch,
    acknowledged,
    change,
    changes,
    grant,
    position,
    reset,
)
from watchword.lease import DRIFT
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier.session import WatchProtocolError

WAIT_SECONDS_MAX = 30


@pytest.fixture
def watch() -> Watch:
    watch = Watch()
    watch.attach()
    return watch


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
