"""The limits on checks that go on to the authority."""

from __future__ import annotations

import pytest

from watchword import VerifierUnavailableError
from watchword.verifier.misses import Misses, MissLimits


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(misses: Misses, peer: str | None, tries: int) -> int:
    """How many of so many misses are let through."""
    let_through = 0
    for _ in range(tries):
        try:
            misses.take(peer)
            let_through += 1
        except VerifierUnavailableError:
            continue
    return let_through


def test_a_refusal_says_why() -> None:
    misses = Misses(MissLimits(per_second_max=1), Clock())
    misses.take()
    with pytest.raises(VerifierUnavailableError) as caught:
        misses.take()
    assert caught.value.cause == "MISSES_LIMITED"


def test_a_burst_of_one_seconds_worth_passes_and_then_the_rate() -> None:
    clock = Clock()
    misses = Misses(MissLimits(per_second_max=10), clock)
    assert taken(misses, None, 30) == 10
    clock.now = 0.5
    assert taken(misses, None, 30) == 5
    clock.now = 1000.0
    assert taken(misses, None, 30) == 10
    assert misses.limited_count == 65


def test_one_peer_cannot_take_what_the_others_need() -> None:
    misses = Misses(MissLimits(per_second_max=10, per_peer_per_second_max=4), Clock())
    assert taken(misses, "ipv4:10.0.0.1:1", 100) == 4
    assert taken(misses, "ipv4:10.0.0.1:2", 100) == 0, "another port is the same peer"
    assert taken(misses, "ipv4:10.0.0.2:1", 100) == 4
    assert taken(misses, "ipv6:%5B::1%5D:1", 100) == 2, "the limit for all"


@pytest.mark.parametrize("form", ["ipv6:%5B{}%5D:1", "ipv6:[{}]:1"])
def test_the_addresses_that_one_machine_has_of_ipv6_are_one_peer(form: str) -> None:
    misses = Misses(MissLimits(per_peer_per_second_max=4), Clock())
    assert sum(taken(misses, form.format(f"2001:db8:1:2::{host:x}"), 1) for host in range(100)) == 4
    assert taken(misses, form.format("2001:db8:1:3::1"), 5) == 4
    # Callers by IPv4 at a listener for both.
    assert [taken(misses, form.format(f"::ffff:10.0.0.{host}"), 5) for host in (1, 2)] == [4, 4]
    assert taken(misses, form.format("nonsense"), 5) == 4


def test_callers_on_a_socket_are_one_peer() -> None:
    misses = Misses(MissLimits(per_peer_per_second_max=4), Clock())
    assert taken(misses, "unix:", 5) + taken(misses, "unix:/run/a", 5) == 4


def test_peers_are_remembered_up_to_a_bound() -> None:
    misses = Misses(MissLimits(per_second_max=1000, per_peer_per_second_max=1, peers_max=2), Clock())
    assert [taken(misses, f"ipv4:10.0.0.{host}:1", 1) for host in (1, 2, 1, 3, 1, 2)] == [1, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("wrong", [{"per_second_max": 0}, {"per_peer_per_second_max": 0.5}, {"peers_max": 0}])
def test_a_limit_below_one_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MissLimits(**wrong)  # type: ignore[arg-type]
