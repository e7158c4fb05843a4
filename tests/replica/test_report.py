"""What operators are shown of a replica's verifiers."""

from __future__ import annotations

from uuid import uuid4

from tests.clocks import ManualClock
from tests.replica.test_ledger import member, page
from tests.replica.test_stream import KEY, attached, renew
from watchword_server.replica.report import watcher_rows


def test_watchers_are_told_of_with_their_lag() -> None:
    clock = ManualClock()
    ledger, replica = member(clock, 5), uuid4()
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    ledger.learn(page(7, 6, 7))
    (row,) = watcher_rows(ledger, replica, clock.boottime())
    assert (row.replica, row.verifier_key, row.lag, row.attached) == (replica, KEY, 2, True)
    stream.close()
    (row,) = watcher_rows(ledger, replica, clock.boottime())
    assert (row.attached, row.lease_remaining_seconds > 59) == (False, True)
    clock.advance(row.lease_remaining_seconds)
    assert not watcher_rows(ledger, replica, clock.boottime())
