"""Settings: doubtful ones are refused with what to do, and no message ever shows a value."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from watchword_server import settings as settings_module
from watchword_server.keyring import Keyring
from watchword_server.settings import Settings, SettingsError, load_settings
from watchword_server.settings_environment import CLIENT_VARIABLES, read_environment

CANARY = "hunter2-canary"
EXTERNAL = {"WATCHWORD_DATABASE_URL": f"postgresql://app:{CANARY}@localhost/w", "WATCHWORD_KEYRING": "{}"}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    return str(caught.value)


def test_an_empty_environment_serves_this_machine_alone() -> None:
    settings = load_settings({})
    assert settings.listen_address.stays_on_machine
    assert settings.metrics_address is not None
    assert settings.metrics_address.stays_on_machine
    assert settings.embedded
    assert not settings.tls


def test_variables_of_other_programs_and_of_the_client_are_let_be() -> None:
    environ = dict.fromkeys(CLIENT_VARIABLES, "x")
    assert load_settings({"PATH": "/bin", "PGPASSWORD": "x", **environ}) == load_settings({})


@pytest.mark.parametrize(
    "name",
    [
        "WATCHWORD_SERVICE_HOST",
        "WATCHWORD_SERVICE_PORT_GRPC",
        "WATCHWORD_PORT",
        "WATCHWORD_PORT_7600_TCP_ADDR",
        "WATCHWORD_METRICS_SERVICE_HOST",
    ],
)
def test_kubernetes_service_variables_are_let_be(name: str) -> None:
    assert load_settings({name: "tcp://10.0.0.1:7600"}) == load_settings({})


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"WATCHWORD_LISTN": "x"}, "did you mean WATCHWORD_LISTEN?"),
        ({"WATCHWORD_DATABSE_URL_FILE": "x"}, "did you mean WATCHWORD_DATABASE_URL_FILE?"),
        ({"WATCHWORD_LISTEN_FILE": "x"}, "WATCHWORD_LISTEN_FILE is not a setting"),
        ({"WATCHWORD_WARNINGS": "x"}, "WATCHWORD_WARNINGS is not a setting"),
        ({"WATCHWORD_DATABASE_URL": " "}, "set but empty"),
        ({"WATCHWORD_DATABASE_URL": "mysql://x/y"}, "postgresql://user:password@host"),
        ({"WATCHWORD_DATABASE_URL": "postgresql://h/d"}, "WATCHWORD_KEYRING_FILE"),
        ({"WATCHWORD_MIGRATION_DATABASE_URL": "postgresql://h/d"}, "set both"),
        ({**EXTERNAL, "WATCHWORD_KEYRING_FILE": "/nowhere"}, "both set: keep one"),
        ({"WATCHWORD_KEYRING_FILE": "/nowhere"}, "cannot read /nowhere"),
        ({"WATCHWORD_LISTEN": "7600"}, "host:port"),
        ({"WATCHWORD_LISTEN": ":7600"}, "127.0.0.1 for this machine"),
        ({"WATCHWORD_LISTEN": "127.0.0.1:65536"}, "0 to 65535"),
        ({"WATCHWORD_LISTEN": "::1:7600"}, "brackets"),
        ({"WATCHWORD_LISTEN": "unix:relative"}, "whole path"),
        ({"WATCHWORD_LISTEN": "unix:/" + "x" * 107}, "107 bytes"),
        ({"WATCHWORD_LISTEN": "0.0.0.0:7600"}, "WATCHWORD_ALLOW_PLAINTEXT_ON_NETWORK_DANGER"),
        ({"WATCHWORD_LISTEN": "[::]:7600"}, "WATCHWORD_ALLOW_PLAINTEXT_ON_NETWORK_DANGER"),
        ({"WATCHWORD_LISTEN": "watchword.internal:7600"}, "WATCHWORD_ALLOW_PLAINTEXT_ON_NETWORK_DANGER"),
        ({"WATCHWORD_METRICS_LISTEN": "unix:/x"}, "over TCP"),
        ({"WATCHWORD_TLS_CERTIFICATE_FILE": "/c"}, "WATCHWORD_TLS_KEY_FILE"),
        ({"WATCHWORD_TLS_KEY_FILE": "/k"}, "WATCHWORD_TLS_CERTIFICATE_FILE"),
        ({"WATCHWORD_TLS_CLIENT_CA_FILE": "/a"}, "mutual TLS"),
        (
            {
                "WATCHWORD_TLS_CERTIFICATE_FILE": "/c",
                "WATCHWORD_TLS_KEY_FILE": "/k",
                "WATCHWORD_TRANSPORT": "native",
            },
            "has no TLS",
        ),
        ({"WATCHWORD_TRANSPORT": "http3"}, "WATCHWORD_TRANSPORT"),
        ({"WATCHWORD_TOKEN_PREFIX": "Bad"}, "token prefix"),
        ({"WATCHWORD_TTL_SECONDS_MAX": "86400"}, "WATCHWORD_DEFAULT_TTL_SECONDS is above"),
        ({"WATCHWORD_ROTATION_GRACE_SECONDS_MAX": "3599"}, "WATCHWORD_ROTATION_GRACE_SECONDS is above"),
        ({"WATCHWORD_ROTATION_GRACE_SECONDS": "604801"}, "WATCHWORD_ROTATION_GRACE_SECONDS is above"),
        ({"WATCHWORD_ROTATION_GRACE_SECONDS": "-1"}, "WATCHWORD_ROTATION_GRACE_SECONDS"),
        ({"WATCHWORD_TRUSTED_PROXIES": "10.1.2.3/16"}, "did you mean 10.1.0.0/16?"),
        ({"WATCHWORD_TRUSTED_PROXIES": "10.1.0.0/16,"}, "is not a network"),
        ({"WATCHWORD_TRUSTED_PROXIES": "10.1.0.0/16,proxy.internal"}, "is not a network"),
        ({"WATCHWORD_TRUSTED_PROXIES": "10.9.0.1"}, "is not a network"),
        ({"WATCHWORD_WORKERS": "0"}, "WATCHWORD_WORKERS"),
        ({"WATCHWORD_WORKERS": "2", "WATCHWORD_LISTEN": "unix:/run/w.sock"}, "is a Unix socket"),
        ({"WATCHWORD_WORKERS": "3", "WATCHWORD_METRICS_LISTEN": "127.0.0.1:65534"}, "leaves no room"),
        ({"WATCHWORD_WORKERS": "5"}, "the embedded PostgreSQL has 90"),
        ({"WATCHWORD_POOL_SIZE_MAX": "0"}, "WATCHWORD_POOL_SIZE_MAX"),
        ({"WATCHWORD_DRAIN_GRACE_SECONDS": "inf"}, "WATCHWORD_DRAIN_GRACE_SECONDS"),
        ({"WATCHWORD_LOOKUP_TIMEOUT_SECONDS": "nan"}, "WATCHWORD_LOOKUP_TIMEOUT_SECONDS"),
        ({"WATCHWORD_OTLP_ENDPOINT": "collector:4317"}, "http://collector:4317"),
        ({"WATCHWORD_DATA_DIR": "/" + "d" * 100}, "bytes too long"),
    ],
)
def test_doubtful_settings_are_refused_with_what_to_do(environ: dict[str, str], says: str) -> None:
    assert says in refusal(environ)


def test_data_dir_is_refused_exactly_where_the_socket_stops_fitting() -> None:
    fits = "/" + "d" * (107 - len("/" + "/postgres/.s.PGSQL.5432"))
    assert load_settings({"WATCHWORD_DATA_DIR": fits}).data_dir == Path(fits)
    assert "1 bytes too long" in refusal({"WATCHWORD_DATA_DIR": fits + "d"})


def test_an_external_database_does_not_care_how_long_data_dir_is() -> None:
    assert not load_settings({**EXTERNAL, "WATCHWORD_DATA_DIR": "/" + "d" * 200}).embedded


def test_every_problem_is_told_at_once() -> None:
    text = refusal({"WATCHWORD_POOL_SIZE_MAX": "0", "WATCHWORD_LISTEN": "7600"})
    assert "WATCHWORD_POOL_SIZE_MAX" in text
    assert "WATCHWORD_LISTEN" in text


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHWORD_DATABASE_URL": f"mysql://u:{CANARY}@h/d"},
        {"WATCHWORD_DATABASE_URL": f"postgresql://u:{CANARY}@h/d"},
        {**EXTERNAL, "WATCHWORD_POOL_SIZE_MAX": CANARY},
        {**EXTERNAL, "WATCHWORD_TRANSPORT": CANARY},
        {**EXTERNAL, "WATCHWORD_LISTEN": "0.0.0.0:1"},
        {"WATCHWORD_KEYRING": CANARY, "WATCHWORD_TOKEN_PREFIX": CANARY},
        {"WATCHWORD_PASSWORD": CANARY},
    ],
)
def test_no_message_shows_a_value(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert CANARY not in str(caught.value) + repr(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_constructed_directly_the_error_shows_no_value_either() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"database_url": f"mysql://u:{CANARY}@h/d"})
    assert CANARY not in str(caught.value)


def test_secrets_do_not_show_in_repr_or_dump() -> None:
    settings = load_settings({**EXTERNAL, "WATCHWORD_KEYRING": CANARY})
    assert CANARY not in repr(settings) + str(settings) + str(settings.model_dump()) + settings.model_dump_json()
    values = read_environment(
        {"WATCHWORD_KEYRING": CANARY},
        fields=["keyring"],
        secret_fields=frozenset({"keyring"}),
        may_be_empty=frozenset(),
    )
    assert CANARY not in repr(values)


@pytest.mark.parametrize("name", sorted(settings_module.SECRET_FIELDS))
def test_every_secret_is_read_from_a_file_without_its_last_newline(name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("postgresql://localhost/w\n")
    path.chmod(0o600)
    environ: dict[str, str] = dict(EXTERNAL)
    environ.pop(f"WATCHWORD_{name.upper()}", None)
    settings = load_settings({**environ, f"WATCHWORD_{name.upper()}_FILE": str(path)})
    assert getattr(settings, name).get_secret_value() == "postgresql://localhost/w"
    assert settings.warnings == ()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o604, True), (0o644, True)])
def test_a_secret_file_that_everyone_can_read_is_warned_about(mode: int, warned: bool, tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    path.write_text(Keyring.generate().dump())
    path.chmod(mode)
    assert any("chmod 600" in line for line in load_settings({"WATCHWORD_KEYRING_FILE": str(path)}).warnings) is warned


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"\xff\xfe", "is not text"), (b"x" * 65_537, "more than")]
)
def test_an_unusable_secret_file_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert says in refusal({"WATCHWORD_KEYRING_FILE": str(path)})


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("postgresql://db.internal/w", True),
        ("postgresql://db.internal/w?sslmode=prefer", True),
        ("postgresql://db.internal/w?sslmode=verify-full", False),
        ("postgresql://127.0.0.1/w", False),
        ("postgresql:///w?host=/run/postgresql", False),
    ],
)
def test_a_database_across_a_network_without_tls_is_warned_about(url: str, warned: bool) -> None:
    settings = load_settings({**EXTERNAL, "WATCHWORD_DATABASE_URL": url})
    assert any("sslmode=verify-full" in line for line in settings.warnings) is warned


@pytest.mark.parametrize(
    ("transport", "tls", "installed", "chosen"),
    [
        ("auto", False, True, "native"),
        ("auto", False, False, "grpcio"),
        ("auto", True, True, "grpcio"),
        ("grpcio", False, True, "grpcio"),
        ("native", False, True, "native"),
    ],
)
def test_transport_chosen(
    transport: str, tls: bool, installed: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_module, "_native_installed", lambda: installed)
    environ = {"WATCHWORD_TRANSPORT": transport}
    if tls:
        environ |= {"WATCHWORD_TLS_CERTIFICATE_FILE": "/c", "WATCHWORD_TLS_KEY_FILE": "/k"}
    assert load_settings(environ).transport_chosen == chosen


def test_native_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "_native_installed", lambda: False)
    assert "pip install 'watchword[server,native]'" in refusal({"WATCHWORD_TRANSPORT": "native"})


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:7600", "localhost:7600", "unix:/run/w.sock"])
def test_plaintext_needs_no_permission_on_this_machine(address: str) -> None:
    assert load_settings({"WATCHWORD_LISTEN": address}).listen_address.target == address


def test_plaintext_on_a_network_takes_the_setting_named_for_its_danger() -> None:
    environ = {"WATCHWORD_LISTEN": "0.0.0.0:7600", "WATCHWORD_ALLOW_PLAINTEXT_ON_NETWORK_DANGER": "true"}
    assert load_settings(environ).listen == "0.0.0.0:7600"


def test_metrics_are_turned_off_by_an_empty_address() -> None:
    assert load_settings({"WATCHWORD_METRICS_LISTEN": ""}).metrics_address is None


def test_settings_cannot_be_changed() -> None:
    settings: Any = load_settings({})
    with pytest.raises(ValidationError):
        settings.listen = "0.0.0.0:1"


def test_trusted_proxies_are_parted_by_commas() -> None:
    assert load_settings({}).trusted_proxies == ()
    settings = load_settings({"WATCHWORD_TRUSTED_PROXIES": "10.9.0.0/24, 2001:DB8:9::/64"})
    assert settings.trusted_proxies == ("10.9.0.0/24", "2001:db8:9::/64")


def test_a_grace_at_its_cap_is_taken() -> None:
    settings = load_settings({"WATCHWORD_ROTATION_GRACE_SECONDS": "60", "WATCHWORD_ROTATION_GRACE_SECONDS_MAX": "60"})
    assert settings.rotation_grace_seconds == settings.rotation_grace_seconds_max == 60


@pytest.mark.parametrize(("kept", "warned"), [("396", False), ("395", True)])
def test_audit_log_that_forgets_before_tokens_do_is_warned_of(kept: str, warned: bool) -> None:
    """The longest life is 366 days, and an ended token is kept for 30."""
    settings = load_settings({"WATCHWORD_AUDIT_KEPT_DAYS": kept})
    assert settings.audit_kept_days == int(kept)
    assert any("WATCHWORD_AUDIT_KEPT_DAYS" in line and "396" in line for line in settings.warnings) is warned


@pytest.mark.parametrize(
    ("variable", "value"), [("WATCHWORD_AUDIT_KEPT_DAYS", "89"), ("WATCHWORD_EXPIRED_TOKENS_KEPT_DAYS", "0")]
)
def test_retention_too_short_to_be_meant_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load_settings({variable: value})
