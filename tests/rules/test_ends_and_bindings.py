"""Sessions, rotated tokens and bound ones: when they end, and what their calls have to match."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import NO_EVIDENCE, Evidence, Reason, is_bound, judge, mismatch

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
DAY = timedelta(days=1)
FROM_OFFICE = Evidence("10.1.2.3")
CERTIFICATE = bytes(range(32))
RECORD = TokenRecord(
    token_id=UUID(int=1),
    pepper_version=1,
    digest=bytes(32),
    subject="caller",
    audiences=("orders",),
    scopes=("orders.read",),
    grants=(),
    created_at=NOW - DAY,
    expires_at=NOW + DAY,
)
FROM_SOMEWHERE = RECORD._replace(allowed_networks=("192.0.2.0/24", "10.1.0.0/16", "2001:db8::/32"))
WITH_CERTIFICATE = RECORD._replace(certificate_sha256=CERTIFICATE)


def reason(
    of: TokenRecord,
    evidence: Evidence | None = NO_EVIDENCE,
    *,
    proved: bool = True,
    verifier: str = "orders",
    required: tuple[str, ...] = (),
) -> Reason:
    return judge(of, proved=proved, verifier=verifier, required=required, now=NOW, evidence=evidence).reason


@pytest.mark.parametrize(
    ("idle", "left", "expected"),
    [
        (INSTANT, DAY, Reason.ACTIVE),
        (timedelta(), DAY, Reason.IDLE),
        (-INSTANT, DAY, Reason.IDLE),
        (DAY, INSTANT, Reason.ACTIVE),
        (DAY, timedelta(), Reason.EXPIRED),
        (-INSTANT, timedelta(), Reason.EXPIRED),
    ],
)
def test_session_ends_at_its_idle_end_and_at_its_hard_end_in_any_case(
    idle: timedelta, left: timedelta, expected: Reason
) -> None:
    session = RECORD._replace(idle_timeout=timedelta(minutes=1), idle_expires_at=NOW + idle, expires_at=NOW + left)
    assert reason(session) is expected


@pytest.mark.parametrize(
    ("idle", "left", "ends_in"),
    [(None, DAY, DAY), (INSTANT, DAY, INSTANT), (DAY, INSTANT, INSTANT), (DAY, DAY, DAY)],
)
def test_token_ends_at_whichever_end_comes_first(idle: timedelta | None, left: timedelta, ends_in: timedelta) -> None:
    of = RECORD._replace(idle_expires_at=None if idle is None else NOW + idle, expires_at=NOW + left)
    assert of.ends_at == NOW + ends_in


@pytest.mark.parametrize(
    ("left", "expected"),
    [(INSTANT, Reason.ACTIVE), (timedelta(), Reason.ROTATED), (-INSTANT, Reason.ROTATED)],
)
def test_rotated_token_lives_until_its_grace_is_over(left: timedelta, expected: Reason) -> None:
    assert reason(RECORD._replace(successor_id=UUID(int=2), rotated_at=NOW - DAY, expires_at=NOW + left)) is expected


def test_rotated_session_that_is_idle_for_too_long_is_rotated_away() -> None:
    session = RECORD._replace(successor_id=UUID(int=2), idle_expires_at=NOW)
    assert reason(session) is Reason.ROTATED


def test_revoked_token_is_revoked_whatever_else_it_is() -> None:
    of = FROM_SOMEWHERE._replace(
        successor_id=UUID(int=2), expires_at=NOW, idle_expires_at=NOW, revoked_at=NOW, revoke_reason=""
    )
    assert reason(of) is Reason.REVOKED


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", Reason.ACTIVE),
        ("10.1.0.0", Reason.ACTIVE),
        ("10.1.255.255", Reason.ACTIVE),
        ("::ffff:10.1.2.3", Reason.ACTIVE),
        ("2001:db8::1", Reason.ACTIVE),
        ("10.0.255.255", Reason.NETWORK_MISMATCH),
        ("10.2.0.0", Reason.NETWORK_MISMATCH),
        ("2001:db9::", Reason.NETWORK_MISMATCH),
        ("", Reason.NETWORK_MISMATCH),
        ("10.1.2.3:443", Reason.NETWORK_MISMATCH),
        ("10.1.2", Reason.NETWORK_MISMATCH),
        (" 10.1.2.3", Reason.NETWORK_MISMATCH),
        ("10.1.0.0/16", Reason.NETWORK_MISMATCH),
        ("localhost", Reason.NETWORK_MISMATCH),
    ],
)
def test_token_is_good_from_its_networks_and_from_nowhere_else(address: str, expected: Reason) -> None:
    assert reason(FROM_SOMEWHERE, Evidence(address)) is expected


@pytest.mark.parametrize(
    ("digest", "expected"),
    [
        (CERTIFICATE, Reason.ACTIVE),
        (b"", Reason.CERTIFICATE_MISMATCH),
        (CERTIFICATE[:-1], Reason.CERTIFICATE_MISMATCH),
        (CERTIFICATE + b"\x00", Reason.CERTIFICATE_MISMATCH),
        (bytes(32), Reason.CERTIFICATE_MISMATCH),
    ],
)
def test_token_is_good_with_its_certificate_and_with_no_other(digest: bytes, expected: Reason) -> None:
    assert reason(WITH_CERTIFICATE, Evidence(certificate_sha256=digest)) is expected


def test_every_binding_has_to_match() -> None:
    both = FROM_SOMEWHERE._replace(certificate_sha256=CERTIFICATE)
    assert reason(both, FROM_OFFICE._replace(certificate_sha256=CERTIFICATE)) is Reason.ACTIVE
    assert reason(both, FROM_OFFICE) is Reason.CERTIFICATE_MISMATCH
    assert reason(both, Evidence(certificate_sha256=CERTIFICATE)) is Reason.NETWORK_MISMATCH


@pytest.mark.parametrize("of", [FROM_SOMEWHERE, WITH_CERTIFICATE])
def test_bound_token_is_refused_where_nothing_is_known_of_the_call(of: TokenRecord) -> None:
    """Whoever forgets to say where a call comes from denies it."""
    assert judge(of, proved=True, verifier="orders", required=(), now=NOW).reason is not Reason.ACTIVE


@pytest.mark.parametrize("of", [FROM_SOMEWHERE, WITH_CERTIFICATE])
def test_verifier_that_compares_itself_hears_that_the_token_is_good(of: TokenRecord) -> None:
    assert reason(of, None) is Reason.ACTIVE
    assert reason(of, None, required=("billing",)) is Reason.SCOPE_MISSING


def test_from_elsewhere_nobody_is_told_which_scopes_a_token_lacks() -> None:
    assert reason(FROM_SOMEWHERE, required=("billing",)) is Reason.NETWORK_MISMATCH
    assert reason(WITH_CERTIFICATE, required=("billing",)) is Reason.CERTIFICATE_MISMATCH


def test_unbound_token_matches_every_call() -> None:
    assert not is_bound(RECORD)
    assert mismatch(RECORD, NO_EVIDENCE) is None
    assert is_bound(FROM_SOMEWHERE)
    assert is_bound(WITH_CERTIFICATE)


# Each fault alone, in the order of the questions.
FAULTS = ["secret", "revoked", "ended", "audience", "network", "certificate", "scope"]
REASONS = [
    Reason.SECRET_MISMATCH,
    Reason.REVOKED,
    Reason.IDLE,
    Reason.AUDIENCE_MISMATCH,
    Reason.NETWORK_MISMATCH,
    Reason.CERTIFICATE_MISMATCH,
    Reason.SCOPE_MISSING,
]


@given(st.sets(st.sampled_from(FAULTS)))
def test_first_question_that_fails_is_the_answer(faults: set[str]) -> None:
    of = FROM_SOMEWHERE._replace(
        revoked_at=NOW if "revoked" in faults else None,
        idle_expires_at=NOW if "ended" in faults else NOW + INSTANT,
        audiences=("billing",) if "audience" in faults else ("orders",),
        scopes=() if "scope" in faults else ("orders.read",),
        certificate_sha256=CERTIFICATE,
    )
    evidence = Evidence(
        "192.168.0.1" if "network" in faults else "192.0.2.9", b"" if "certificate" in faults else CERTIFICATE
    )
    expected = next((r for fault, r in zip(FAULTS, REASONS, strict=True) if fault in faults), Reason.ACTIVE)
    assert reason(of, evidence, proved="secret" not in faults, required=("orders.read",)) is expected
