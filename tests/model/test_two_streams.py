"""A verifier that still reads an old stream while it has a new one: what comes late on the old one grants nothing."""

from __future__ import annotations

from tests.model import controls
from tests.model.replica import LEASE_SECONDS
from tests.model.stories import AFTER_LEASE, accepts, asked, attached, caught, finish, is_complete, revoke
from tests.model.verifier import Link, Verifier
from tests.model.world import World


def test_negative_control_grant_after_release() -> None:
    """The replica drains, and is told on the new stream that nobody need wait for this verifier."""

    def story(world: World) -> None:
        verifier, old = attached(world, replica=1)
        grant_held_up(world, old)
        newer = verifier.connect(world.replicas[1], overlap=True)
        world.settle()
        world.advance(LEASE_SECONDS * 0.1)
        leaving = world.replicas[1]
        leaving.drain()
        newer.pump()
        leaving.leave().run()
        leaving.kill()
        old.deliver()
        revoke(world)
        world.settle()
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.GRANT_AFTER_RELEASE)


def test_negative_control_grant_after_going_back() -> None:
    """The verifier acknowledged a position on one stream, and on another it begins anew at an earlier one."""

    def story(world: World) -> None:
        verifier, first = attached(world, remembers=False)
        lookup = asked(world, verifier)
        grant_held_up(world, first)
        reset = reset_held_up(world, verifier)
        verifier.connect(world.replicas[0], overlap=True)
        revoke(world)
        world.settle()
        assert is_complete(world)
        reset.deliver()  # The welcome,
        reset.deliver()  # and the reset.
        first.deliver()
        finish(world, lookup)
        accepts(world, verifier)

    caught(story, controls.GRANT_AFTER_RELEASE)


def test_a_verifier_that_went_back_is_granted_what_it_asks_for_then() -> None:
    """What was asked for before counts for nothing; the next renewal does."""
    world = World()
    verifier, link = attached(world)
    world.advance(LEASE_SECONDS * 0.1)
    verifier.cache.lapse()
    world.settle()
    assert not verifier.cache.lease.live(verifier.clock)
    link.renew()
    world.settle()
    assert verifier.cache.lease.live(verifier.clock)
    world.healthy(AFTER_LEASE)
    assert verifier.cache.lease.live(verifier.clock)


def grant_held_up(world: World, link: Link) -> None:
    """A lease is asked for and granted; the grant does not arrive."""
    world.advance(LEASE_SECONDS * 0.1)
    link.renew()
    link.arrive()
    link.write()
    world.held.append(link)
    world.advance(LEASE_SECONDS * 0.1)


def reset_held_up(world: World, verifier: Verifier) -> Link:
    """A stream whose reset to the position of now does not arrive."""
    epoch, verifier.cache.epoch = verifier.cache.epoch, None
    link = verifier.connect(world.replicas[1], overlap=True)
    verifier.cache.epoch = epoch
    while link.arrive() or link.write():
        pass
    world.held.append(link)
    return link
