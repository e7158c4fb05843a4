"""What doctor makes of what it measured: before, at and after each limit, and always with a way to mend it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from watchword_server.doctor.certificate import check_certificate, judge_expiry
from watchword_server.doctor.postgres import judge_clock, judge_replication
from watchword_server.doctor.stored import judge_administrators
from watchword_server.settings import Settings

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
A_DAY = timedelta(days=1)
A_MOMENT = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("skew", "uncertainty", "status"),
    [
        (timedelta(), timedelta(), "ok"),
        (SECOND, timedelta(), "ok"),
        (SECOND + A_MOMENT, timedelta(), "warn"),
        (-SECOND - A_MOMENT, timedelta(), "warn"),
        # A slow round trip proves nothing: only what exceeds it counts.
        (3 * SECOND, 2 * SECOND, "ok"),
        (3 * SECOND + A_MOMENT, 2 * SECOND, "warn"),
    ],
)
def test_clock(skew: timedelta, uncertainty: timedelta, status: str) -> None:
    assert judge_clock(skew, uncertainty).status == status


@pytest.mark.parametrize(
    ("commit", "names", "standbys", "status", "says"),
    [
        ("on", "", 0, "ok", "one machine"),
        ("on", "", 1, "warn", "revoked tokens back to life"),
        ("on", "ANY 1 (*)", 1, "ok", "on a standby too"),
        ("local", "ANY 1 (*)", 1, "warn", "do not wait"),
        ("local", "", 0, "ok", "one machine"),
        ("off", "", 0, "fail", "forgets"),
        ("off", "ANY 1 (*)", 1, "fail", "forgets"),
    ],
)
def test_replication(commit: str, names: str, standbys: int, status: str, says: str) -> None:
    finding = judge_replication(commit, names, standbys, embedded=False)
    assert finding.status == status
    assert says in finding.message
    assert bool(finding.remedy) is (status != "ok")


@pytest.mark.parametrize(
    ("left", "status"),
    [(None, "fail"), (14 * A_DAY + A_MOMENT, "ok"), (14 * A_DAY, "warn"), (A_MOMENT, "warn")],
)
def test_administrators(left: timedelta | None, status: str) -> None:
    finding = judge_administrators(None if left is None else NOW + left, NOW)
    assert finding.status == status
    assert bool(finding.remedy) is (status != "ok")


@pytest.mark.parametrize(
    ("left", "status"),
    [
        (14 * A_DAY + A_MOMENT, "ok"),
        (14 * A_DAY, "warn"),
        (A_MOMENT, "warn"),
        (timedelta(), "fail"),
        (-A_MOMENT, "fail"),
    ],
)
def test_certificate_end(left: timedelta, status: str) -> None:
    assert judge_expiry(NOW + left, NOW - A_DAY, NOW).status == status


def test_certificate_of_the_future_fails() -> None:
    assert judge_expiry(NOW + 90 * A_DAY, NOW + A_MOMENT, NOW).status == "fail"
    assert judge_expiry(NOW + 90 * A_DAY, NOW, NOW).status == "ok"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    issued = trustme.CA().issue_cert("localhost")
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


def settings(pair: tuple[Path, Path]) -> Settings:
    return Settings(tls_certificate_file=pair[0], tls_key_file=pair[1])


def test_certificate_file_is_read(pair: tuple[Path, Path]) -> None:
    (finding,) = check_certificate(settings(pair), datetime.now(UTC))
    assert finding.status == "ok"
    (late,) = check_certificate(settings(pair), datetime(9999, 1, 1, tzinfo=UTC))
    assert late.status == "fail"


def test_key_of_another_certificate_fails(pair: tuple[Path, Path]) -> None:
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(pair[1])
    (finding,) = check_certificate(settings(pair), datetime.now(UTC))
    assert finding.status == "fail"
    assert "belongs together" in finding.remedy


def test_unusable_client_authorities_fail(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """The server would refuse to start with them."""
    authorities = tmp_path / "authorities"
    given = settings(pair).model_copy(update={"tls_client_ca_file": authorities})
    (absent,) = check_certificate(given, datetime.now(UTC))
    authorities.write_text("no certificate")
    (unusable,) = check_certificate(given, datetime.now(UTC))
    authorities.write_bytes(pair[0].read_bytes())
    (usable,) = check_certificate(given, datetime.now(UTC))
    assert (absent.status, unusable.status, usable.status) == ("fail", "fail", "ok")


def test_unreadable_certificate_fails(pair: tuple[Path, Path]) -> None:
    pair[0].write_text("no certificate")
    (finding,) = check_certificate(settings(pair), datetime.now(UTC))
    assert finding.status == "fail"


def test_no_tls_is_no_finding() -> None:
    assert check_certificate(Settings(), NOW) == []
