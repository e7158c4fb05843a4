"""The code in docs/protect-a-service.md runs, and says what it says."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.bound_calls import ADMITTED, HANDLERS, REFUSED, outcome, sha256
from tests.client.bound_calls import Authority as Certificates
from tests.client.echo import POLICY, SERVICE, generic
from tests.client.subjects import until
from tests.docs.documents import blocks, code, rows
from tests.docs.reasons import reason_in
from tests.ports import free_port
from tests.tooling.sources import ROOT
from watchword import Rule
from watchword.interceptor import denial
from watchword.testing import FakeAuthority, serve
from watchword.v1 import token_service_pb2
from watchword.v1.token_service_pb2_grpc import TokenServiceStub

GUIDE = "docs/protect-a-service.md"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)


def names_of(heading: str, replaced: dict[str, str] | None = None) -> dict[str, Any]:
    """What the python block under a heading defines, with addresses replaced."""
    text = next(block.text for block in blocks(GUIDE) if block.heading == heading and block.language == "python")
    for old, new in (replaced or {}).items():
        assert old in text
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(text, GUIDE, "exec"), names)
    return names


def keep_own_token(authority: FakeAuthority) -> None:
    """Where the guide says that it is."""
    Path("orders.token").write_text(authority.issue("orders", scopes=["watchword.validate"], audiences=["watchword"]))


def test_the_table_makes_a_policy() -> None:
    rules = names_of("What each method needs")["policy"].rules
    assert rules["/orders.v1.OrdersService/GetOrder"] == Rule(scopes=("orders.read",))
    assert rules["/orders.v1.OrdersService/Ping"].public


def test_the_blocking_server_serves_whom_it_should_and_refusals_explain_themselves() -> None:
    from orders.v1 import orders_pb2, orders_pb2_grpc

    from watchword.sync import connect

    explain = names_of("What callers see")["explain"]
    authority = FakeAuthority()
    keep_own_token(authority)
    reader = authority.issue("alice", scopes=["orders.read"], audiences=["orders"])
    narrow = authority.issue("bob", scopes=["orders.watch"], audiences=["orders"])
    with serve(authority) as address:
        target = f"127.0.0.1:{free_port()}"
        server = names_of("The interceptor", {"127.0.0.1:7600": address, "127.0.0.1:7700": target})["serve"]()
        try:

            def get(token: str) -> Any:
                with connect(target, token=token) as channel:
                    stub = orders_pb2_grpc.OrdersServiceStub(channel)
                    return stub.GetOrder(orders_pb2.GetOrderRequest(order_id="42"), timeout=10)

            assert get(reader).order.seen_by == "alice"
            with pytest.raises(grpc.RpcError) as refused:
                get(narrow)
            assert explain(refused.value) == "SCOPE_MISSING orders.read"
            with authority.unavailable(), pytest.raises(grpc.RpcError) as refused:
                get(reader)
            assert explain(refused.value) == "try again in 1 s"
        finally:
            server.stop(None).wait()


async def test_the_caching_server_answers_from_memory_until_the_token_is_revoked() -> None:
    from orders.v1 import orders_pb2, orders_pb2_grpc

    from watchword.aio import connect

    class Orders(orders_pb2_grpc.OrdersServiceServicer):
        async def GetOrder(self, request: Any, context: Any) -> Any:
            return orders_pb2.GetOrderResponse()

    authority = FakeAuthority()
    keep_own_token(authority)
    admin = authority.issue("admin", scopes=["watchword.revoke"], audiences=["watchword"])
    reader = authority.issue("alice", scopes=["orders.read"], audiences=["orders"])
    orders = Orders()  # type: ignore[abstract]  # one of its methods is enough here
    with serve(authority) as address:
        target = f"127.0.0.1:{free_port()}"
        shown = names_of("Checks from memory", {"127.0.0.1:7600": address, "127.0.0.1:7700": target})
        async with shown["serving"](orders) as verifier, connect(target, token=reader) as channel:
            stub = orders_pb2_grpc.OrdersServiceStub(channel)

            async def get() -> None:
                await stub.GetOrder(orders_pb2.GetOrderRequest(order_id="42"), timeout=10)

            await get()
            await until(lambda: verifier.status().caching)
            await get()
            with authority.unavailable():
                await get()
            async with connect(address, token=admin) as own:
                reply = await TokenServiceStub(own).Revoke(token_service_pb2.RevokeRequest(token=reader), timeout=10)
            assert (reply.propagation, reply.verifiers_count) == (token_service_pb2.PROPAGATION_COMPLETE, 1)
            with pytest.raises(grpc.RpcError) as refused:
                await get()
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_server_behind_a_proxy_admits_bound_tokens_from_where_they_belong() -> None:
    certificates = Certificates()
    issued, client, other = certificates.ca.issue_cert("localhost"), certificates.client(), certificates.client("other")
    authority = FakeAuthority()
    token = authority.issue(
        "alice",
        scopes=["echo.use"],
        audiences=["orders"],
        allowed_networks=["203.0.113.0/24"],
        certificate_sha256=sha256(client),
    )
    port = free_port()
    shown = names_of(
        "Where a token may be used from", {"[::]:7700": f"127.0.0.1:{port}", "10.0.3.7/32": "127.0.0.1/32"}
    )
    server = shown["guarded_server"](
        authority.blocking_verifier("orders"),
        POLICY,
        issued.private_key_pem.bytes(),
        issued.cert_chain_pems[0].bytes(),
        certificates.ca.cert_pem.bytes(),
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, generic(HANDLERS["sync"])),))
    server.start()
    try:

        def call(address: str, certificate: Any) -> object:
            credentials = certificates.channel_credentials(certificate)
            return asyncio.run(outcome(port, "Unary", token, address, credentials=credentials))

        assert call("203.0.113.7", client) == ADMITTED
        assert call("198.51.100.9", client) == REFUSED
        assert call("203.0.113.7", other) == REFUSED
    finally:
        server.stop(None).wait()


async def test_the_channels_can_be_made(tmp_path: Path) -> None:
    authority_file = tmp_path / "ca.pem"
    authority_file.write_bytes(b"")
    names = names_of("Calling a protected service")
    for channel in (names["orders_channel"](), names["orders_channel_with_our_own_authority"](authority_file)):
        await channel.close()


def test_every_answer_of_the_interceptor_is_in_the_table() -> None:
    denials = [one for one in vars(denial).values() if isinstance(one, denial.Denial)]
    said = {(one.code.name, reason_in(one.trailers)) for one in (*denials, denial.scope_missing(("a",)))}
    # Without a reason: gRPC's own answers to a method that is not there and to a message that cannot be read.
    with_reason = {(status, reason) for status, reason in said if reason}
    assert {(code(row[1])[0], code(row[2])[0]) for row in rows(GUIDE, "What callers see")} == with_reason


async def test_the_test_shown_passes() -> None:
    shown = names_of("Testing your service")
    await asyncio.wait_for(shown["test_tokens_expire_and_outages_admit_nobody"](), 10)


def test_the_filter_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.Handler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    names_of("Keeping tokens out of logs")
    record = logging.makeLogRecord({"msg": "got %s", "args": (FakeAuthority().issue(),)})
    handler.filter(record)
    assert record.getMessage().endswith("[masked]")
