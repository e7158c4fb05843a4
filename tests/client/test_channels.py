"""The caller's side: the token arrives with every kind of call, and never travels a network in the clear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from tests.client.echo import KINDS, SERVICE, aio_call, generic, sync_call
from watchword import PlaintextRefusedError, StaticToken, TokenFile, TokenSourceError, aio, sync
from watchword.credentials.plugin import channel_options
from watchword.credentials.target import is_local, refuse_proxy

TOKEN = "ww_canary"


def sent(context: Any) -> bytes:
    """The authorization entries that arrived."""
    return "|".join(value for key, value in context.invocation_metadata() if key == "authorization").encode()


async def unary(request: bytes, context: Any) -> bytes:
    return sent(context)


async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield sent(context)


async def up(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([one async for one in requests]) + sent(context)


async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for one in requests:
        yield one + sent(context)


EXPECTED = {
    "Unary": [b"Bearer ww_canary"],
    "Down": [b"Bearer ww_canary"],
    "Up": [b"1Bearer ww_canary"],
    "Both": [b"1Bearer ww_canary"],
}


@asynccontextmanager
async def mirror(credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    server = grpc.aio.server()
    handlers = generic({"Unary": unary, "Down": down, "Up": up, "Both": both})
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield address if address.startswith("unix:") else f"localhost:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_brings_the_token_to_this_machine_in_the_clear(kind: str) -> None:
    async with mirror() as target:
        async with aio.connect(target, token=TOKEN) as channel:
            assert await aio_call(channel, kind, ()) == EXPECTED[kind]
            assert await aio_call(channel, kind, None) == EXPECTED[kind]
        with sync.connect(target, token=StaticToken(TOKEN)) as blocking:
            assert await asyncio.to_thread(sync_call, blocking, kind, ()) == EXPECTED[kind]
            assert await asyncio.to_thread(sync_call, blocking, kind, None) == EXPECTED[kind]


async def test_a_unix_socket_takes_it_in_the_clear(tmp_path: Path) -> None:
    async with mirror(address=f"unix:{tmp_path}/s") as target, aio.connect(target, token=TOKEN) as channel:
        assert await aio_call(channel, "Unary", ()) == EXPECTED["Unary"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_brings_the_token_over_tls(kind: str, authority: trustme.CA) -> None:
    certificate = authority.issue_cert("localhost")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    roots = authority.cert_pem.bytes()
    async with mirror(credentials) as target:
        async with aio.connect(target, token=TOKEN, root_certificates=roots) as channel:
            assert await aio_call(channel, kind, ()) == EXPECTED[kind]
        with sync.connect(target, token=TOKEN, root_certificates=roots) as blocking:
            assert await asyncio.to_thread(sync_call, blocking, kind, ()) == EXPECTED[kind]


async def test_mutual_tls(authority: trustme.CA) -> None:
    server, client = authority.issue_cert("localhost"), authority.issue_cert("caller")
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    arguments: dict[str, Any] = {
        "token": TOKEN,
        "root_certificates": authority.cert_pem.bytes(),
        "private_key": client.private_key_pem.bytes(),
        "certificate_chain": client.cert_chain_pems[0].bytes(),
    }
    async with mirror(credentials) as target:
        async with aio.connect(target, **arguments) as channel:
            assert await aio_call(channel, "Unary", ()) == EXPECTED["Unary"]
        with sync.connect(target, **arguments) as blocking:
            assert await asyncio.to_thread(sync_call, blocking, "Unary", ()) == EXPECTED["Unary"]


async def test_another_machine_gets_tls_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for module in (grpc, grpc.aio):
        real = module.secure_channel

        def noted(target: str, *args: Any, real: Any = real, **options: Any) -> Any:
            made.append(target)
            return real(target, *args, **options)

        monkeypatch.setattr(module, "secure_channel", noted)
    async with aio.connect("authority.internal:7600", token=TOKEN):
        pass
    with sync.connect("authority.internal:7600", token=TOKEN):
        pass
    assert made == ["authority.internal:7600"] * 2


@pytest.fixture(params=["grpc_proxy", "https_proxy", "http_proxy"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A proxy in the environment, where nobody listens. Gives the variable's name."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, "http://127.0.0.1:9")
    return str(request.param)


async def test_a_proxy_in_the_environment_gets_no_token(proxy: str) -> None:
    """gRPC asks it for loopback addresses too. Channels of our own go past it; those of others cannot be seen."""
    async with mirror() as target:
        with pytest.raises(PlaintextRefusedError, match=proxy) as caught:
            aio.bearer_interceptors(TOKEN, target)
        assert "canary" not in str(caught.value)
        with pytest.raises(PlaintextRefusedError, match=proxy):
            sync.bearer_interceptor(TOKEN, target)
        async with aio.connect(target, token=TOKEN) as channel:
            assert await aio_call(channel, "Unary", ()) == EXPECTED["Unary"]
        with sync.connect(target, token=TOKEN) as blocking:
            assert await asyncio.to_thread(sync_call, blocking, "Unary", ()) == EXPECTED["Unary"]


@pytest.mark.parametrize(
    ("without", "target", "spared"),
    [
        ("localhost", "localhost:1", True),
        ("example.com,localhost", "dns:///localhost:1", True),
        ("127.0.0.1", "ipv4:127.0.0.1:1", True),
        ("::1", "[::1]:1", True),
        ("", "unix:/run/a", True),
        ("example.com", "localhost:1", False),
        ("localhost", "127.0.0.1:1", False),
        (",", "localhost:1", False),
        ("", "localhost:1", False),
    ],
)
def test_no_proxy_spares_what_grpc_spares(without: str, target: str, *, spared: bool) -> None:
    environment = {"http_proxy": "http://proxy:3128", "no_proxy": without}
    if spared:
        refuse_proxy(target, environment)
    else:
        with pytest.raises(PlaintextRefusedError):
            refuse_proxy(target, environment)
    refuse_proxy(target, {"no_proxy": without})


async def test_the_network_gets_no_token_in_the_clear_unless_the_danger_is_named() -> None:
    with pytest.raises(PlaintextRefusedError, match="allow_plaintext_on_network_danger"):
        aio.bearer_interceptors(TOKEN, "authority.internal:7600")
    with pytest.raises(PlaintextRefusedError) as caught:
        sync.bearer_interceptor(TOKEN, "authority.internal:7600")
    assert "canary" not in str(caught.value)
    assert len(aio.bearer_interceptors(TOKEN, "10.0.0.1:1", allow_plaintext_on_network_danger=True)) == 4
    sync.bearer_interceptor(TOKEN, "10.0.0.1:1", allow_plaintext_on_network_danger=True)
    async with mirror() as target:
        name = target.replace("localhost", "0.0.0.0")
        async with aio.connect(name, token=TOKEN, allow_plaintext_on_network_danger=True) as channel:
            assert await aio_call(channel, "Unary", ()) == EXPECTED["Unary"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_brings_its_own_authorization_is_stopped_here(kind: str) -> None:
    metadata = (("authorization", "Bearer other"),)
    async with mirror() as target:
        async with aio.connect(target, token=TOKEN) as channel:
            with pytest.raises(TokenSourceError) as caught:
                await aio_call(channel, kind, metadata)
        assert isinstance(caught.value, grpc.RpcError)
        with sync.connect(target, token=TOKEN) as blocking, pytest.raises(TokenSourceError):
            await asyncio.to_thread(sync_call, blocking, kind, metadata)


async def test_a_renewed_token_file_is_sent_with_the_next_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    async with mirror() as target, aio.connect(target, token=TokenFile(file)) as channel:
        assert await aio_call(channel, "Unary", ()) == [b"Bearer first"]
        file.write_text("second")
        assert await aio_call(channel, "Unary", ()) == [b"Bearer second"]


async def test_a_failing_source_fails_the_call_and_not_the_process(tmp_path: Path, authority: trustme.CA) -> None:
    certificate = authority.issue_cert("localhost")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )

    class Broken:
        def token(self) -> str:
            raise RuntimeError("canary")

    for source, said in ((TokenFile(tmp_path / "absent"), "absent"), (Broken(), "token source failed")):
        async with (
            mirror(credentials) as target,
            aio.connect(target, token=source, root_certificates=authority.cert_pem.bytes()) as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await aio_call(channel, "Unary", ())
        assert said in str(caught.value.details())
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "localhost:7600",
        "localhost",
        "127.0.0.1:7600",
        "127.9.9.9:1",
        "[::1]:7600",
        "[::1]",
        "::1",
        "dns:///localhost:1",
        "dns:localhost:1",
        "dns:///127.0.0.1:1",
        "dns:///[::1]:1",
        "ipv4:127.0.0.1:1",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
        "ipv6:[::1]:1,[::1]:2",
        "passthrough:///127.0.0.1:1",
        "unix:/run/s",
        "unix:///run/s",
        "unix:s",
        "unix-abstract:s",
    ],
)
def test_targets_on_this_machine(target: str) -> None:
    assert is_local(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        ":7600",
        "10.0.0.1:7600",
        "0.0.0.0:7600",
        "[::]:7600",
        "authority:7600",
        "localhost.evil.example:1",
        "evil.localhost:1",
        "127.0.0.1.evil.example:1",
        "127.0.0.1@evil.example:1",
        "127.1:1",
        "2130706433:1",
        "127.0.0.1%2eevil.example:1",
        "localhost:1:2",
        "localhost:1/evil",
        "[::1]evil:1",
        "[::1",
        "[127.0.0.1.evil]:1",
        "dns://8.8.8.8/localhost:1",
        "dns:///authority:1",
        "dns://localhost",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "ipv4:localhost:1",
        "ipv4:",
        "ipv6:[2001:db8::1]:1",
        "xds:///localhost",
        "vsock:1:2",
        "UNIX:/run/s",
        "unixy:/run/s",
        "LOCALHOST:1",
    ],
)
def test_targets_that_are_or_may_be_elsewhere(target: str) -> None:
    assert not is_local(target)


@pytest.mark.parametrize("connect", [aio.connect, sync.connect])
def test_a_keepalive_that_grpc_would_not_keep_is_refused(connect: Any) -> None:
    with pytest.raises(ValueError, match="at least 10"):
        connect("127.0.0.1:1", token="unused", keepalive_seconds=9)


@pytest.mark.parametrize(("asked", "kept_ms"), [(None, 310_000), (10, 10_000), (20.5, 20_500)])
def test_connections_are_tried_while_a_call_is_open(asked: float | None, kept_ms: int) -> None:
    options = dict(channel_options("localhost:1", asked, (), plaintext=False))
    assert options["grpc.keepalive_time_ms"] == kept_ms
    assert "grpc.keepalive_permit_without_calls" not in options


@pytest.mark.parametrize(
    ("target", "given", "authority"),
    [
        ("ipv4:10.0.0.1:7600,10.0.0.2:7600", (), "10.0.0.1:7600"),
        ("ipv6:[fe80::1]:1,[fe80::2]:2", (), "[fe80::1]:1"),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", (("grpc.default_authority", "authority.internal"),), "authority.internal"),
        ("ipv4:10.0.0.1:7600", (), None),
        ("dns:///authority.internal:7600", (), None),
        ("unix:/run/a,b", (), None),
    ],
)
def test_servers_of_a_target_with_several_addresses_are_called_by_one_name(
    target: str, given: Sequence[tuple[str, Any]], authority: str | None
) -> None:
    options = [
        value
        for name, value in channel_options(target, None, given, plaintext=True)
        if name == "grpc.default_authority"
    ]
    assert options == ([] if authority is None else [authority])


async def test_a_target_with_several_addresses_is_reached_over_tls(authority: trustme.CA) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    roots = authority.cert_pem.bytes()
    async with mirror(credentials) as one, mirror(credentials) as other:
        ports = [target.rpartition(":")[2] for target in (one, other)]
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        async with aio.connect(target, token=TOKEN, root_certificates=roots) as channel:
            assert await aio_call(channel, "Unary", ()) == EXPECTED["Unary"]
        with sync.connect(target, token=TOKEN, root_certificates=roots) as blocking:
            assert await asyncio.to_thread(sync_call, blocking, "Unary", ()) == EXPECTED["Unary"]
