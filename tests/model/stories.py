"""What the short histories of the negative controls are told with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.model.parts import Parts
from tests.model.replica import LEASE_SECONDS
from tests.model.steps import Task
from tests.model.verifier import Link, Verifier
from tests.model.world import PropertyError, World

Story = Callable[[World], None]
# Whoever counts it by whichever clock.
AFTER_LEASE = LEASE_SECONDS * 1.02


def caught(story: Story, control: Parts) -> None:
    """The story keeps the guarantee with the real code, and breaks it with the control."""
    story(World())
    with pytest.raises(PropertyError):
        story(World(control))


def attached(world: World, verifier: int = 0, replica: int = 0, *, remembers: bool = True) -> tuple[Verifier, Link]:
    """All replicas have joined, and this verifier holds a lease of this replica. It `remembers` the first token."""
    world.settle()
    watching = world.verifiers[verifier]
    link = watching.connect(world.replicas[replica])
    world.settle()
    assert watching.cache.lease.live(watching.clock)
    if remembers:
        assert accepts(world, watching)
        hits = world.hits
        assert accepts(world, watching)
        assert world.hits == hits + 1
    return watching, link


def accepts(world: World, verifier: Verifier, token: int = 0) -> bool | None:
    """A call comes in now, and is judged with nothing else happening."""
    task = verifier.check(world.tokens[token], world.replicas[0])
    finish(world, task)
    return task.result


def finish(world: World, task: Task[Any]) -> None:
    """A decision comes to its end; its lookup, where it has one, is answered at once."""
    while not task.done:
        if not task.ready:
            validating(world).run()
        task.step()


def asked(world: World, verifier: Verifier) -> Task[Any]:
    """A call with the first token is being looked up: its answer has been read, and is held up on its way."""
    task = verifier.check(world.tokens[0], world.replicas[0])
    task.step()
    validating(world).run()
    world.held.append(task)
    return task


def validating(world: World) -> Task[Any]:
    """The latest lookup at the first replica."""
    return next(task for task in reversed(world.replicas[0].tasks) if task.name == "validate")


def revoke(world: World, replica: int = 0) -> Task[Any]:
    """A Revoke of the first token comes in, and is committed."""
    task = world.replicas[replica].revoke(world.id_of(world.tokens[0]))
    while not task.done and not (task.op is not None and task.op.local):
        task.step()
    return task


def is_complete(world: World) -> bool:
    """Whether the Revoke of the first token returned."""
    return world.is_complete(world.tokens[0])
