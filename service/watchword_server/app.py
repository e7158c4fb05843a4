"""The composition root: the only place that knows every concrete class, and the order in which things start and end."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import grpc
import uvloop

from watchword.lease import SystemClock
from watchword.network import TrustedProxies
from watchword_server.admin import AdministratorExistsError, make_administrator
from watchword_server.answer.alarms import Alarms
from watchword_server.answer.block import Blocking
from watchword_server.answer.narrow import Narrower
from watchword_server.answer.propagate import Propagating
from watchword_server.answer.register import Registering
from watchword_server.answer.revoke import Revoking
from watchword_server.answer.rotate import Rotating
from watchword_server.answer.usage import UsageBuffer
from watchword_server.background import background
from watchword_server.data_folder import ADMIN_TOKEN_FILE
from watchword_server.observe.exposition import Exposition
from watchword_server.observe.logs import Logs
from watchword_server.observe.masking import Masker, url_secrets
from watchword_server.observe.metrics import Metrics
from watchword_server.observe.traces import Traces
from watchword_server.parts import Parts, opened
from watchword_server.private_file import replace_private_file
from watchword_server.replica_parts import ReplicaParts, replica_parts, verifier_service
from watchword_server.request.access import ACCESS, check_access
from watchword_server.request.audit_service import AuditService
from watchword_server.request.audit_trail import AuditTrail
from watchword_server.request.fleet_service import FleetService
from watchword_server.request.lifecycle import TokenLifecycle
from watchword_server.request.permits import Lateness, Permits
from watchword_server.request.pipeline import Surroundings, handler
from watchword_server.request.rates import Rates
from watchword_server.request.reading import TokenReading
from watchword_server.request.subject_service import SubjectService
from watchword_server.request.token_service import TokenService
from watchword_server.request.verifier_service import PATH, VerifierService
from watchword_server.rules.tokens import WATCHWORD
from watchword_server.rules.verdicts import Reason
from watchword_server.settings import Settings
from watchword_server.transport.drain import STREAMS_END_SECONDS_MAX, StopRequest, drain
from watchword_server.transport.handlers import Handlers, health_handlers, reflection_handlers
from watchword_server.transport.health import SERVICE_NAME as HEALTH_SERVICE
from watchword_server.transport.health import HealthService
from watchword_server.transport.server import BoundServer, Limits, build_server
from watchword_server.transport.tls import TlsFiles, server_credentials
from watchword_server.usage_keeper import UsageKeeper

MOVE_SECONDS_MAX: Final = STREAMS_END_SECONDS_MAX - 1
"""How long a drain waits for the verifiers to move elsewhere."""
_HURRIED_SECONDS: Final = 0.1
"""How long writes under way are waited for after a second signal."""

_log = logging.getLogger("watchword")


def run(settings: Settings, *, ready: Callable[[BoundServer], None]) -> None:
    """`watchword serve`: runs until SIGTERM or SIGINT. Raises what `opened` raises, ListenError, TlsError,
    ExpositionError and TracesError while starting."""
    with Logs(form=settings.log_format, level=settings.log_level, masker=masker(settings)):
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
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        if stop is None:
            stack.enter_context(stopping.on_signals())
        parts = await stack.enter_async_context(
            opened(
                settings,
                observe_lookups=metrics.lookup_batch_sizes.observe,
                observe_issues=metrics.issue_batch_sizes.observe,
                count_statement=metrics.statements.add,
            )
        )
        metrics.pool_state = lambda: (parts.database.size, parts.database.idle, settings.pool_size_max)
        if settings.embedded:
            await first_administrator(parts)
        if settings.metrics_address is not None:
            exposition = Exposition(metrics.registry, settings.metrics_address)
            exposition.start()
            _log.info("metrics on http://%s/metrics", exposition.address.target)
            stack.push_async_callback(asyncio.to_thread, exposition.stop)
        traces = Traces.to_collector(settings.otlp_endpoint) if settings.otlp_endpoint else None
        if traces is not None:
            stack.push_async_callback(asyncio.to_thread, traces.close)

        parts.fleet.open()
        own = replica_parts(settings, parts.store, parts.fleet, clock, metrics)
        lateness = Lateness()
        permits = Permits(settings.concurrent_calls_max, lateness, count_shed=metrics.calls_shed.add)
        trail = AuditTrail(parts.store.record_events, count_dropped=metrics.count_dropped_events)
        proxies = TrustedProxies(settings.trusted_proxies)
        uses = UsageBuffer(clock.boottime)
        metrics.usage_state = lambda: (uses.counted, uses.dropped, len(uses))
        alarms = Alarms(trail.add, count=metrics.alarms.add, clock=clock.boottime)
        keeper = UsageKeeper(
            uses,
            alarms,
            parts.database,
            metrics,
            interval_seconds=settings.usage_interval_seconds,
            slack=timedelta(seconds=settings.usage_slack_seconds),
            clock=clock.boottime,
        )
        surroundings = Surroundings(
            own.store,
            parts.keyring,
            permits,
            settings.token_prefix,
            trail,
            proxies,
            count_call=uses.count_call,
            rotated_presented=lambda record, address: alarms.rotated_presented(record, WATCHWORD, address),
        )
        watches = verifier_service(own, settings, surroundings, clock, metrics, reported=keeper.reported)
        services = _handlers(parts, own, surroundings, watches, metrics, traces, uses, alarms)
        health = HealthService(services)
        bound = _bind(settings, services, health, share_port=share_port)
        # Nothing is answered before the first join. That may wait, as every write, for as long as a standby is away.
        if not await stopping.unless_requested(stack.enter_async_context(own.member.running())):
            _log.warning("stopped before it served: it could not join the other servers")
            return
        await stack.enter_async_context(trail.running())
        await stack.enter_async_context(keeper.running())
        await stack.enter_async_context(lateness.watched())
        await stack.enter_async_context(background(parts, own, metrics, health))
        _settle_memory()
        await bound.start()
        _log.info("serving on %s (%s)", bound.address.target, bound.kind)
        ready(bound)
        await stopping.requested.wait()
        _log.info("draining for at most %g s; a second signal ends it at once", settings.drain_grace_seconds)
        whole = await drain(
            bound,
            health,
            end_streams=[lambda: _end_watches(own, watches)],
            refuse_calls=permits.refuse_calls,
            grace_seconds=settings.drain_grace_seconds,
            hurried=stopping.hurried,
        )
        if not whole:
            await parts.store.close(patience_seconds=_HURRIED_SECONDS)
        _log.info("stopped" if whole else "stopped; calls were cut off")


def _settle_memory() -> None:
    """What is there by now stays: the garbage collector need not look at it again, nor at every few hundred calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


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


