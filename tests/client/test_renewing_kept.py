"""Where renewed tokens are kept: before they are used, without losing one, and without showing one."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.renewers import STACKS, Caller, Kept, from_file, handing_to, renewing
from tests.client.rotating import Refusal, Rotating, serve_rotating
from tests.client.subjects import until
from watchword import TokenVariable
from watchword.credentials.place_file import SharedTokenFile

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")

pytestmark = pytest.mark.parametrize("stack", STACKS)


@pytest.fixture
def service() -> Rotating:
    return Rotating()


@pytest.fixture
def file(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "orders.token")


async def test_a_token_that_cannot_be_kept_is_not_lost_and_the_old_one_serves_as_long_as_it_lives(
    stack: str, service: Rotating
) -> None:
    first = service.make()
    service.life_seconds = 1_000.0
    kept: list[str] = []
    is_broken = True

    def store(secret: str) -> None:
        if is_broken:
            raise RuntimeError(f"no place for {secret}")
        kept.append(secret)

    with serve_rotating(service) as address:
        async with (
            renewing(handing_to(stack, store, first.secret), address) as token,
            Caller(service, token) as caller,
        ):
            await until(lambda: token.status().is_unsaved)
            assert token.token() == first.secret, "who starts now finds this one"
            assert token.status().last_error == "RuntimeError"
            await until(lambda: token.token() != first.secret)
            assert service.is_live(first.secret), "the new one is in use before the old one ends"
            assert token.status().is_unsaved
            is_broken = False
            await until(lambda: not token.status().is_unsaved)
            assert token.token() == kept[-1]
    assert caller.failed == 0
    assert kept == [service.lineage(first)[1].secret]
    assert service.count("Rotate") == 1


class FullDisk:
    """Nothing new fits into the token's file, as long as it is full. Notes fit."""

    def __init__(self, file: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        real = SharedTokenFile._write

        def write(place: SharedTokenFile, path: Path, text: str) -> None:
            if self.is_full and path == file.path:
                raise OSError(28, "No space left on device")
            real(place, path, text)

        monkeypatch.setattr(SharedTokenFile, "_write", write)


async def test_a_full_disk_loses_no_token(
    stack: str, service: Rotating, file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = service.make()
    service.life_seconds = 1_000.0
    file.put(first.secret)
    disk = FullDisk(file, monkeypatch)
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token, Caller(service, token) as caller:
            await until(lambda: token.status().is_unsaved)
            assert "No space left on device" in token.status().reason
            # Another process must not repeat the request: that would end the token which is in memory here.
            async with renewing(from_file("sync", file), address):
                await until(lambda: token.token() != first.secret)
                disk.is_full = False
                await until(lambda: not token.status().is_unsaved)
    assert caller.failed == 0
    assert service.count("Rotate") == 1
    assert file.get() == service.lineage(first)[1].secret


async def test_what_an_operator_puts_into_the_file_meanwhile_wins(
    stack: str, service: Rotating, file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.put(service.make().secret)
    FullDisk(file, monkeypatch)
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().is_unsaved)
            fresh = service.make(1_000.0)
            file.put(fresh.secret)
            assert token.token() == fresh.secret
            await until(lambda: token.status().token_id == fresh.token_id)
            assert not token.status().is_unsaved


async def test_a_callback_is_called_before_the_new_token_is_used(stack: str, service: Rotating) -> None:
    first = service.make()
    seen: list[tuple[str, str]] = []
    loop_thread = threading.get_ident()

    def store(secret: str) -> None:
        assert threading.get_ident() != loop_thread
        seen.append((renewer.token.token(), secret))

    renewer = handing_to(stack, store, first.secret)
    with serve_rotating(service) as address:
        async with renewing(renewer, address) as token, Caller(service, token) as caller:
            await until(lambda: token.status().renewals_count >= 2)
            assert token.token() == service.lineage(first)[2].secret
    secrets = [made.secret for made in service.lineage(first)]
    assert seen[:2] == [(secrets[0], secrets[1]), (secrets[1], secrets[2])]
    assert caller.failed == 0


async def test_a_coroutine_function_is_awaited_on_the_loop_and_the_token_used_after_it(
    stack: str, service: Rotating
) -> None:
    if stack == "sync":
        pytest.skip("there is no loop")
    first = service.make()
    is_kept = asyncio.Event()
    asked = asyncio.Event()

    async def store(secret: str) -> None:
        asked.set()
        await is_kept.wait()

    with serve_rotating(service) as address:
        async with renewing(handing_to(stack, store, first.secret, grace_seconds=60), address) as token:
            await asked.wait()
            assert token.token() == first.secret
            is_kept.set()
            await until(lambda: token.token() != first.secret)


async def test_what_could_not_be_kept_is_kept_after_a_restart_too(
    stack: str, service: Rotating, file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = service.make()
    service.life_seconds = 1_000.0
    file.put(first.secret)
    disk = FullDisk(file, monkeypatch)
    renewer = from_file(stack, file, grace_seconds=60)
    with serve_rotating(service) as address:
        async with renewing(renewer, address) as token:
            await until(lambda: token.status().is_unsaved)
        disk.is_full = False
        async with renewing(renewer, address) as token:
            await until(lambda: not token.status().is_unsaved)
    assert file.get() == service.lineage(first)[1].secret
    assert service.count("Rotate") == 1


async def test_a_source_that_gives_something_new_overrides_what_was_renewed(
    stack: str, service: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_TOKEN", service.make().secret)
    renewer = handing_to(stack, lambda secret: None, TokenVariable("ORDERS_TOKEN"))
    with serve_rotating(service) as address:
        async with renewing(renewer, address) as token:
            await until(lambda: token.status().renewals_count)
            fresh = service.make(1_000.0)
            monkeypatch.setenv("ORDERS_TOKEN", fresh.secret)
            assert token.token() == fresh.secret
            await until(lambda: token.status().token_id == fresh.token_id)


async def test_closing_lets_a_rotation_that_is_under_way_come_to_its_end(
    stack: str, service: Rotating, file: Kept
) -> None:
    first = service.make()
    service.life_seconds = 1_000.0
    file.put(first.secret)
    arrived, go_on = threading.Event(), threading.Event()

    def hold(method: str) -> None:
        if method == "Rotate":
            arrived.set()
            go_on.wait(30)

    service.before = hold
    renewer = from_file(stack, file)
    with serve_rotating(service) as address:
        await renewer.start(address)
        await until(arrived.is_set)
        closing = asyncio.ensure_future(renewer.close())
        await asyncio.sleep(0)
        go_on.set()
        await closing
    assert file.get() == service.lineage(first)[1].secret
    assert file.beside == []


async def test_what_could_not_be_kept_is_tried_once_more_when_it_is_closed(stack: str, service: Rotating) -> None:
    first = service.make()
    service.life_seconds = 1_000.0
    kept: list[str] = []
    failures = iter([True])

    def store(secret: str) -> None:
        if next(failures, False):
            raise RuntimeError
        kept.append(secret)

    renewer = handing_to(stack, store, first.secret, grace_seconds=5_000)
    with serve_rotating(service) as address:
        async with renewing(renewer, address) as token:
            await until(lambda: token.status().is_unsaved)
    assert kept == [service.lineage(first)[1].secret]
    assert renewer.token.token() == kept[0]


@pytest.mark.parametrize("content", ["", "not a token", "ww_0000"])
async def test_a_file_without_a_token_is_waited_for(stack: str, service: Rotating, file: Kept, content: str) -> None:
    file.put(content)
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().last_error)
            assert content not in repr(token.status()) or not content
            file.put(service.make(1_000.0).secret)
            await until(lambda: token.status().token_id)
            await until(lambda: token.status().last_error is None)


async def test_a_folder_that_cannot_be_written_to_is_found_out_at_the_start(
    stack: str, service: Rotating, file: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    file.put(service.make(1_000.0).secret)
    file.path.with_name(".orders.token.lock").mkdir()
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().last_error)
            assert "orders.token cannot be replaced" in token.status().reason
    assert service.count("Rotate") == 0
    assert "cannot be replaced" in caplog.text


def has_renewed(token: Any) -> bool:
    return bool(token.status().renewals_count)


async def test_no_secret_shows_in_logs_errors_reprs_or_status(
    stack: str, service: Rotating, file: Kept, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    first = service.make()
    file.put(first.secret)
    said: list[str] = []
    refusals: dict[int, Refusal | None] = {1: UNAVAILABLE, 3: Refusal(grpc.StatusCode.UNAVAILABLE, after=True)}
    service.refuse = lambda method: refusals.get(len(service.calls))

    failures = iter([True])

    def store(secret: str) -> None:
        if next(failures, False):
            raise OSError(5, f"cannot keep {secret}")

    with serve_rotating(service) as address:
        for renewer in (from_file(stack, file), handing_to(stack, store, service.make().secret)):
            async with renewing(renewer, address) as token:
                await until(partial(has_renewed, token))
                said += [repr(token), repr(vars(token)), repr(token.status()), repr(token._renewal), repr(token._place)]
                said += [repr(getattr(token._place, "_file", "")), repr(getattr(token._place, "_current", ""))]
    said.extend((caplog.text, *capfd.readouterr()))
    everything = "\n".join(said)
    assert "is renewed" in everything
    assert "is in memory only" in everything
    assert len(service.secrets) >= 4
    for secret in service.secrets:
        assert secret[25:58] not in everything
