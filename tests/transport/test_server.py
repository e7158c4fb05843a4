"""Both transports serve the same handlers within the same limits, and a taken address is an error."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.transport.conftest import SERVICE, Running, Start
from watchword.aio import connect
from watchword_server.transport.listener import ListenAddress
from watchword_server.transport.server import Kind, Limits, ListenError, build_server

MIB = 1024 * 1024


@pytest.fixture
def short_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ww-") as folder:
        yield Path(folder)


async def status_of(call: aio.UnaryUnaryCall[bytes, bytes]) -> grpc.StatusCode:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_bytes_go_in_and_out(running: Running) -> None:
    assert await running.call("Say")(b"\xff\x00") == b"\xff\x00"


async def test_a_target_with_several_addresses_is_served(running: Running) -> None:
    address = running.bound.address.target
    async with connect(f"ipv4:{address},{address}", token="unused") as channel:
        say: Any = channel.unary_unary(f"/{SERVICE}/Say")
        assert await say(b"here") == b"here"


async def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_is_refused(running: Running) -> None:
    assert len(await running.call("Say")(b"x" * 4 * MIB)) == 4 * MIB
    assert await status_of(running.call("Say")(b"x" * (4 * MIB + 1))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert running.echo.taken == 1


async def test_metadata_below_the_limit_always_passes_and_above_never_does(running: Running, kind: Kind) -> None:
    # gRPC's own headers take some of it: 7000 leaves them room, 8192 does not.
    for _ in range(50):
        assert await running.call("Say")(b"", metadata=(("a", "x" * 7000),)) == b""
    codes = {await status_of(running.call("Say")(b"", metadata=(("a", "x" * 8192),))) for _ in range(10)}
    # docs/transports.md tells of this difference.
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED if kind == "grpcio" else grpc.StatusCode.UNKNOWN}
    assert running.echo.taken == 50


async def test_a_compressed_message_cannot_unpack_beyond_the_limit(running: Running, kind: Kind) -> None:
    bomb = running.call("Say")(b"\0" * 64 * MIB, compression=grpc.Compression.Gzip)
    expected = grpc.StatusCode.UNIMPLEMENTED if kind == "grpcio" else grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await status_of(bomb) is expected
    assert running.echo.taken == 0


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    assert await status_of(running.call("Nothing")(b"")) is grpc.StatusCode.UNIMPLEMENTED


async def test_streams_in_both_directions_are_served(running: Running) -> None:
    call: Any = running.channel.stream_stream("/test.Chat/Talk")()
    for message in (b"one", b"two"):
        await call.write(message)
        assert await call.read() == message
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def test_reflection_lists_the_services(running: Running) -> None:
    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    answers = [answer async for answer in stub.ServerReflectionInfo(ask())]
    assert [service.name for service in answers[0].list_services_response.service] == [SERVICE]


async def test_reflection_streams_are_bounded_and_one_that_ends_makes_room(running: Running) -> None:
    """Nobody needs a token for one: a client that opens them without end must not fill the server's memory."""
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")

    async def opened() -> Any:
        call: Any = stub.ServerReflectionInfo()
        await call.write(asked)
        assert await call.read() is not aio.EOF
        return call

    streams = [await opened() for _ in range(4)]
    with pytest.raises(aio.AioRpcError) as caught:
        await opened()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    streams[0].cancel()
    async with asyncio.timeout(10):
        while True:
            try:
                await opened()
                break
            except aio.AioRpcError:
                await asyncio.sleep(0)
    for stream in streams:
        stream.cancel()


async def test_a_client_that_leaves_cancels_its_call(running: Running) -> None:
    call = running.call("Hold")(b"")
    await running.echo.until_taken(1)
    call.cancel()
    await asyncio.wait_for(running.echo.cancelled.wait(), 10)


async def test_a_deadline_cancels_the_call(running: Running) -> None:
    # Connected first: a call that had not arrived by then would have nothing to cancel.
    await running.call("Say")(b"")
    assert await status_of(running.call("Hold")(b"", timeout=1)) is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(running.echo.cancelled.wait(), 10)


async def test_calls_beyond_the_streams_of_a_connection_wait(start: Start) -> None:
    running: Running = await start(limits=Limits(streams_per_connection_max=2))
    held = [asyncio.ensure_future(running.call("Hold")(b"")) for _ in range(3)]
    await running.echo.until_taken(2)
    with pytest.raises(aio.AioRpcError) as caught:
        await running.call("Say")(b"", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert running.echo.taken == 2
    running.echo.gate.set()
    assert await asyncio.gather(*held) == [b""] * 3


async def test_a_taken_port_is_an_error_that_says_so(running: Running, start: Start) -> None:
    with pytest.raises(ListenError, match=r"Address already in use.*WATCHWORD_LISTEN"):
        await start(running.bound.address)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_ipv6_is_served(start: Start) -> None:
    running: Running = await start(ListenAddress("::1", 0))
    assert await running.call("Say")(b"x") == b"x"


async def test_a_unix_socket_is_served_and_a_second_server_does_not_take_it_over(
    start: Start, short_folder: Path
) -> None:
    address = ListenAddress(unix_path=short_folder / "w.sock")
    running: Running = await start(address)
    with pytest.raises(ListenError, match="another server is listening"):
        await start(address)
    assert await running.call("Say")(b"x") == b"x"


async def test_a_socket_file_that_nobody_answers_on_is_replaced(start: Start, short_folder: Path) -> None:
    path = short_folder / "w.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    running: Running = await start(ListenAddress(unix_path=path))
    assert await running.call("Say")(b"x") == b"x"


async def test_a_file_in_the_sockets_place_is_not_replaced(start: Start, short_folder: Path) -> None:
    path = short_folder / "w.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="is no socket"):
        await start(ListenAddress(unix_path=path))
    assert path.read_text() == "precious"


async def test_native_refuses_tls_rather_than_dropping_it() -> None:
    credentials = grpc.ssl_server_credentials([(b"", b"")])
    with pytest.raises(ValueError, match="no TLS"):
        build_server("native", {}, ListenAddress("127.0.0.1", 0), limits=Limits(), credentials=credentials)
