"""The composition root: how a server is put together, and the order in which its parts start and end."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import grpc
import uvloop

from watchword.lease import SystemClock
from watchword.network import TrustedProxies
from watchword_server.admin import first_administrator
from watchword_server.background import background
from watchword_server.observe.exposition import Exposition
from watchword_server.observe.logs import configured_logs
from watchword_server.observe.metrics import Metrics
from watchword_server.observe.traces import Traces
from watchword_server.parts import Parts, opened
from watchword_server.replica_parts import ReplicaParts, replica_parts, verifier_service
from watchword_server.request.audit_trail import AuditTrail
from watchword_server.request.permits import Permits
from watchword_server.request.pipeline import Surroundings
from watchword_server.request.verifier_service import VerifierService
from watchword_server.rules.tokens import WATCHWORD
from watchword_server.services import service_handlers, unary_methods
from watchword_server.settings import Settings
from watchword_server.transport.drain import STREAMS_END_SECONDS_MAX, StopRequest, drain
from watchword_server.transport.handlers import Handlers, health_handlers, reflection_handlers
from watchword_server.transport.health import SERVICE_NAME as HEALTH_SERVICE
from watchword_server.transport.health import HealthService
from watchword_server.transport.server import BoundServer, Limits, build_server
from watchword_server.transport.tls import TlsFiles, server_credentials
from watchword_server.usage_parts import UsageParts, usage_parts

MOVE_SECONDS_MAX: Final = STREAMS_END_SECONDS_MAX - 1
"""How long a drain waits for the verifiers to move elsewhere."""
_HURRIED_SECONDS: Final = 0.1
"""How long writes under way are waited for after a second signal."""

_log = logging.getLogger("watchword")


def run(settings: Settings, *, ready: Callable[[BoundServer], None]) -> None:
    """`watchword serve`: runs until SIGTERM or SIGINT. Raises what `opened` raises, ListenError, TlsError,
    ExpositionError and TracesError while starting."""
    with configured_logs(settings):
        uvloop.run(serve(settings, ready=ready))


async def serve(
    settings: Settings,
    *,
    stop: StopRequest | None = None,
    ready: Callable[[BoundServer], None] = lambda bound: None,
    share_port: bool = False,
) -> None:
    """Serves until `stop` is set, which by default SIGTERM and SIGINT do. `ready` is called when calls are served.

    `share_port` is for one of several workers, whose parent keeps the address.
    """
    for warning in settings.warnings:
        _log.warning(warning)
    stopping = stop or StopRequest()
    metrics = Metrics(version=version("watchword"))
    async with AsyncExitStack() as stack:
        if stop is None:
            stack.enter_context(stopping.on_signals())
        parts = await stack.enter_async_context(_opened(settings, metrics))
        if settings.embedded:
            await first_administrator(parts)
        traces = await stack.enter_async_context(_observed(settings, metrics))
        parts.fleet.open()
        server = _put_together(parts, metrics, traces, share_port=share_port)
        # Nothing is answered before the first join. That may wait, as every write, for as long as a standby is away.
        if not await stopping.unless_requested(stack.enter_async_context(server.replica.member.running())):
            _log.warning("stopped before it served: it could not join the other servers")
            return
        await stack.enter_async_context(server.trail.running())
        await stack.enter_async_context(server.usage.keeper.running())
        await stack.enter_async_context(server.permits.lateness.watched())
        await stack.enter_async_context(background(parts, server.replica, metrics, server.health))
        _settle_memory()
        await server.bound.start()
        _log.info("serving on %s (%s)", server.bound.address.target, server.bound.kind)
        ready(server.bound)
        await stopping.requested.wait()
        _log.info("draining for at most %g s; a second signal ends it at once", settings.drain_grace_seconds)
        whole = await drain(
            server.bound,
            server.health,
            end_streams=[server.end_watches],
            refuse_calls=server.permits.refuse_calls,
            grace_seconds=settings.drain_grace_seconds,
            hurried=stopping.hurried,
        )
        if not whole:
            await parts.store.close(patience_seconds=_HURRIED_SECONDS)
        _log.info("stopped" if whole else "stopped; calls were cut off")


@asynccontextmanager
async def _opened(settings: Settings, metrics: Metrics) -> AsyncIterator[Parts]:
    """The database and what works on it, counted."""
    async with opened(
        settings,
        observe_lookups=metrics.lookup_batch_sizes.observe,
        observe_issues=metrics.issue_batch_sizes.observe,
        count_statement=metrics.statements.add,
    ) as parts:
        metrics.pool_state = lambda: (parts.database.size, parts.database.idle, settings.pool_size_max)
        yield parts


@asynccontextmanager
async def _observed(settings: Settings, metrics: Metrics) -> AsyncIterator[Traces | None]:
    """Serves the metrics and sends traces, where that is asked for, while the block runs."""
    async with AsyncExitStack() as stack:
        if settings.metrics_address is not None:
            exposition = Exposition(metrics.registry, settings.metrics_address)
            exposition.start()
            _log.info("metrics on http://%s/metrics", exposition.address.target)
            stack.push_async_callback(asyncio.to_thread, exposition.stop)
        traces = Traces.to_collector(settings.otlp_endpoint) if settings.otlp_endpoint else None
        if traces is not None:
            stack.push_async_callback(asyncio.to_thread, traces.close)
        yield traces


@dataclass(frozen=True, slots=True)
class _Server:
    """All that serves: bound to its address, and nothing of it started."""

    replica: ReplicaParts
    usage: UsageParts
    trail: AuditTrail
    permits: Permits
    watches: VerifierService
    health: HealthService
    bound: BoundServer

    async def end_watches(self) -> None:
        """Asks the verifiers to move, and lets them: this server's row goes only when none relies on it any more."""
        self.watches.refuse_watches()
        try:
            async with asyncio.timeout(MOVE_SECONDS_MAX):
                await self.replica.member.drain()
        except TimeoutError:
            _log.warning("some verifiers have not moved: revocations wait until their leases have run out")
        self.watches.end_watches()
        # Whoever waits for a revocation is told how far it has got.
        self.replica.propagation.hurry()


