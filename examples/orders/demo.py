"""What a caller of a protected service meets: no token, too little scope, enough, and a token revoked under way.

Needs a running Watchword (`watchword serve`) on this machine; WATCHWORD_ADDRESS and WATCHWORD_DATA_DIR as for the
command line. Leaves nothing live behind: every token it issues ends in its course or lasts ten minutes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from platformdirs import user_data_path

from orders.client import get_order, why
from orders.server import OrdersService, serving
from orders.v1 import orders_pb2, orders_pb2_grpc
from watchword import StaticToken, TokenFile, TokenSourceError
from watchword.aio import connect
from watchword.v1 import token_service_pb2 as pb
from watchword.v1.token_service_pb2_grpc import TokenServiceStub

if TYPE_CHECKING:
    # One class at run time; its type hints know that the channel makes the difference.
    from watchword.v1.token_service_pb2_grpc import TokenServiceAsyncStub

SCOPES = {"orders.read": "See orders", "orders.watch": "Follow orders"}
TTL_SECONDS = 600
CALL_SECONDS_MAX = 10


def administrators_token() -> TokenFile:
    """The file that the first start of `watchword serve` left for this machine's user."""
    folder = os.environ.get("WATCHWORD_DATA_DIR")
    return TokenFile((Path(folder) if folder else user_data_path("watchword")) / "admin-token")


class Authority:
    """The few things that this demonstration asks of Watchword, as its administrator."""

    def __init__(self, stub: TokenServiceAsyncStub) -> None:
        self._stub = stub

    async def register(self) -> None:
        """Puts the scopes of orders.proto into the catalogue."""
        scopes = [pb.ScopeRegistration(name=name, description=text) for name, text in SCOPES.items()]
        await self._stub.RegisterScopes(pb.RegisterScopesRequest(scopes=scopes), timeout=CALL_SECONDS_MAX)

    async def issue(self, subject: str, audience: str, *scopes: str) -> str:
        """A token for `subject`, good for calls to `audience`."""
        request = pb.IssueRequest(
            subject=subject, audiences=[audience], scopes=scopes, ttl=Duration(seconds=TTL_SECONDS), name="demo"
        )
        return (await self._stub.Issue(request, timeout=CALL_SECONDS_MAX)).secret

    async def revoke(self, token: str) -> None:
        """Ends a token."""
        await self._stub.Revoke(pb.RevokeRequest(token=token, reason="demo"), timeout=CALL_SECONDS_MAX)


async def show(what: str, address: str, token: str | None) -> None:
    """One call of GetOrder and what came of it."""
    try:
        if token is None:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = orders_pb2_grpc.OrdersServiceStub(channel)
                await stub.GetOrder(orders_pb2.GetOrderRequest(order_id="42"), timeout=CALL_SECONDS_MAX)
            outcome = "OK"
        else:
            order = await get_order(address, token, "42")
            outcome = f"OK, order {order.order_id} seen by {order.seen_by}"
    except grpc.RpcError as error:
        outcome = why(error)
    print(f"{what:<42} {outcome}")


async def show_stream(authority: Authority, service: OrdersService, address: str, token: str) -> None:
    """A stream whose token is revoked while it is open."""
    async with connect(address, token=token) as channel:
        stub = orders_pb2_grpc.OrdersServiceStub(channel)
        call = stub.WatchOrder(orders_pb2.WatchOrderRequest(order_id="42"), timeout=CALL_SECONDS_MAX)
        try:
            async for response in call:
                print(f"{'  a stream says':<42} {response.state}")
                if response.state == "shipped":
                    await authority.revoke(token)
                    print(f"{'  its token is revoked':<42}")
                service.moved.set()
        except grpc.RpcError as error:
            print(f"{'  and its next message is':<42} {why(error)}")


async def main() -> None:
    """Runs the demonstration."""
    address_of_watchword = os.environ.get("WATCHWORD_ADDRESS", "127.0.0.1:7600")
    async with connect(address_of_watchword, token=administrators_token()) as channel:
        authority = Authority(TokenServiceStub(channel))
        await authority.register()
        own = await authority.issue("orders", "watchword", "watchword.validate")
        reader = await authority.issue("alice", "orders", "orders.read")
        narrow = await authority.issue("bob", "orders", "orders.watch")
        watcher = await authority.issue("carol", "orders", "orders.*")
        service = OrdersService()
        async with serving(service, address_of_watchword, StaticToken(own), "127.0.0.1:0") as address:
            await show("no token", address, None)
            await show("a token without the scope", address, narrow)
            await show("the right token", address, reader)
            await authority.revoke(reader)
            await show("the same token, revoked", address, reader)
            await show_stream(authority, service, address, watcher)
        for token in (own, narrow):
            await authority.revoke(token)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except TokenSourceError as error:
        sys.exit(f"{error}. Is `watchword serve` running on this machine, as this user?")
    except grpc.RpcError as error:
        sys.exit(why(error))
