"""A caller of the orders service: one line puts the token into every call."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc

from orders.v1 import orders_pb2, orders_pb2_grpc
from watchword import TokenFile, TokenSource, error_info
from watchword.aio import connect


async def get_order(address: str, token: TokenSource | str, order_id: str) -> orders_pb2.Order:
    """One order, or grpc.RpcError."""
    async with connect(address, token=token) as channel:
        stub = orders_pb2_grpc.OrdersServiceStub(channel)
        response = await stub.GetOrder(orders_pb2.GetOrderRequest(order_id=order_id), timeout=10)
        return response.order


def why(error: grpc.RpcError) -> str:
    """A refusal in words: the status, and Watchword's reason where there is one."""
    info = error_info(error)
    code = error.code().name
    if info is None:
        return f"{code}: {error.details()}"
    return f"{code} {info.reason}" + (f" ({info.metadata['scope']})" if "scope" in info.metadata else "")


async def main(token_file: str) -> None:
    """Prints one order."""
    try:
        order = await get_order(os.environ.get("ORDERS_ADDRESS", "127.0.0.1:7700"), TokenFile(token_file), "42")
    except grpc.RpcError as error:
        sys.exit(why(error))
    print(f"order {order.order_id}: {order.item}, seen by {order.seen_by}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m orders.client FILE_WITH_THE_CALLER'S_TOKEN")
    asyncio.run(main(sys.argv[1]))
