"""The code in docs/renew-a-token.md runs, and its tables name what there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.subjects import until
from tests.docs.documents import blocks, code, rows
from tests.tooling.sources import ROOT
from watchword import Policy, RenewalStatus
from watchword.aio import ServerInterceptor
from watchword.credentials import outcome
from watchword.testing import FakeAuthority, serve

GUIDE = "docs/renew-a-token.md"
AUTHORITY, ORDERS = "127.0.0.1:7600", "127.0.0.1:7700"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)


def names_of(word: str, replaced: dict[str, str]) -> dict[str, Any]:
    """What the python block defines that has this word in it, with addresses replaced."""
    (text,) = [block.text for block in blocks(GUIDE) if block.language == "python" and word in block.text]
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(text, GUIDE, "exec"), names)
    return names


@asynccontextmanager
async def orders(authority: FakeAuthority) -> AsyncIterator[str]:
    """The example's service; where."""
    from orders.server import OrdersService
    from orders.v1 import orders_pb2, orders_pb2_grpc

    interceptor = ServerInterceptor(authority.verifier("orders"), Policy(orders_pb2.DESCRIPTOR))
    server = grpc.aio.server(interceptors=[interceptor])
    orders_pb2_grpc.add_OrdersServiceServicer_to_server(OrdersService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def keep_token(authority: FakeAuthority, ttl_seconds: float = 600.0) -> str:
    """Where the guide says that it is."""
    secret = authority.issue(
        "alice", scopes=["orders.read"], audiences=["watchword", "orders"], ttl_seconds=ttl_seconds
    )
    Path("alice.token").write_text(secret)
    return secret


def kept_token() -> str:
    return Path("alice.token").read_text().strip()


async def test_the_shortest_way_calls_a_service() -> None:
    authority = FakeAuthority()
    keep_token(authority)
    with serve(authority) as address:
        async with orders(authority) as service:
            answer = await names_of("async def call", {AUTHORITY: address, ORDERS: service})["call"]()
    assert (answer.order.order_id, answer.order.seen_by) == ("42", "alice")


async def test_a_blocking_client_renews_until_it_is_closed() -> None:
    authority = FakeAuthority()
    first = keep_token(authority, 4.0)
    with serve(authority) as address:
        client = names_of("class Client", {AUTHORITY: address})["Client"]()
        try:
            await until(lambda: client.token.status().renewals_count)
            assert kept_token() == client.token.token() != first
        finally:
            await asyncio.to_thread(client.close)


async def test_a_vault_is_given_each_new_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from watchword.aio import connect

    class Vault:
        kept: dict[str, str] = {}  # noqa: RUF012  # one vault

        async def write(self, path: str, secret: str) -> None:
            self.kept[path] = secret

    authority = FakeAuthority()
    first = keep_token(authority, 4.0)
    monkeypatch.setenv("ORDERS_TOKEN", first)
    token = names_of("vault", {})["renewing_token"](Vault())
    with serve(authority) as address:
        async with connect(address, token=token) as channel, token.renewing(channel):
            await until(lambda: Vault.kept)
            await until(lambda: token.token() == Vault.kept["orders/token"] != first)


def test_the_status_is_told_field_by_field() -> None:
    told = [name for row in rows(GUIDE, "How it is doing") for name in code(row[0]) if name.islower()]
    assert told == [field.name for field in fields(RenewalStatus)]


def test_every_cause_that_needs_somebody_is_explained() -> None:
    told = {name for row in rows(GUIDE, "How it is doing") for name in code(row[0]) if name.isupper()}
    assert told >= outcome._SENTENCES.keys()
