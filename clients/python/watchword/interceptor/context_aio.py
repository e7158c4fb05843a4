"""A ServicerContext through which no message passes unjudged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import grpc

from watchword.interceptor.call_aio import Call, Context, read_request

_Metadata = grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]


class GuardedContext(grpc.aio.ServicerContext[Any, Any]):
    """gRPC's own context with a judgement in `read` and `write`; everything else is passed on as it is."""

    __slots__ = ("_call", "_deserialize", "_inner")

    def __init__(self, inner: Context, call: Call, deserialize: Callable[[bytes], Any] | None) -> None:
        self._inner: Final = inner
        self._call: Final = call
        self._deserialize: Final = deserialize

    async def read(self) -> Any:
        raw = await self._inner.read()
        if raw is grpc.aio.EOF:
            return raw
        await self._call.admit(self._inner)
        return await read_request(self._inner, self._deserialize, raw)

    async def write(self, message: Any) -> None:
        await self._call.admit(self._inner)
        await self._inner.write(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: _Metadata = ()) -> NoReturn:
        await self._inner.abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self._inner.abort_with_status(status)

    async def send_initial_metadata(self, initial_metadata: _Metadata) -> None:
        await self._inner.send_initial_metadata(initial_metadata)

    def add_done_callback(self, callback: Any) -> None:
        self._inner.add_done_callback(callback)

    def set_trailing_metadata(self, trailing_metadata: _Metadata) -> None:
        self._inner.set_trailing_metadata(trailing_metadata)

    def invocation_metadata(self) -> grpc.aio.Metadata | None:
        return self._inner.invocation_metadata()

    def set_code(self, code: grpc.StatusCode) -> None:
        self._inner.set_code(code)

    def set_details(self, details: str) -> None:
        self._inner.set_details(details)

    def set_compression(self, compression: grpc.Compression) -> None:
        self._inner.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        self._inner.disable_next_message_compression()

    def peer(self) -> str:
        return self._inner.peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        return self._inner.peer_identities()

    def peer_identity_key(self) -> str | None:
        return self._inner.peer_identity_key()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._inner.auth_context()

    def time_remaining(self) -> float:
        return self._inner.time_remaining()

    def trailing_metadata(self) -> grpc.aio.Metadata:
        return self._inner.trailing_metadata()

    def code(self) -> grpc.StatusCode:
        return self._inner.code()

    def details(self) -> str:
        return self._inner.details()

    def cancelled(self) -> bool:
        return self._inner.cancelled()

    def done(self) -> bool:
        return self._inner.done()
