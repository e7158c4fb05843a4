"""An authority that answers no sooner, and nothing else, than a test says: for how checks are batched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

from tests.client.echo import SECONDS_MAX
from watchword.v1 import token_service_pb2 as pb


class Batches:
    """An authority whose every BatchValidate waits until the test lets it go, with the reply the test wants."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.arrived = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.reply: Callable[[pb.BatchValidateRequest, Any], pb.BatchValidateResponse] = self.active

    @staticmethod
    def active(request: pb.BatchValidateRequest, context: Any) -> pb.BatchValidateResponse:
        # The subject repeats the token, so that a verdict given to the wrong caller shows.
        return pb.BatchValidateResponse(
            responses=[pb.ValidateResponse(active=pb.ActiveToken(subject=one.token)) for one in request.requests]
        )

    def answer(self, request: pb.BatchValidateRequest, context: Any) -> pb.BatchValidateResponse:
        self.sizes.append(len(request.requests))
        self.arrived.release()
        assert self.go_on.acquire(timeout=SECONDS_MAX)
        return self.reply(request, context)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Where it listens."""
        handler = grpc.unary_unary_rpc_method_handler(
            self.answer, pb.BatchValidateRequest.FromString, pb.BatchValidateResponse.SerializeToString
        )
        with futures.ThreadPoolExecutor(4) as pool:
            server = grpc.server(pool)
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler("watchword.v1.TokenService", {"BatchValidate": handler}),)
            )
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            try:
                yield f"127.0.0.1:{port}"
            finally:
                for _ in range(16):
                    self.go_on.release()
                server.stop(None).wait()


async def arrival(batches: Batches) -> None:
    """Until one more has come."""
    assert await asyncio.to_thread(batches.arrived.acquire, timeout=SECONDS_MAX)
