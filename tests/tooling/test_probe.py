"""The container's probe against real servers: both transports, plaintext, TLS and mutual TLS."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2

from tests.tooling.sources import ROOT
from watchword_server.transport.health import SERVICE_NAME, HealthService
from watchword_server.transport.listener import parse_listen_address
from watchword_server.transport.server import Limits, build_server

PROBE = ROOT / "deploy" / "probe.py"


async def probe(question: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and what it said, run as the container does: in a process of its own, with nothing of ours."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(PROBE), question, env=dict(environ), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), timeout=30)
    assert process.returncode is not None
    return process.returncode, said.decode()


@asynccontextmanager
async def serving(
    health: HealthService, listen: str, kind: Literal["grpcio", "native"], credentials: grpc.ServerCredentials | None
) -> AsyncIterator[str]:
    handlers = {
        SERVICE_NAME: {
            "Check": grpc.unary_unary_rpc_method_handler(
                health.Check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            )
        }
    }
    bound = build_server(kind, handlers, parse_listen_address(listen), limits=Limits(), credentials=credentials)
    await bound.start()
    try:
        yield bound.address.target
    finally:
        await bound.stop(0)


@pytest.mark.parametrize("kind", ["grpcio", "native"])
async def test_ready_follows_health_and_live_wants_an_answer_only(kind: Literal["grpcio", "native"]) -> None:
    health = HealthService([])
    async with serving(health, "127.0.0.1:0", kind, None) as target:
        environ = {"WATCHWORD_LISTEN": target}
        assert await probe("ready", environ) == (1, "not serving\n")
        assert await probe("live", environ) == (0, "")
        health.set_serving(True)
        assert await probe("ready", environ) == (0, "")


async def test_unix_socket_is_probed(tmp_path: Path) -> None:
    health = HealthService([])
    health.set_serving(True)
    async with serving(health, f"unix:{tmp_path}/w", "grpcio", None) as target:
        assert await probe("ready", {"WATCHWORD_LISTEN": target}) == (0, "")


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_is_probed(tmp_path: Path, mutual: bool) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("watchword.watchword.svc")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    key = certificate.private_key_pem.bytes()
    files = {"CERTIFICATE": chain, "KEY": key, "CLIENT_CA": authority.cert_pem.bytes()}
    environ = {}
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        if mutual or name != "CLIENT_CA":
            environ[f"WATCHWORD_TLS_{name}_FILE"] = str(path)
    credentials = grpc.ssl_server_credentials(
        [(key, chain)],
        root_certificates=files["CLIENT_CA"] if mutual else None,
        require_client_auth=mutual,
    )
    health = HealthService([])
    health.set_serving(True)
    async with serving(health, "127.0.0.1:0", "grpcio", credentials) as target:
        assert await probe("ready", {**environ, "WATCHWORD_LISTEN": target}) == (0, "")


async def test_open_port_that_never_answers_is_not_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, said = await probe("live", {"WATCHWORD_LISTEN": f"127.0.0.1:{silent.getsockname()[1]}"})
    assert code == 1
    assert "no health" in said


async def test_nobody_listening_is_not_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert (await probe("live", {"WATCHWORD_LISTEN": f"127.0.0.1:{port}"}))[0] == 1


async def test_server_that_does_not_know_the_service_is_not_alive() -> None:
    bound = build_server("grpcio", {}, parse_listen_address("127.0.0.1:0"), limits=Limits())
    await bound.start()
    try:
        code, said = await probe("live", {"WATCHWORD_LISTEN": bound.address.target})
    finally:
        await bound.stop(0)
    assert (code, said) == (1, "no health: the server answered with an error\n")
