"""`grpc.health.v1.Health`: whether this server should get calls. Open to everyone, bounded, alike on both transports.

The stock servicer keeps a watch open for as long as its client likes, through a drain, and any number of them. Here
they are counted, and end when the server drains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import grpc
from grpc.aio import ServicerContext
from grpc_health.v1 import health_pb2

SERVICE_NAME: Final = "grpc.health.v1.Health"
WATCHES_MAX: Final = 64
PROBE_SECONDS_MAX: Final = 5.0
_Status = health_pb2.HealthCheckResponse


class HealthService:
    """NOT_SERVING until told otherwise, for the whole server (``) and for each of `services` alike."""

    def __init__(self, services: Iterable[str], *, watches_max: int = WATCHES_MAX) -> None:
        self._services = frozenset({"", *services})
        self._watches_max = watches_max
        self._watches = 0
        self._serving = False
        self._draining = False
        # Replaced at each change: whoever waits on the old one is told, and nobody misses a change in between.
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        return self._serving

    def set_serving(self, serving: bool) -> None:
        """What the database's probe found. After `drain` it stays NOT_SERVING."""
        serving = serving and not self._draining
        if serving != self._serving:
            self._serving = serving
            self._notify()

    def drain(self) -> None:
        """NOT_SERVING from now on; watches are told and then ended."""
        self._serving = False
        self._draining = True
        self._notify()

    async def keep_current(
        self,
        probe: Callable[[], Awaitable[bool]],
        *,
        interval_seconds: float,
        timeout_seconds: float = PROBE_SECONDS_MAX,
    ) -> None:
        """Asks `probe` again and again, until cancelled. A probe that fails or takes too long means no."""
        while True:
            try:
                async with asyncio.timeout(timeout_seconds):
                    serving = await probe()
            except Exception:
                serving = False
            self.set_serving(serving)
            await asyncio.sleep(interval_seconds)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return self._response(request.service)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: ServicerContext[Any, Any]) -> None:
        if self._watches >= self._watches_max:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many health watches: use Check")
        self._watches += 1
        try:
            sent: int | None = None
            while True:
                changed, draining = self._changed, self._draining
                response = self._response(request.service)
                if response.status != sent:
                    await context.write(response)
                    sent = response.status
                if draining:
                    return
                await changed.wait()
        finally:
            self._watches -= 1

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._services:
            return _Status(status=_Status.SERVICE_UNKNOWN)
        return _Status(status=_Status.SERVING if self._serving else _Status.NOT_SERVING)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
