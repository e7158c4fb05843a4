"""The replicas' mechanisms are needed: a short history in which the lack of one admits a token after COMPLETE.

The same history keeps the guarantee with the real code.
"""

from __future__ import annotations

from tests.model import controls
from tests.model.replica import LEASE_SECONDS
from tests.model.stories import AFTER_LEASE, accepts, attached, caught, is_complete, revoke
from tests.model.world import World


def test_negative_control_sequence_as_cursor() -> None:
    """Two revocations are under way at once. The later one commits first: whoever has read it reads on from there."""

    def story(world: World) -> None:
        verifier, _ = attached(world, remembers=False)
        first = world.replicas[0].revoke(world.id_of(world.tokens[0]))
        first.step()
        first.step()
        world.held.append(first)
        world.replicas[1].revoke(world.id_of(world.tokens[1]))
        world.settle()
        assert accepts(world, verifier)
        world.held.clear()
        world.settle()
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.SEQUENCE_AS_CURSOR)


def test_negative_control_acknowledging_on_write() -> None:
    """The change is written to the stream, and has not arrived."""

    def story(world: World) -> None:
        verifier, link = attached(world)
        world.held.append(link)
        revoke(world)
        world.replicas[0].feed().run()
        link.write()
        world.settle()
        accepts(world, verifier)
        link.pump()
        world.settle()
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.ACKNOWLEDGING_ON_WRITE)


def test_negative_control_record_dropped_with_stream() -> None:
    """A verifier whose stream was cut still has its lease."""

    def story(world: World) -> None:
        verifier, link = attached(world)
        link.cut()
        revoke(world)
        world.settle()
        accepts(world, verifier)
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.RECORD_DROPPED_WITH_STREAM)


def test_negative_control_other_replicas_not_awaited() -> None:
    """The verifier hears of revocations by another replica than the one that was asked to revoke."""

    def story(world: World) -> None:
        verifier, link = attached(world, replica=1)
        world.held.append(link)
        revoke(world, replica=0)
        world.settle()
        accepts(world, verifier)
        link.pump()
        world.settle()
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.OTHER_REPLICAS_NOT_AWAITED)


def test_negative_control_timeout_without_fencing() -> None:
    """A replica that stood still for longer than its lease goes on, and would renew the row that nobody waits for."""

    def story(world: World) -> None:
        verifier, _ = attached(world, replica=1)
        asleep = world.replicas[1]
        asleep.frozen = True
        world.healthy(AFTER_LEASE)
        asleep.frozen = False
        world.healthy(LEASE_SECONDS * 0.2)
        _, link = attached(world, replica=1)
        world.held.append(link)
        revoke(world, replica=0)
        world.settle()
        accepts(world, verifier)
        world.held.clear()
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.TIMEOUT_WITHOUT_FENCING)


def test_negative_control_position_before_row() -> None:
    """A revocation is complete before a replica's row is there, and after that replica read where to begin."""

    def story(world: World) -> None:
        verifier, link = attached(world)
        link.cut()
        world.healthy(AFTER_LEASE)
        newcomer = world.add_replica()
        joining = newcomer.join()
        for _ in range(3):  # Whatever it does after it asked for the epoch has happened, and is not answered.
            joining.step()
        world.held.append(joining)
        revoke(world)
        world.settle()
        joining.run()
        verifier.connect(newcomer).pump()
        accepts(world, verifier)
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.POSITION_BEFORE_ROW)


def test_negative_control_drain_deletes_row_first() -> None:
    """A replica that goes deletes its row, while a verifier that has not heard of it has a lease."""

    def story(world: World) -> None:
        verifier, link = attached(world, replica=1)
        world.held.append(link)
        leaving = world.replicas[1]
        leaving.drain()
        leaving.leave().run()
        leaving.kill()
        revoke(world)
        world.settle()
        accepts(world, verifier)
        world.healthy(AFTER_LEASE)
        assert is_complete(world)
        accepts(world, verifier)

    caught(story, controls.DRAIN_DELETES_ROW_FIRST)


def test_negative_control_commit_cancelled() -> None:
    """The wait for the standby is given up, and the row stays; the standby, which has not got it, takes over."""

    def story(world: World) -> None:
        verifier, _ = attached(world, remembers=False)
        world.database.replicate()
        revoke_unanswered(world)
        world.replicas[0].revoke(world.id_of(world.tokens[0]))
        world.settle()
        world.database.fail_over()
        world.healthy(AFTER_LEASE)
        accepts(world, verifier)

    caught(story, controls.COMMIT_CANCELLED)


def test_revoke_is_complete_once_the_standby_has_it() -> None:
    """The other half of the story above: what was complete is not lost by the fail-over."""
    world = World()
    verifier, _ = attached(world, remembers=False)
    world.database.replicate()
    revoke_unanswered(world)
    world.replicas[0].revoke(world.id_of(world.tokens[0]))
    world.settle()
    assert not is_complete(world)
    world.database.replicate()
    world.settle()
    assert is_complete(world)
    world.database.fail_over()
    world.healthy(AFTER_LEASE)
    assert accepts(world, verifier) is False


def revoke_unanswered(world: World) -> None:
    """A Revoke whose caller goes away while the commit waits for the standby."""
    task = world.replicas[0].revoke(world.id_of(world.tokens[0]))
    while task.ready:
        task.step()
    task.end()
