"""Whether a gRPC target stays on this machine, so that a token may go there in the clear (RFC 6750 section 5.3)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

_LOCAL_SCHEMES: Final = ("unix:", "unix-abstract:")
# The names that gRPC's core looks at, in lower case only, whatever the channel's kind.
_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES: Final = ("no_grpc_proxy", "no_proxy")


class PlaintextRefusedError(ValueError):
    """A token was about to travel a network unencrypted."""


def refuse_plaintext_on_network(target: str) -> None:
    """Raises PlaintextRefusedError unless `target` is a Unix socket or names loopback addresses only."""
    if not is_local(target):
        raise PlaintextRefusedError(
            f"{target!r} is not on this machine and the channel is not encrypted: a listener could take the token. "
            "Use TLS, or, where something below gRPC encrypts, allow_plaintext_on_network_danger=True"
        )


def refuse_proxy(target: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises PlaintextRefusedError if the environment names a proxy that gRPC would take a plaintext call through.

    gRPC asks such a proxy for loopback addresses too, and then sends the token through it in the clear. For channels
    that others made: ours go past it.
    """
    if target.startswith(_LOCAL_SCHEMES):
        return
    name = next((name for name in _PROXY_VARIABLES if environment.get(name)), None)
    if name is None:
        return
    without = next((environment[name] for name in _NO_PROXY_VARIABLES if environment.get(name)), "")
    host = _host_of(target)
    # As gRPC matches them, by the end; what it may read otherwise is not taken for an exception.
    if any(entry and host.endswith(entry) for entry in without.split(",")):
        return
    raise PlaintextRefusedError(
        f"the environment's {name} is a proxy, and gRPC would send the token through it in the clear, to {target!r} "
        "too: let connect() make the channel, which goes past it, name the host in no_proxy, or, where the channel has "
        "the option grpc.enable_http_proxy at 0, allow_plaintext_on_network_danger=True"
    )


def is_local(target: str) -> bool:
    """Whether every address that `target` can stand for is this machine's own.

    Understands the name syntax of gRPC (grpc/doc/naming.md): `host:port`, `[::1]:port`, `dns:///host:port`,
    `ipv4:a:p,b:p`, `ipv6:...`, `unix:path`. Only numbers and the very name `localhost` count: any other name is what
    some resolver says. What is not understood is not local.
    """
    if target.startswith(_LOCAL_SCHEMES):
        return True
    for scheme in ("ipv4:", "ipv6:"):
        if target.startswith(scheme):
            return all(_is_loopback(one, names=False) for one in target[len(scheme) :].lstrip("/").split(","))
    for scheme in ("dns:", "passthrough:"):
        if target.startswith(scheme):
            rest = target[len(scheme) :]
            if rest.startswith("//"):
                authority, slash, rest = rest[2:].partition("/")
                # `dns://server/name` asks that server, which may answer for localhost as it likes.
                if authority or not slash:
                    return False
            return _is_loopback(rest)
    return _is_loopback(target)


def first_of_several(target: str) -> str | None:
    """The first address of a target that lists several (`ipv4:a:p,b:p`, `ipv6:[a]:p,[b]:p`); otherwise None."""
    scheme, _, addresses = target.partition(":")
    if scheme not in ("ipv4", "ipv6") or "," not in addresses:
        return None
    return addresses.lstrip("/").partition(",")[0]


def _host_of(target: str) -> str:
    address = target.rpartition("/")[2]
    for scheme in ("dns:", "ipv4:", "ipv6:", "passthrough:"):
        address = address.removeprefix(scheme)
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_loopback(address: str, *, names: bool = True) -> bool:
    if address.startswith("["):
        host, bracket, port = address[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
        port = port[1:]
    elif address.count(":") > 1:
        host, port = address, ""
    else:
        host, _, port = address.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    if names and host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
