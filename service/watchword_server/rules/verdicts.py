"""Is this token good, here and now, for this verifier, and for what?

The order of the questions is part of security: what a caller without the secret can learn must not depend on the row,
so the secret is proved before anything else about the row is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from watchword.scope import missing_scopes
from watchword_server.rules.tokens import WATCHWORD, TokenRecord


class Reason(StrEnum):
    """Why a token is, or is not, accepted. The values are metric labels and the names those of the proto enum."""

    ACTIVE = "active"
    SCOPE_MISSING = "scope_missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    SECRET_MISMATCH = "secret_mismatch"  # noqa: S105  # a label
    EXPIRED = "expired"
    REVOKED = "revoked"
    AUDIENCE_MISMATCH = "audience_mismatch"


class Verdict(NamedTuple):
    """An answer, not an exception. Not to be truth-tested: `if verdict:` would be a fail-open check."""

    reason: Reason
    record: TokenRecord | None = None
    missing: Sequence[str] = ()

    def __bool__(self) -> bool:
        raise TypeError("a verdict has no truth value: compare its reason")


_MALFORMED = Verdict(Reason.MALFORMED)


def malformed() -> Verdict:
    """The verdict on text that is not a token."""
    return _MALFORMED


def serves_audience(audiences: Sequence[str], verifier: str) -> bool:
    """Whether a token with these audiences is meant for `verifier`. `*` is everyone but Watchword itself."""
    return verifier in audiences or ("*" in audiences and verifier != WATCHWORD)


def judge(
    record: TokenRecord | None, *, proved: bool, verifier: str, required: Sequence[str], now: datetime
) -> Verdict:
    """Judges a looked-up token.

    `proved` says that the presented secret is the record's; `now` is the database's clock at the read. A token ends at
    `expires_at`: at that very instant it is expired.
    """
    if record is None:
        return Verdict(Reason.UNKNOWN)
    if not proved:
        return Verdict(Reason.SECRET_MISMATCH, record)
    if record.revoked_at is not None:
        return Verdict(Reason.REVOKED, record)
    if now >= record.expires_at:
        return Verdict(Reason.EXPIRED, record)
    if not serves_audience(record.audiences, verifier):
        return Verdict(Reason.AUDIENCE_MISMATCH, record)
    if required:
        missing = missing_scopes(record.scopes, required)
        if missing:
            return Verdict(Reason.SCOPE_MISSING, record, missing)
    return Verdict(Reason.ACTIVE, record)
