"""Asks a server whether it serves (grpc.health.v1), without a token."""

from __future__ import annotations

from typing import Final

from watchword_server.cli.connect import Endpoint, open_channel
from watchword_server.cli.rpc_errors import from_rpc_error

_TIMEOUT_SECONDS: Final = 5.0


def check_health(endpoint: Endpoint) -> str:
    """`SERVING`, `NOT_SERVING` and so on. Raises CommandError if nobody answers."""
    channel = open_channel(endpoint)
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    try:
        response = HealthStub(channel).Check(HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        raise from_rpc_error(error, endpoint.address, "nowhere") from None
    finally:
        channel.close()
    return str(HealthCheckResponse.ServingStatus.Name(response.status))
