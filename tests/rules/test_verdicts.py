"""Every reason for which a token is, or is not, accepted, and the order in which they are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import Reason, Verdict, judge, malformed, serves_audience

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


def record(
    *,
    expires_at: datetime = NOW + timedelta(days=1),
    revoked_at: datetime | None = None,
    audiences: tuple[str, ...] = ("orders",),
    scopes: tuple[str, ...] = ("orders.read",),
    metadata: Mapping[str, str] | None = None,
) -> TokenRecord:
    return TokenRecord(
        token_id=UUID(int=1),
        pepper_version=1,
        digest=b"the digest, never to be shown...",
        subject="caller",
        audiences=audiences,
        scopes=scopes,
        grants=(),
        created_at=NOW - timedelta(days=1),
        expires_at=expires_at,
        revoked_at=revoked_at,
        metadata=metadata or {},
    )


def reason(
    of: TokenRecord | None, *, proved: bool = True, verifier: str = "orders", required: tuple[str, ...] = ()
) -> Reason:
    return judge(of, proved=proved, verifier=verifier, required=required, now=NOW).reason


def test_good_token_is_active() -> None:
    good = record()
    assert judge(good, proved=True, verifier="orders", required=["orders.read"], now=NOW) == Verdict(
        Reason.ACTIVE, good
    )


def test_token_that_is_not_there_is_unknown() -> None:
    assert judge(None, proved=False, verifier="orders", required=[], now=NOW) == Verdict(Reason.UNKNOWN)
    assert judge(None, proved=True, verifier="orders", required=[], now=NOW) == Verdict(Reason.UNKNOWN)


def test_text_that_is_no_token_is_malformed() -> None:
    assert malformed() == Verdict(Reason.MALFORMED)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (INSTANT, Reason.ACTIVE),
        (timedelta(), Reason.EXPIRED),
        (-INSTANT, Reason.EXPIRED),
        (-timedelta(days=400), Reason.EXPIRED),
    ],
)
def test_token_ends_at_the_very_instant(left: timedelta, expected: Reason) -> None:
    assert reason(record(expires_at=NOW + left)) is expected


def test_token_ends_at_the_same_instant_in_every_time_zone() -> None:
    """Instants are compared, not what clocks on walls show."""
    from_elsewhere = NOW.astimezone(tz=None)
    assert reason(record(expires_at=from_elsewhere)) is Reason.EXPIRED
    assert reason(record(expires_at=from_elsewhere + INSTANT)) is Reason.ACTIVE


@pytest.mark.parametrize("revoked_at", [NOW - timedelta(days=1), NOW, NOW + timedelta(days=1)])
def test_revoked_token_is_inactive_even_if_unexpired_and_whatever_the_clock_says(revoked_at: datetime) -> None:
    assert reason(record(revoked_at=revoked_at)) is Reason.REVOKED


@pytest.mark.parametrize(
    ("audiences", "verifier", "served"),
    [
        (("orders",), "orders", True),
        (("billing", "orders"), "orders", True),
        (("orders",), "Orders", False),
        (("orders",), "orders2", False),
        (("orders/*",), "orders/a", False),
        (("*",), "orders", True),
        (("*",), "watchword", False),
        (("*", "watchword"), "watchword", True),
        (("watchword",), "watchword", True),
        (("watchword",), "orders", False),
        ((), "orders", False),
        (("orders",), "", False),
    ],
)
def test_token_serves_the_audiences_it_names(audiences: tuple[str, ...], verifier: str, served: bool) -> None:
    assert serves_audience(audiences, verifier) is served
    expected = Reason.ACTIVE if served else Reason.AUDIENCE_MISMATCH
    assert reason(record(audiences=audiences), verifier=verifier) is expected


def test_missing_scopes_are_named_in_the_order_asked() -> None:
    verdict = judge(record(), proved=True, verifier="orders", required=["z", "orders.read", "a"], now=NOW)
    assert (verdict.reason, list(verdict.missing)) == (Reason.SCOPE_MISSING, ["z", "a"])


def test_wildcard_held_covers_what_lies_below() -> None:
    assert reason(record(scopes=("orders.*",)), required=("orders.read", "orders.items.read")) is Reason.ACTIVE
    assert reason(record(scopes=("*",)), required=("watchword.issue",)) is Reason.SCOPE_MISSING


# Each fault alone, in the order of the questions. The secret comes first: without it the answer must not depend on
# anything else in the row.
FAULTS = ["secret", "revoked", "expired", "audience", "scope"]
REASONS = [
    Reason.SECRET_MISMATCH,
    Reason.REVOKED,
    Reason.EXPIRED,
    Reason.AUDIENCE_MISMATCH,
    Reason.SCOPE_MISSING,
]


@given(st.sets(st.sampled_from(FAULTS)))
def test_first_question_that_fails_is_the_answer(faults: set[str]) -> None:
    of = record(
        revoked_at=NOW if "revoked" in faults else None,
        expires_at=NOW if "expired" in faults else NOW + INSTANT,
        audiences=("billing",) if "audience" in faults else ("orders",),
        scopes=() if "scope" in faults else ("orders.read",),
    )
    expected = next((r for fault, r in zip(FAULTS, REASONS, strict=True) if fault in faults), Reason.ACTIVE)
    assert reason(of, proved="secret" not in faults, required=("orders.read",)) is expected


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.lists(st.sampled_from(["orders", "*", "watchword"])).map(tuple),
    st.lists(st.sampled_from(["orders.read", "*"])).map(tuple),
)
def test_without_the_secret_nothing_about_the_row_matters(
    expires_at: datetime, revoked_at: datetime | None, audiences: tuple[str, ...], scopes: tuple[str, ...]
) -> None:
    of = record(expires_at=expires_at, revoked_at=revoked_at, audiences=audiences, scopes=scopes)
    assert reason(of, proved=False, required=("orders.read",)) is Reason.SECRET_MISMATCH


@pytest.mark.parametrize("of", [record(), None])
def test_verdict_has_no_truth_value(of: TokenRecord | None) -> None:
    """`if verdict:` would admit everybody."""
    verdict = judge(of, proved=True, verifier="orders", required=[], now=NOW)
    with pytest.raises(TypeError, match="compare its reason"):
        bool(verdict)
    with pytest.raises(TypeError):
        _ = "admitted" if verdict else "refused"


def test_verdict_and_record_show_no_digest() -> None:
    verdict = judge(record(), proved=True, verifier="orders", required=[], now=NOW)
    assert "never to be shown" not in repr(verdict) + str(verdict) + repr(record()) + f"{record()}"
