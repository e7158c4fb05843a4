"""The bearer token as call credentials, which gRPC sends on encrypted channels only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from watchword.bearer import AUTHORIZATION
from watchword.credentials.source import StaticToken, TokenSource, TokenSourceError
from watchword.credentials.target import first_of_several, is_local

# gRPC's own bound is two minutes, which would be added to every outage of the server.
RECONNECT_MS_MAX: Final = 5_000
KEEPALIVE_SECONDS_MIN: Final = 10.0
"""gRPC's clients ping no more often; a Watchword server takes that."""
# Servers of other people end the connection of a client that pings more often than every 300 s. Asking for keepalive at
# all has gRPC set the socket's user timeout as well, so that a peer that vanished is noticed this soon after a write.
_KEEPALIVE_SECONDS_DEFAULT: Final = 310.0
_KEEPALIVE_TIMEOUT_MS: Final = 20_000
_AUTHORITY: Final = "grpc.default_authority"


def channel_options(
    target: str, keepalive_seconds: float | None, options: Sequence[tuple[str, Any]], *, plaintext: bool
) -> tuple[tuple[str, Any], ...]:
    """The options of a channel made here, with those that its maker gives. Raises ValueError for a keepalive below
    KEEPALIVE_SECONDS_MIN."""
    if keepalive_seconds is not None and not keepalive_seconds >= KEEPALIVE_SECONDS_MIN:
        raise ValueError("keepalive_seconds must be at least 10")
    return (
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
        ("grpc.keepalive_time_ms", int((keepalive_seconds or _KEEPALIVE_SECONDS_DEFAULT) * 1000)),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # A proxy out of the environment would take a plaintext call off this machine.
        *((("grpc.enable_http_proxy", 0),) if plaintext else ()),
        *_authority(target, options),
        *options,
    )


def _authority(target: str, options: Sequence[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """What calls name as their server, for a target of several addresses: the first. gRPC would name all of them, with
    commas, which is no authority: servers refuse it, and no certificate is for it."""
    first = first_of_several(target)
    if first is None or any(name == _AUTHORITY for name, _ in options):
        return ()
    return ((_AUTHORITY, first),)


def source_of(token: TokenSource | str) -> TokenSource:
    """A source as it is, a string as one."""
    return StaticToken(token) if isinstance(token, str) else token


def bearer_value(source: TokenSource) -> str:
    """The value of the `authorization` entry. Raises TokenSourceError."""
    return "Bearer " + source.token()


def call_credentials(token: TokenSource | str) -> grpc.CallCredentials:
    """Credentials for `grpc.composite_channel_credentials` or a call's `credentials=`, in either stack.

    A call whose source has no token fails with UNAVAILABLE and says where it was looked for.
    """
    return grpc.metadata_call_credentials(_BearerPlugin(source_of(token)), name="watchword-bearer")


def channel_credentials(
    target: str,
    token: TokenSource | str,
    *,
    root_certificates: bytes | None,
    private_key: bytes | None,
    certificate_chain: bytes | None,
    allow_plaintext_on_network_danger: bool,
) -> grpc.ChannelCredentials | None:
    """TLS with the token in every call, or None where the channel is to be plaintext: see watchword.aio.connect."""
    certified = root_certificates is not None or private_key is not None or certificate_chain is not None
    if not certified and (allow_plaintext_on_network_danger or is_local(target)):
        return None
    tls = grpc.ssl_channel_credentials(root_certificates, private_key, certificate_chain)
    return grpc.composite_channel_credentials(tls, call_credentials(token))


class _BearerPlugin(grpc.AuthMetadataPlugin):
    def __init__(self, source: TokenSource) -> None:
        self._source: Final = source

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            value = bearer_value(self._source)
        except TokenSourceError as error:
            callback((), error)
        except Exception:
            # Text that is not our own could hold the token, and gRPC puts it into the status.
            callback((), TokenSourceError("the token source failed"))
        else:
            callback(((AUTHORIZATION, value),), None)