def _handlers(
    parts: Parts,
    own: ReplicaParts,
    surroundings: Surroundings,
    watches: VerifierService,
    metrics: Metrics,
    traces: Traces | None,
    uses: UsageBuffer,
    alarms: Alarms,
) -> Handlers:
    """Watchword's own services, each method wrapped in the way of a call."""
    labels = {id(reason): reason.value for reason in Reason}

    def count_verdict(reason: Reason) -> None:
        # By identity: hashing an Enum's member, or asking for its value, is a call into Python for each verdict.
        metrics.verdicts.add(labels[id(reason)])

    settings = parts.settings
    issues, failures = (
        Rates(per_second, count_refusal=partial(metrics.rate_limited.add, limit))
        for per_second, limit in (
            (settings.issues_per_second, "issues"),
            (settings.failed_validations_per_second, "failed_validations"),
        )
    )
    propagating = Propagating(own.propagation, wait_seconds_max=settings.revoke_wait_seconds_max)
    rotating = Rotating(
        parts.store,
        own.store,
        parts.mint,
        ttl_max=timedelta(seconds=settings.ttl_seconds_max),
        grace_default=timedelta(seconds=settings.rotation_grace_seconds),
        grace_max=timedelta(seconds=settings.rotation_grace_seconds_max),
    )
    services = (
        TokenService(
            digests=parts.keyring,
            count_verdict=count_verdict,
            count_use=uses.count,
            rotated_presented=alarms.rotated_presented,
            failures=failures,
        ),
        TokenLifecycle(
            store=parts.store,
            issuing=parts.issuing,
            rotating=rotating,
            narrower=Narrower(parts.store, own.store),
            revoking=Revoking(parts.store, parts.keyring),
            propagating=propagating,
            registering=Registering(parts.store),
            rates=issues,
        ),
        TokenReading(store=parts.store, reads=own.store, digests=parts.keyring),
        SubjectService(store=parts.store, blocking=Blocking(parts.store), propagating=propagating),
        AuditService(parts.store),
        FleetService(parts.fleet),
    )
    table: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    methods = [method for service in services for method in service.methods()]
    check_access([*(method.path for method in methods), PATH])
    for method in methods:
        behaviour = handler(method, ACCESS[method.path], surroundings, metrics.method(method.path))
        if traces is not None:
            behaviour = traces.wrap(method.path, behaviour)
        _, service, name = method.path.split("/")
        # Requests stay bytes: they are decoded once the caller is known. Responses are encoded by their own class.
        table.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=None,
            response_serializer=_serialized,
        )
    _, service, name = PATH.split("/")
    table[service] = {
        name: grpc.stream_stream_rpc_method_handler(
            watches.watch, request_deserializer=None, response_serializer=_serialized
        )
    }
    return table


async def _end_watches(own: ReplicaParts, watches: VerifierService) -> None:
    """Asks the verifiers to move, and lets them: the row of this server goes only when none relies on it any more."""
    watches.refuse_watches()
    try:
        async with asyncio.timeout(MOVE_SECONDS_MAX):
            await own.member.drain()
    except TimeoutError:
        _log.warning("some verifiers have not moved: revocations wait until their leases have run out")
    watches.end_watches()
    # Whoever waits for a revocation is told how far it has got.
    own.propagation.hurry()


def _serialized(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    files = TlsFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    return server_credentials(files, warn=_log.warning, inform=_log.info)


async def first_administrator(parts: Parts) -> None:
    """The embedded database's owner is whoever owns its folder: they get an administrator if there is none."""
    path = parts.settings.data_dir / ADMIN_TOKEN_FILE
    ttl = timedelta(seconds=parts.settings.default_ttl_seconds)
    with replace_private_file(path) as write:
        try:
            made = await make_administrator(parts.database, parts.issuing, ttl=ttl)
        except AdministratorExistsError:
            return
        write(made.secret + "\n")
    _log.info("made an administrator, until %s; its token is in %s", f"{made.token.expires_at:%Y-%m-%d}", path)


def masker(settings: Settings) -> Masker:
    """Keeps tokens and the databases' passwords out of the log."""
    secrets = [
        secret
        for url in (settings.database_url, settings.migration_database_url)
        if url is not None
        for secret in url_secrets(url.get_secret_value())
    ]
    return Masker(token_prefix=settings.token_prefix, secrets=secrets)
