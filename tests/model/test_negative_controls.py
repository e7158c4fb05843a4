"""The verifier's mechanisms are needed: a short history in which the lack of one admits a token after COMPLETE.

The same history keeps the guarantee with the real code. See test_negative_controls_fleet.py for the replicas'.
"""

from __future__ import annotations

from tests.model import controls
from tests.model.replica import LEASE_SECONDS
from tests.model.stories import AFTER_LEASE, accepts, asked, attached, caught, finish, is_complete, revoke
from tests.model.world import World


def test_negative_control_lease_by_timer_flag() -> None:
    """A verifier stands still for longer than its lease; awake, it decides before its timers had a turn."""

    def story(world: World) -> None:
        verifier, _ = attached(world)
        verifier.frozen = True
        revoke(world)
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        verifier.frozen = False
        accepts(world, verifier)

    caught(story, controls.LEASE_BY_TIMER_FLAG)


def test_negative_control_lease_read_after_entry() -> None:
    """Without a lease an old entry is found; before the lease is asked for, it comes back and the entry is dropped."""

    def story(world: World) -> None:
        verifier, link = attached(world)
        link.cut()
        revoke(world)
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        task = verifier.check(world.tokens[0], world.replicas[0])
        verifier.connect(world.replicas[0]).pump()
        finish(world, task)

    caught(story, controls.LEASE_READ_AFTER_ENTRY)


def test_negative_control_no_recent_change_check_on_fill() -> None:
    """An answer that was read before the revocation arrives after the change did."""

    def story(world: World) -> None:
        verifier, _ = attached(world, remembers=False)
        task = asked(world, verifier)
        revoke(world)
        world.settle()
        assert is_complete(world)
        finish(world, task)
        accepts(world, verifier)

    caught(story, controls.NO_RECENT_CHANGE_CHECK)


def test_negative_control_answer_below_floor() -> None:
    """An answer that was read before the revocation arrives after a reset, which said nothing of the change."""

    def story(world: World) -> None:
        verifier, link = attached(world, remembers=False)
        task = asked(world, verifier)
        link.cut()
        revoke(world)
        newcomer = world.add_replica()
        newcomer.join().run()
        verifier.connect(newcomer)
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        finish(world, task)
        accepts(world, verifier)

    caught(story, controls.ANSWER_BELOW_FLOOR)


def test_negative_control_joining_without_lease() -> None:
    """A verifier without a lease hears of no change; a lookup from before the revocation is still under way."""

    def story(world: World) -> None:
        verifier, link = attached(world, remembers=False)
        link.cut()
        world.healthy(AFTER_LEASE)
        task = asked(world, verifier)
        revoke(world)
        world.settle()
        assert is_complete(world)
        joining = verifier.check(world.tokens[0], world.replicas[0])
        finish(world, task)
        finish(world, joining)

    caught(story, controls.JOINING_WITHOUT_LEASE)


def test_negative_control_insert_outside_lock() -> None:
    """The change is applied between the check of an answer and its insertion."""

    def story(world: World) -> None:
        verifier, _ = attached(world, remembers=False)
        task = asked(world, verifier)
        task.step()
        revoke(world)
        world.settle()
        assert is_complete(world)
        if not task.done:
            finish(world, task)
        accepts(world, verifier)

    caught(story, controls.INSERT_OUTSIDE_LOCK)


def test_negative_control_nonces_that_restart() -> None:
    """A grant held up on an old stream is taken for the answer to a later renewal on a new one."""

    def story(world: World) -> None:
        verifier, link = attached(world)
        world.advance(LEASE_SECONDS * 0.3)
        link.renew()
        link.arrive()
        link.write()
        world.held.append(link)
        world.healthy(LEASE_SECONDS * 0.6)
        newer = verifier.connect(world.replicas[0], overlap=True)
        newer.arrive()
        newer.write()
        newer.deliver()
        newer.renew()
        newer.cut()
        link.deliver()
        revoke(world)
        world.healthy(LEASE_SECONDS * 0.5)
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.NONCES_THAT_RESTART)


def test_negative_control_renewal_from_receipt() -> None:
    """A grant is long on its way: the verifier would rely on it when its replica counts it as over."""

    def story(world: World) -> None:
        verifier, link = attached(world)
        link.renew()
        link.arrive()
        link.write()
        world.held.append(link)
        world.healthy(LEASE_SECONDS * 0.9)
        link.deliver()
        link.cut()
        revoke(world)
        world.healthy(LEASE_SECONDS * 0.2)
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.RENEWAL_FROM_RECEIPT)


def test_negative_control_reused_verifier_key() -> None:
    """The child of a fork acknowledges what its parent, which has lost its stream, has not heard."""

    def story(world: World) -> None:
        parent, link = attached(world)
        world.fork(parent).connect(world.replicas[0])
        world.held.append(link)
        revoke(world)
        world.settle()
        accepts(world, parent)
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        accepts(world, parent)

    caught(story, controls.REUSED_VERIFIER_KEY)


def test_negative_control_registering_after_lookup() -> None:
    """A call that stays open is admitted by an answer from before the revocation, and would never hear of it."""

    def story(world: World) -> None:
        verifier, _ = attached(world, remembers=False)
        task = verifier.open(world.tokens[0], world.replicas[0])
        task.step()
        next(one for one in world.replicas[0].tasks if one.name == "validate").run()
        world.held.append(task)
        revoke(world)
        world.settle()
        assert is_complete(world)
        finish(world, task)
        world.check()

    caught(story, controls.REGISTERED_AFTER_LOOKUP)
