"""Health and reflection, open to everyone, on both transports."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.conftest import Watchword, running_watchword
from tests.path.party import refused

SERVICES = ["", "watchword.v1.TokenService", "watchword.v1.AuditService"]
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("service", SERVICES)
def test_health_of_every_service_is_told_without_a_token(watchword: Watchword, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(watchword.admin.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert next(watch).status == SERVING
    watch.cancel()


def test_health_of_an_unknown_service_is_not_found(watchword: Watchword) -> None:
    stub = health_pb2_grpc.HealthStub(watchword.admin.channel)
    request = health_pb2.HealthCheckRequest(service="orders.v1.Orders")
    assert refused(stub.Check, request, timeout=10).code is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(request, timeout=10)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def _reflect(
    channel: grpc.Channel, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([request]), timeout=10)
    answer: reflection_pb2.ServerReflectionResponse = next(call)
    call.cancel()
    return answer


def test_reflection_lists_the_services_and_their_files(watchword: Watchword) -> None:
    channel = watchword.admin.channel
    listed = _reflect(channel, reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in listed.list_services_response.service}
    assert {"watchword.v1.TokenService", "watchword.v1.AuditService", "grpc.health.v1.Health"} <= names
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="watchword.v1.TokenService")
    assert _reflect(channel, request).file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_reflection_can_be_turned_off(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport, WATCHWORD_REFLECTION="false") as running:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = refused(_reflect, running.admin.channel, request)
        assert answer.code is grpc.StatusCode.UNIMPLEMENTED
        stub = health_pb2_grpc.HealthStub(running.admin.channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == SERVING
