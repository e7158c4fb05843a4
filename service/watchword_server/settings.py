"""The settings: environment in, one frozen value out. Whatever is doubtful is refused here, before anything starts.

Every name is `WATCHWORD_` and the field's name in capitals; every secret can also be given as `..._FILE`. Messages
name the variable and what to do, and never repeat a value: a mistyped connection string is still a password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from watchword.network import canonical_network
from watchword.token import PREFIX_DEFAULT, check_prefix
from watchword_server.data_folder import POSTGRES_SOCKET, default_data_folder
from watchword_server.settings_environment import SettingsError, read_environment
from watchword_server.transport.listener import UNIX_PATH_BYTES_MAX, ListenAddress, parse_listen_address

__all__ = ["SECRET_FIELDS", "Settings", "SettingsError", "load_settings"]

DAY_SECONDS: Final = 86_400
_PORT_MAX: Final = 65_535
# Of the 100 that it has, some are for the workers' parent and for the command line.
_EMBEDDED_CONNECTIONS_MAX: Final = 90
# Two each for checks and Issue, one each for Revoke, Rotate and Narrow, and five for what the servers tell each other.
_CONNECTIONS_BESIDE_POOL: Final = 12
SECRET_FIELDS: Final = frozenset({"database_url", "migration_database_url", "keyring"})


class Settings(BaseModel):
    """What one server is told. Construct it with `load_settings`; tests may name fields directly."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    data_dir: Path = Field(default_factory=default_data_folder)
    """Where the embedded database, its keyring and the administrator's token lie."""
    database_url: SecretStr | None = None
    """`postgresql://...` of an external server. Absent: the embedded one in `data_dir`."""
    migration_database_url: SecretStr | None = None
    """The same database as a role that may change the schema. Absent: `database_url` does both."""
    keyring: SecretStr | None = None
    """The peppers, as JSON. Required for an external database; generated for the embedded one."""

    listen: str = "127.0.0.1:7600"
    metrics_listen: str = "127.0.0.1:7601"
    """Where Prometheus scrapes over plain HTTP. Empty: nowhere."""
    transport: Literal["auto", "grpcio", "native"] = "auto"
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the one address, each a replica of its own."""
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    """With it, a client must show a certificate that one of these authorities signed."""
    allow_plaintext_on_network_danger: bool = False
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose `x-forwarded-for` is believed, for callers whose own tokens are bound to networks."""
    reflection: bool = True

    token_prefix: str = PREFIX_DEFAULT
    default_ttl_seconds: int = Field(default=90 * DAY_SECONDS, ge=1)
    ttl_seconds_max: int = Field(default=366 * DAY_SECONDS, ge=60, le=3660 * DAY_SECONDS)
    partition_days: int | None = Field(default=None, ge=1, le=366)
    """Days of expiry in one partition of the tokens. Absent: one calendar month."""
    expired_tokens_kept_days: int = Field(default=30, ge=1, le=36_600)
    """How long a partition of tokens is kept after the last of them ended."""
    audit_kept_days: int = Field(default=400, ge=90, le=36_600)
    """How long a partition of audit events is kept after the last of them happened. The database keeps 90 days."""
    changes_kept_seconds: int = Field(default=3600, ge=60, le=30 * DAY_SECONDS)
    """How long a verifier may have been away and still resume, instead of beginning anew with an empty cache."""

    request_bytes_max: int = Field(default=4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    metadata_bytes_max: int = Field(default=8192, ge=1024, le=65_536)
    concurrent_calls_max: int = Field(default=1024, ge=1, le=100_000)
    concurrent_streams_max: int = Field(default=1024, ge=1, le=100_000)
    drain_grace_seconds: float = Field(default=30.0, ge=0, le=3600, allow_inf_nan=False)

    lease_seconds_max: float = Field(default=60.0, ge=1, le=3600, allow_inf_nan=False)
    """The longest lease that a verifier is granted, and the server's own: the bound on a revocation while something is
    cut off."""
    ack_timeout_seconds: float = Field(default=5.0, gt=0, le=600, allow_inf_nan=False)
    """A verifier that lags for longer is refused renewal."""
    revoke_wait_seconds_max: float = Field(default=90.0, ge=0, le=7200, allow_inf_nan=False)
    """How long a Revoke without a deadline waits until it is complete."""
    watches_max: int = Field(default=2000, ge=1, le=100_000)
    watches_per_caller_max: int = Field(default=200, ge=1, le=100_000)
    issues_per_second: int = Field(default=500, ge=0, le=1_000_000)
    """Issue and Rotate together, for each calling subject; twice as many at once. 0: no limit."""
    failed_validations_per_second: int = Field(default=5000, ge=0, le=1_000_000)
    """Answers `inactive`, for each verifier; twice as many at once. 0: no limit."""
    usage_interval_seconds: float = Field(default=60.0, ge=0.05, le=3600, allow_inf_nan=False)
    """How often verifiers tell which tokens they admitted, and how often what is known of tokens' use is stored."""
    rotation_grace_seconds: int = Field(default=3600, ge=0, le=366 * DAY_SECONDS)
    """How long a rotated token lives on where nobody says otherwise."""
    rotation_grace_seconds_max: int = Field(default=7 * DAY_SECONDS, ge=0, le=366 * DAY_SECONDS)
    rotation_silence_seconds: float = Field(default=600.0, ge=0, le=30 * DAY_SECONDS, allow_inf_nan=False)
    """How long a rotated token has to be silent, while its successor is in use, to end early. 0: it never does."""

    lookup_timeout_seconds: float = Field(default=2.0, gt=0, le=60, allow_inf_nan=False)
    statement_timeout_seconds: float = Field(default=5.0, gt=0, le=600, allow_inf_nan=False)
    connect_timeout_seconds: float = Field(default=5.0, gt=0, le=60, allow_inf_nan=False)
    # Making an administrator holds one connection for its lock, and works on another.
    pool_size_max: int = Field(default=8, ge=2, le=90)

    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = None

    warnings: tuple[str, ...] = ()
    """What was accepted but deserves a look; the server logs each at its start. Not read from the environment."""

    @property
    def listen_address(self) -> ListenAddress:
        return parse_listen_address(self.listen)

    @property
    def metrics_address(self) -> ListenAddress | None:
        return parse_listen_address(self.metrics_listen) if self.metrics_listen else None

    @property
    def tls(self) -> bool:
        return self.tls_certificate_file is not None

    @property
    def embedded(self) -> bool:
        return self.database_url is None

    @property
    def usage_slack_seconds(self) -> float:
        """By how much what is stored of a token's use may be behind: a verifier's interval, and the server's."""
        return 2 * self.usage_interval_seconds

    @property
    def transport_chosen(self) -> Literal["grpcio", "native"]:
        """What `auto` comes to here: native for a plaintext listener where it is installed."""
        if self.transport == "auto":
            return "native" if not self.tls and _native_installed() else "grpcio"
        return self.transport

    @field_validator("listen")
    @classmethod
    def _listen_readable(cls, value: str) -> str:
        parse_listen_address(value)
        return value

    @field_validator("metrics_listen")
    @classmethod
    def _metrics_listen_readable(cls, value: str) -> str:
        if value and parse_listen_address(value).unix_path is not None:
            raise ValueError("metrics are served over TCP: write host:port, or leave it empty to turn them off")
        return value

    @field_validator("data_dir")
    @classmethod
    def _data_dir_absolute(cls, value: Path) -> Path:
        return Path(os.path.abspath(value.expanduser()))

    @field_validator("token_prefix")
    @classmethod
    def _prefix_usable(cls, value: str) -> str:
        return check_prefix(value)

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        return tuple(canonical_network(network) for network in listed)

    @field_validator("log_level", "log_format", "transport", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _postgres_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("write it as postgresql://user:password@host:5432/database")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _otlp_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("write it as http://collector:4317 or https://collector:4317")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._transport_problems(), *self._database_problems()]
        if self.default_ttl_seconds > self.ttl_seconds_max:
            problems.append(
                "WATCHWORD_DEFAULT_TTL_SECONDS is above WATCHWORD_TTL_SECONDS_MAX: lower one or raise the other"
            )
        if self.rotation_grace_seconds > self.rotation_grace_seconds_max:
            problems.append(
                "WATCHWORD_ROTATION_GRACE_SECONDS is above WATCHWORD_ROTATION_GRACE_SECONDS_MAX: lower one or raise the"
                " other"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _transport_problems(self) -> list[str]:
        problems: list[str] = []
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            problems.append(
                "TLS needs both WATCHWORD_TLS_CERTIFICATE_FILE and WATCHWORD_TLS_KEY_FILE: set the other too"
            )
        elif self.tls_client_ca_file is not None and not self.tls:
            problems.append(
                "WATCHWORD_TLS_CLIENT_CA_FILE asks for mutual TLS, which needs WATCHWORD_TLS_CERTIFICATE_FILE and"
                " WATCHWORD_TLS_KEY_FILE as well"
            )
        elif not self.tls and not self.listen_address.stays_on_machine and not self.allow_plaintext_on_network_danger:
            problems.append(
                "WATCHWORD_LISTEN is a network address and there is no TLS: anyone on the way could read every token."
                " Set WATCHWORD_TLS_CERTIFICATE_FILE and WATCHWORD_TLS_KEY_FILE, listen on 127.0.0.1 or a Unix socket,"
                " or, behind a mesh that encrypts, set WATCHWORD_ALLOW_PLAINTEXT_ON_NETWORK_DANGER=true"
            )
        if self.workers > 1:
            problems += self._workers_problems()
        if self.transport == "native":
            if self.tls:
                problems.append(
                    "WATCHWORD_TRANSPORT=native has no TLS: use grpcio (or auto), or let a proxy on this machine do TLS"
                )
            if not _native_installed():
                problems.append("WATCHWORD_TRANSPORT=native is not installed: pip install 'watchword[server,native]'")
        return problems

    def _workers_problems(self) -> list[str]:
        problems: list[str] = []
        if self.listen_address.unix_path is not None:
            problems.append(
                "WATCHWORD_WORKERS above 1 needs a TCP port to share, and WATCHWORD_LISTEN is a Unix socket: listen on"
                " 127.0.0.1, or set WATCHWORD_WORKERS=1"
            )
        metrics = self.metrics_address
        if metrics is not None and metrics.port and metrics.port + self.workers - 1 > _PORT_MAX:
            problems.append(
                "WATCHWORD_METRICS_LISTEN leaves no room: each of the WATCHWORD_WORKERS takes the port after the one"
                " before, so choose a lower port"
            )
        connections = self.workers * (self.pool_size_max + _CONNECTIONS_BESIDE_POOL)
        if self.embedded and connections > _EMBEDDED_CONNECTIONS_MAX:
            problems.append(
                f"WATCHWORD_WORKERS need up to {connections} connections at this WATCHWORD_POOL_SIZE_MAX, and the"
                f" embedded PostgreSQL has {_EMBEDDED_CONNECTIONS_MAX} for them: lower one, or set"
                " WATCHWORD_DATABASE_URL to a server of your own"
            )
        return problems

    def _database_problems(self) -> list[str]:
        if self.embedded:
            problems = []
            if self.migration_database_url is not None:
                problems.append(
                    "WATCHWORD_MIGRATION_DATABASE_URL has no effect without WATCHWORD_DATABASE_URL: set both"
                )
            excess = len(os.fsencode(self.data_dir / POSTGRES_SOCKET)) - UNIX_PATH_BYTES_MAX
            if excess > 0:
                problems.append(
                    f"WATCHWORD_DATA_DIR is {excess} bytes too long for PostgreSQL's socket,"
                    f" whose whole path may have {UNIX_PATH_BYTES_MAX}: choose a shorter folder"
                )
            return problems
        if self.keyring is None:
            return [
                "WATCHWORD_KEYRING_FILE (or WATCHWORD_KEYRING) is required with WATCHWORD_DATABASE_URL: every server of"
                " that database needs the same keyring"
            ]
        return []


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Reads the settings from `environ` (the process's environment if absent); `overrides` win over it.

    Raises SettingsError with every problem found, a line each, and no values.
    """
    given = read_environment(
        os.environ if environ is None else environ,
        fields=[name for name in Settings.model_fields if name != "warnings"],
        secret_fields=SECRET_FIELDS,
        may_be_empty=frozenset({"metrics_listen"}),
    )
    values: dict[str, object] = {**given.values, **overrides}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        # Neither the chain nor the text may carry the input: hence `from None` and our own rendering.
        raise SettingsError(_problems(error)) from None
    warnings = (*given.warnings, *_plaintext_database_warnings(settings), *_retention_warnings(settings))
    return settings.model_copy(update={"warnings": warnings}) if warnings else settings


def _problems(error: ValidationError) -> list[str]:
    lines: list[str] = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        message = item["msg"].removeprefix("Value error, ")
        if item["loc"]:
            lines.append(f"WATCHWORD_{str(item['loc'][0]).upper()}: {message}")
        else:
            lines.extend(message.splitlines())
    return lines


def _plaintext_database_warnings(settings: Settings) -> list[str]:
    warnings: list[str] = []
    for name in ("database_url", "migration_database_url"):
        secret: SecretStr | None = getattr(settings, name)
        if secret is None:
            continue
        url = urlsplit(secret.get_secret_value())
        local = url.hostname is None or url.hostname in {"localhost", "127.0.0.1", "::1"}
        if not local and not any(f"sslmode={mode}" in url.query for mode in ("require", "verify-ca", "verify-full")):
            warnings.append(
                f"WATCHWORD_{name.upper()} does not insist on TLS: add sslmode=verify-full (and sslrootcert) to it"
            )
    return warnings


def _retention_warnings(settings: Settings) -> list[str]:
    # A warning, because it is a matter of what will be asked, and a longer life must not stop a start that was well.
    days = settings.ttl_seconds_max // DAY_SECONDS + settings.expired_tokens_kept_days
    if settings.audit_kept_days >= days:
        return []
    return [
        "WATCHWORD_AUDIT_KEPT_DAYS is shorter than the longest life of a token and the days that it is kept after: for"
        f" some tokens nothing will say who issued them, or why they were revoked; {days} would do"
    ]


def _native_installed() -> bool:
    return find_spec("pygrpc_native") is not None
