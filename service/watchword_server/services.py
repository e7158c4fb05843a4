"""Watchword's own services, put together from their use cases, each method wrapped in the way of a call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import grpc

from watchword_server.answer.block import Blocking
from watchword_server.answer.narrow import Narrower
from watchword_server.answer.propagate import Propagating
from watchword_server.answer.register import Registering
from watchword_server.answer.revoke import Revoking
from watchword_server.answer.rotate import Rotating
from watchword_server.observe.metrics import Metrics
from watchword_server.observe.traces import Traces
from watchword_server.parts import Parts
from watchword_server.replica_parts import ReplicaParts
from watchword_server.request.access import ACCESS, check_access
from watchword_server.request.audit_service import AuditService
from watchword_server.request.fleet_service import FleetService
from watchword_server.request.lifecycle import TokenLifecycle
from watchword_server.request.pipeline import Method, Surroundings, handler
from watchword_server.request.rates import Rates
from watchword_server.request.reading import TokenReading
from watchword_server.request.subject_service import SubjectService
from watchword_server.request.token_service import TokenService
from watchword_server.request.verifier_service import PATH, VerifierService
from watchword_server.rules.verdicts import Reason
from watchword_server.transport.handlers import Handlers
from watchword_server.usage_parts import UsageParts


def unary_methods(parts: Parts, replica: ReplicaParts, usage: UsageParts, metrics: Metrics) -> list[Method[Any]]:
    """Every RPC but Watch, with what answers it."""
    settings = parts.settings
    issues = Rates(settings.issues_per_second, count_refusal=partial(metrics.rate_limited.add, "issues"))
    failures = Rates(
        settings.failed_validations_per_second, count_refusal=partial(metrics.rate_limited.add, "failed_validations")
    )
    propagating = Propagating(replica.propagation, wait_seconds_max=settings.revoke_wait_seconds_max)
    rotating = Rotating(
        parts.store,
        replica.store,
        parts.mint,
        ttl_max=timedelta(seconds=settings.ttl_seconds_max),
        grace_default=timedelta(seconds=settings.rotation_grace_seconds),
        grace_max=timedelta(seconds=settings.rotation_grace_seconds_max),
    )
    services = (
        TokenService(
            digests=parts.keyring,
            count_verdict=_counting(metrics),
            count_use=usage.buffer.count,
            rotated_presented=usage.alarms.rotated_presented,
            failures=failures,
        ),
        TokenLifecycle(
            store=parts.store,
            issuing=parts.issuing,
            rotating=rotating,
            narrower=Narrower(parts.store, replica.store),
            revoking=Revoking(parts.store, parts.keyring),
            propagating=propagating,
            registering=Registering(parts.store),
            rates=issues,
        ),
        TokenReading(store=parts.store, reads=replica.store, digests=parts.keyring),
        SubjectService(store=parts.store, blocking=Blocking(parts.store), propagating=propagating),
        AuditService(parts.store),
        FleetService(parts.fleet),
    )
    return [method for service in services for method in service.methods()]


def service_handlers(
    methods: list[Method[Any]],
    watches: VerifierService,
    surroundings: Surroundings,
    metrics: Metrics,
    traces: Traces | None,
) -> Handlers:
    """What to register. Refuses to be made while the table of access and the methods differ."""
    check_access([*(method.path for method in methods), PATH])
    table: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method in methods:
        behaviour = handler(method, ACCESS[method.path], surroundings, metrics.method(method.path))
        if traces is not None:
            behaviour = traces.wrap(method.path, behaviour)
        _, service, name = method.path.split("/")
        # Requests stay bytes: they are decoded once the caller is known. Responses are encoded by their own class.
        table.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(
            behaviour, request_deserializer=None, response_serializer=_serialized
        )
    _, service, name = PATH.split("/")
    table[service] = {
        name: grpc.stream_stream_rpc_method_handler(
            watches.watch, request_deserializer=None, response_serializer=_serialized
        )
    }
    return table


def _counting(metrics: Metrics) -> Callable[[Reason], None]:
    labels = {id(reason): reason.value for reason in Reason}

    def count_verdict(reason: Reason) -> None:
        # By identity: hashing an Enum's member, or asking for its value, is a call into Python for each verdict.
        metrics.verdicts.add(labels[id(reason)])

    return count_verdict


def _serialized(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
