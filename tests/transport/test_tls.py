"""TLS: rotated files are used from the next handshake on, unusable ones never, and mutual TLS lets nobody else in."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc import aio

from tests.transport.conftest import SERVICE, EchoService
from watchword_server.transport.listener import ListenAddress
from watchword_server.transport.server import BoundServer, Limits, build_server
from watchword_server.transport.tls import TlsError, TlsFiles, server_credentials


@dataclass
class Deployment:
    """A server's TLS files and what it said about them."""

    folder: Path
    ca: trustme.CA
    mutual: bool = False
    said: list[str] = field(default_factory=list)

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(
            self.folder / "tls.crt", self.folder / "tls.key", self.folder / "clients.crt" if self.mutual else None
        )

    def write(self, issued: trustme.LeafCert) -> None:
        self.write_certificate(issued)
        self.write_key(issued)

    def write_certificate(self, issued: trustme.LeafCert) -> None:
        replace(self.files.certificate, b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def write_key(self, issued: trustme.LeafCert) -> None:
        replace(self.files.key, issued.private_key_pem.bytes())

    def credentials(self) -> grpc.ServerCredentials:
        return server_credentials(self.files, warn=self.said.append, inform=self.said.append)


def replace(path: Path, content: bytes) -> None:
    """As whatever rotates files does it: written aside, then moved over."""
    aside = path.with_suffix(".new")
    aside.write_bytes(content)
    aside.rename(path)


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def deployment(tmp_path: Path, ca: trustme.CA) -> Deployment:
    deployment = Deployment(tmp_path, ca)
    deployment.write(ca.issue_cert("localhost"))
    return deployment


@pytest.fixture
async def bound(deployment: Deployment) -> AsyncIterator[BoundServer]:
    bound = serve(deployment)
    await bound.start()
    yield bound
    await bound.stop(0)


def serve(deployment: Deployment) -> BoundServer:
    return build_server(
        "grpcio",
        EchoService().handlers(),
        ListenAddress("localhost", 0),
        limits=Limits(),
        credentials=deployment.credentials(),
    )


def shown_certificate(bound: BoundServer, ca: trustme.CA) -> bytes:
    """The certificate a fresh handshake gets."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", bound.address.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        certificate = wrapped.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


async def shown(bound: BoundServer, ca: trustme.CA) -> bytes:
    return await asyncio.to_thread(shown_certificate, bound, ca)


def der(issued: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


async def say(bound: BoundServer, credentials: grpc.ChannelCredentials) -> bytes:
    async with aio.secure_channel(f"localhost:{bound.address.port}", credentials) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Say")
        answer: bytes = await call(b"x", timeout=20)
        return answer


def trust(ca: trustme.CA, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    if client is None:
        return grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    return grpc.ssl_channel_credentials(
        ca.cert_pem.bytes(), client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
    )


async def test_calls_pass_over_tls_and_not_in_the_clear(bound: BoundServer, ca: trustme.CA) -> None:
    assert await say(bound, trust(ca)) == b"x"
    async with aio.insecure_channel(f"localhost:{bound.address.port}") as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Say")
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"x", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_rotated_pair_is_shown_at_the_next_handshake(
    bound: BoundServer, deployment: Deployment, ca: trustme.CA
) -> None:
    before = await shown(bound, ca)
    fresh = ca.issue_cert("localhost")
    deployment.write(fresh)
    assert await shown(bound, ca) == der(fresh) != before
    assert await say(bound, trust(ca)) == b"x"
    assert deployment.said == ["the TLS certificate was replaced"]


async def test_half_a_rotation_keeps_the_old_pair_says_so_once_and_then_takes_the_new_one(
    bound: BoundServer, deployment: Deployment, ca: trustme.CA
) -> None:
    before = await shown(bound, ca)
    fresh = ca.issue_cert("localhost")
    deployment.write_certificate(fresh)
    for _ in range(3):
        assert await shown(bound, ca) == before
    assert len(deployment.said) == 1
    assert "keeping the TLS certificate in use" in deployment.said[0]
    deployment.write_key(fresh)
    assert await shown(bound, ca) == der(fresh)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"])
async def test_a_damaged_file_keeps_the_old_pair(
    bound: BoundServer, deployment: Deployment, ca: trustme.CA, content: bytes
) -> None:
    before = await shown(bound, ca)
    replace(deployment.files.certificate, content)
    assert await shown(bound, ca) == before
    assert len(deployment.said) == 1


async def test_a_file_that_vanishes_keeps_the_old_pair(
    bound: BoundServer, deployment: Deployment, ca: trustme.CA
) -> None:
    before = await shown(bound, ca)
    os.unlink(deployment.files.key)
    assert await shown(bound, ca) == before
    assert "tls.key" in deployment.said[0]


async def test_mutual_tls_lets_in_only_whom_its_authority_signed(tmp_path: Path, ca: trustme.CA) -> None:
    clients, strangers = trustme.CA(), trustme.CA()
    deployment = Deployment(tmp_path, ca, mutual=True)
    deployment.write(ca.issue_cert("localhost"))
    replace(tmp_path / "clients.crt", clients.cert_pem.bytes())
    bound = serve(deployment)
    await bound.start()
    try:
        assert await say(bound, trust(ca, clients.issue_cert("client@example.org"))) == b"x"
        for credentials in (trust(ca), trust(ca, strangers.issue_cert("client@example.org"))):
            with pytest.raises(aio.AioRpcError) as caught:
                await say(bound, credentials)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        # The authority rotates like the rest.
        replace(tmp_path / "clients.crt", strangers.cert_pem.bytes())
        assert await say(bound, trust(ca, strangers.issue_cert("client@example.org"))) == b"x"
        with pytest.raises(aio.AioRpcError):
            await say(bound, trust(ca, clients.issue_cert("client@example.org")))
    finally:
        await bound.stop(0)


def test_a_start_with_files_that_do_not_fit_is_refused(deployment: Deployment, ca: trustme.CA) -> None:
    deployment.write_key(ca.issue_cert("localhost"))
    with pytest.raises(TlsError, match=r"tls\.key"):
        deployment.credentials()


def test_a_start_without_a_file_is_refused_naming_it(deployment: Deployment) -> None:
    os.unlink(deployment.files.certificate)
    with pytest.raises(TlsError, match=r"tls\.crt.*No such file"):
        deployment.credentials()
