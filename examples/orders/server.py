"""The orders service: everything Watchword asks of a service owner is in `serving`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from orders.v1 import orders_pb2, orders_pb2_grpc
from watchword import Policy, TokenFile, TokenSource, current_identity
from watchword.aio import CachingVerifier, ServerInterceptor, connect

GRACE_SECONDS = 5.0
KEEPALIVE_SECONDS = 20.0
STATES = ("packed", "shipped", "delivered")


class OrdersService(orders_pb2_grpc.OrdersServiceServicer):
    """Knows every order. `moved` is set whenever orders go on to their next state."""

    def __init__(self) -> None:
        self.moved = asyncio.Event()

    async def GetOrder(
        self, request: orders_pb2.GetOrderRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> orders_pb2.GetOrderResponse:
        """One order. Who may ask at all was settled before; what this caller may see is the service's business."""
        caller = current_identity()
        order = orders_pb2.Order(order_id=request.order_id, item="a box of pencils", seen_by=caller.subject)
        return orders_pb2.GetOrderResponse(order=order)

    async def WatchOrder(
        self, request: orders_pb2.WatchOrderRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[orders_pb2.WatchOrderResponse]:
        """The states of an order. Each message is checked on its way out."""
        for state in STATES:
            yield orders_pb2.WatchOrderResponse(state=state)
            await self.moved.wait()
            self.moved.clear()


@asynccontextmanager
async def serving(
    service: OrdersService, authority: str, token: TokenSource, address: str = "127.0.0.1:7700"
) -> AsyncIterator[str]:
    """Serves until the end of the block, and gives the address. `token` is the service's own, for `authority`."""
    async with connect(authority, token=token, keepalive_seconds=KEEPALIVE_SECONDS) as channel:
        verifier = CachingVerifier(channel, name="orders")
        server = grpc.aio.server(interceptors=[ServerInterceptor(verifier, Policy(orders_pb2.DESCRIPTOR))])
        orders_pb2_grpc.add_OrdersServiceServicer_to_server(service, server)
        port = server.add_insecure_port(address)
        await server.start()
        try:
            yield f"{address.rpartition(':')[0]}:{port}"
        finally:
            await server.stop(GRACE_SECONDS)
            # Gives the lease back: no revocation waits for a service that has gone.
            await verifier.close()


async def main(token_file: str) -> None:
    """Serves until interrupted."""
    authority = os.environ.get("WATCHWORD_ADDRESS", "127.0.0.1:7600")
    async with serving(OrdersService(), authority, TokenFile(token_file)) as address:
        print(f"orders on {address}, tokens judged by {authority}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m orders.server FILE_WITH_THE_SERVICE'S_TOKEN")
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