def _put_together(parts: Parts, metrics: Metrics, traces: Traces | None, *, share_port: bool) -> _Server:
    settings, clock = parts.settings, SystemClock()
    replica = replica_parts(settings, parts.store, parts.fleet, clock, metrics)
    trail = AuditTrail(parts.store.record_events, count_dropped=metrics.count_dropped_events)
    usage = usage_parts(parts, trail, clock, metrics)
    permits = Permits(settings.concurrent_calls_max, count_shed=metrics.calls_shed.add)
    surroundings = Surroundings(
        replica.store,
        parts.keyring,
        permits,
        settings.token_prefix,
        trail,
        TrustedProxies(settings.trusted_proxies),
        count_call=usage.buffer.count_call,
        rotated_presented=lambda record, address: usage.alarms.rotated_presented(record, WATCHWORD, address),
    )
    watches = verifier_service(replica, settings, surroundings, clock, metrics, reported=usage.keeper.reported)
    methods = unary_methods(parts, replica, usage, metrics)
    services = service_handlers(methods, watches, surroundings, metrics, traces)
    health = HealthService(services)
    bound = _bind(settings, services, health, share_port=share_port)
    return _Server(replica, usage, trail, permits, watches, health, bound)


def _bind(settings: Settings, services: Handlers, health: HealthService, *, share_port: bool) -> BoundServer:
    table: dict[str, Any] = {**services, **health_handlers(health)}
    if settings.reflection:
        table.update(reflection_handlers([*services, HEALTH_SERVICE]))
    return build_server(
        settings.transport_chosen,
        table,
        settings.listen_address,
        limits=Limits(
            request_bytes_max=settings.request_bytes_max,
            metadata_bytes_max=settings.metadata_bytes_max,
            streams_per_connection_max=settings.concurrent_streams_max,
        ),
        credentials=_credentials(settings),
        share_port=share_port,
    )


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    files = TlsFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    return server_credentials(files, warn=_log.warning, inform=_log.info)


def _settle_memory() -> None:
    """What is there by now stays: the garbage collector need not look at it again, nor at every few hundred calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
