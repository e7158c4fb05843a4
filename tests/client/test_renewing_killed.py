"""A process that is killed in the middle of a rotation loses no token: whoever shares its file goes on where it was."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.client.killed_renewer import STEPS, killed
from tests.client.renewers import STACKS, Caller, Kept, from_file, renewing
from tests.client.rotating import Rotating, serve_rotating
from tests.client.subjects import until
from watchword import aio

LIFE, GRACE = 40.0, 8.0


@pytest.mark.parametrize("step", STEPS)
async def test_a_sibling_goes_on_where_the_killed_one_was(step: str, tmp_path: Path) -> None:
    service, file = Rotating(life_seconds=LIFE, grace_seconds=GRACE), Kept(tmp_path / "orders.token")
    # Due for the one that is killed at once, for its sibling much later.
    first = service.make()
    file.put(first.secret)
    sibling = aio.RenewingToken.file(file.path, grace_seconds=GRACE)
    with serve_rotating(service) as address:
        async with (
            aio.connect(address, token=sibling) as authority,
            sibling.renewing(authority),
            Caller(service, sibling) as caller,
        ):
            assert await killed(address, file.path, step, GRACE) == -signal.SIGKILL
            await until(lambda: sibling.status().token_id not in ("", first.token_id))
            await until(lambda: sibling.token() != first.secret)
    assert caller.failed == 0
    assert file.get() == service.lineage(first)[-1].secret
    assert service.is_live(file.get())
    assert len(service.lineage(first)) == 2
    assert sum(service.is_live(secret) for secret in service.secrets if secret != first.secret) == 1
    expected_rotations = {STEPS[0]: 1, STEPS[1]: 2, STEPS[2]: 2, STEPS[3]: 1}
    assert service.count("Rotate") == expected_rotations[step]
    assert len({request.request_id for request in service.requests}) == 1
    assert file.beside == ([".orders.token.renewal"] if step == STEPS[3] else [])


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("step", STEPS)
async def test_so_does_the_same_process_when_it_is_started_again(stack: str, step: str, tmp_path: Path) -> None:
    service, file = Rotating(life_seconds=LIFE, grace_seconds=GRACE), Kept(tmp_path / "orders.token")
    first = service.make()
    file.put(first.secret)
    with serve_rotating(service) as address:
        assert await killed(address, file.path, step, GRACE) == -signal.SIGKILL
        async with renewing(from_file(stack, file), address) as token, Caller(service, token) as caller:
            await until(lambda: token.status().token_id not in ("", first.token_id))
            await until(lambda: token.token() != first.secret)
            # And its next rotation is an ordinary one.
            await until(lambda: len(service.lineage(first)) > 2)
            await until(lambda: token.status().token_id == service.lineage(first)[-1].token_id)
    assert caller.failed == 0
    assert file.beside == []
    assert file.get() == service.lineage(first)[-1].secret
