"""From options and environment to a call: which server, over what, with whose token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import Output
from watchword_server.cli.rpc_errors import from_rpc_error
from watchword_server.cli.secrets_input import read_secret_file
from watchword_server.data_folder import ADMIN_TOKEN_FILE, default_data_folder

if TYPE_CHECKING:
    import grpc

    from watchword.v1.audit_service_pb2_grpc import AuditServiceStub
    from watchword.v1.fleet_service_pb2_grpc import FleetServiceStub
    from watchword.v1.subject_service_pb2_grpc import SubjectServiceStub
    from watchword.v1.token_service_pb2_grpc import TokenServiceStub

ADDRESS_DEFAULT: Final = "127.0.0.1:7600"
_PORT_DEFAULT: Final = 7600
# A command that runs on through an outage should not stay away for two minutes after it, which is gRPC's default.
_RECONNECT_MS_MAX: Final = 5_000

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Credential:
    """The caller's own token and where it came from."""

    secret: str = field(repr=False)
    source: str
    file: Path | None = None
    """Where it can be replaced, if it came from a file."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Which server, and how the way there is protected."""

    address: str
    is_local: bool
    """This machine, by a loopback address or a Unix socket: nobody can listen on the way."""
    tls: bool
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None


def endpoint(
    address: str,
    *,
    tls: bool,
    ca_file: Path | None,
    certificate_file: Path | None,
    key_file: Path | None,
    server_name: str | None,
    allow_plaintext_on_network_danger: bool,
) -> Endpoint:
    """Puts an endpoint together: TLS to every other machine, plaintext to this one unless TLS is asked for."""
    address, is_local = _normalized(address)
    if (certificate_file is None) != (key_file is None):
        raise CommandError(
            "a client certificate needs both --certificate-file and --key-file",
            "Give both, or neither.",
            ExitCode.USAGE,
        )
    asked = tls or ca_file is not None or certificate_file is not None or server_name is not None
    if asked and allow_plaintext_on_network_danger:
        raise CommandError(
            "TLS and --allow-plaintext-on-network-danger exclude each other", "Decide for one.", ExitCode.USAGE
        )
    return Endpoint(
        address,
        is_local,
        asked or not (is_local or allow_plaintext_on_network_danger),
        ca_file,
        certificate_file,
        key_file,
        server_name,
    )


def _normalized(address: str) -> tuple[str, bool]:
    """The address as grpc wants it, and whether it surely is this machine."""
    if address.startswith(("unix:", "unix-abstract:")):
        return address, True
    bare = address.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:")
    if bare.startswith("["):
        host, _, port = bare[1:].partition("]")
        port = port.removeprefix(":")
        shown = f"[{host}]"
    else:
        host, _, port = bare.partition(":")
        shown = host
    if not host or (port and not port.isdecimal()):
        raise CommandError(
            f"{address!r} is not an address",
            "Write HOST:PORT (127.0.0.1:7600, [::1]:7600) or unix:/path.",
            ExitCode.USAGE,
        )
    try:
        is_local = ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return f"{shown}:{port or _PORT_DEFAULT}", is_local


def data_folder(environment: Mapping[str, str]) -> Path:
    """Where the server on this machine keeps its data, as its settings have it."""
    configured = environment.get("WATCHWORD_DATA_DIR")
    return Path(configured) if configured else default_data_folder()


def find_credential(token_file: Path | None, environment: Mapping[str, str], is_local: bool) -> Credential:
    """The caller's token: --token-file, WATCHWORD_TOKEN, WATCHWORD_TOKEN_FILE, or the administrator's on this machine.

    The last one is for servers on this machine only: an address on the network must not be able to ask for it.
    """
    if token_file is not None:
        return Credential(read_secret_file(token_file, str(token_file)), str(token_file), token_file)
    if secret := environment.get("WATCHWORD_TOKEN", "").strip():
        return Credential(secret, "WATCHWORD_TOKEN")
    if configured := environment.get("WATCHWORD_TOKEN_FILE"):
        file = Path(configured)
        return Credential(read_secret_file(file, f"WATCHWORD_TOKEN_FILE ({configured})"), configured, file)
    if is_local:
        found = data_folder(environment) / ADMIN_TOKEN_FILE
        try:
            present = found.exists()
        except PermissionError:
            present = False
        if present:
            return Credential(read_secret_file(found, str(found)), str(found), found)
    raise CommandError(
        "no token to call the server with",
        "Give one with --token-file, WATCHWORD_TOKEN or WATCHWORD_TOKEN_FILE"
        + (
            "; on the server's machine, run this as the server's user (and set WATCHWORD_DATA_DIR if it is set there)."
            if is_local
            else "."
        ),
        ExitCode.DENIED,
        "TOKEN_MISSING",
    )


class Session:
    """An open channel with the caller's token; a context manager."""

    def __init__(self, endpoint: Endpoint, credential: Credential, output: Output, timeout_seconds: float) -> None:
        self.output = output
        self._endpoint = endpoint
        self._credential = credential
        self._timeout_seconds = timeout_seconds
        self._channel = open_channel(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    @property
    def tokens(self) -> TokenServiceStub:
        from watchword.v1.token_service_pb2_grpc import TokenServiceStub

        return TokenServiceStub(self._channel)

    @property
    def audit(self) -> AuditServiceStub:
        from watchword.v1.audit_service_pb2_grpc import AuditServiceStub

        return AuditServiceStub(self._channel)

    @property
    def fleet(self) -> FleetServiceStub:
        from watchword.v1.fleet_service_pb2_grpc import FleetServiceStub

        return FleetServiceStub(self._channel)

    @property
    def subjects(self) -> SubjectServiceStub:
        from watchword.v1.subject_service_pb2_grpc import SubjectServiceStub

        return SubjectServiceStub(self._channel)

    @property
    def own_file(self) -> Path | None:
        """The file that the caller's token came from, if it came from one."""
        return self._credential.file

    @property
    def own_secret(self) -> str:
        """The caller's token, to ask the server about itself."""
        return self._credential.secret

    def call(self, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q, timeout_seconds: float | None = None) -> R:
        """One call, within the session's time limit unless it has its own. Raises CommandError for every failure."""
        return self.begin(method, request, timeout_seconds).result()

    def begin(
        self, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q, timeout_seconds: float | None = None
    ) -> PendingCall[R]:
        """Starts one call."""
        future = method.future(
            request,
            timeout=self._timeout_seconds if timeout_seconds is None else timeout_seconds,
            metadata=(("authorization", f"Bearer {self._credential.secret}"),),
        )
        return PendingCall(future, self._endpoint.address, self._credential.source)


class PendingCall(Generic[R]):
    """A call under way."""

    def __init__(self, future: grpc.Future[R], address: str, credential_source: str) -> None:
        self._future = future
        self._address = address
        self._credential_source = credential_source

    def ended_within(self, seconds: float) -> bool:
        """Waits so long at most; whether it is over."""
        import grpc

        try:
            self._future.exception(seconds)
        except grpc.FutureTimeoutError:
            return False
        return True

    def result(self) -> R:
        """Waits for its end. Raises CommandError."""
        import grpc

        try:
            return self._future.result()
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address, self._credential_source) from None


def open_channel(endpoint: Endpoint) -> grpc.Channel:
    """A channel to the endpoint. Nothing is sent before the first call."""
    import grpc

    options: list[tuple[str, str | int]] = [("grpc.max_reconnect_backoff_ms", _RECONNECT_MS_MAX)]
    if not endpoint.tls:
        # A proxy out of the environment would read the token in the clear.
        return grpc.insecure_channel(endpoint.address, options=[*options, ("grpc.enable_http_proxy", 0)])
    if endpoint.server_name:
        options.append(("grpc.ssl_target_name_override", endpoint.server_name))
    credentials = grpc.ssl_channel_credentials(
        _read(endpoint.ca_file), _read(endpoint.key_file), _read(endpoint.certificate_file)
    )
    return grpc.secure_channel(endpoint.address, credentials, options=options)


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(
            f"cannot read {file}: {error.strerror}",
            "Check the path and who may read it.",
            ExitCode.CONFIGURATION,
            "FILE_UNREADABLE",
        ) from None
