"""Is this token good, here and now, for this verifier, and for what?

The order of the questions is part of security: what a caller without the secret can learn must not depend on the row,
so the secret is proved before anything else about the row is looked at.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from watchword.network import Networks
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
    IDLE = "idle"
    ROTATED = "rotated"
    NETWORK_MISMATCH = "network_mismatch"
    CERTIFICATE_MISMATCH = "certificate_mismatch"


ENDED: Final = frozenset({Reason.EXPIRED, Reason.REVOKED, Reason.IDLE, Reason.ROTATED})
"""What no token comes back from."""


class Evidence(NamedTuple):
    """What is known of where a call comes from, for tokens that are bound. Empty: not known, and then no match."""

    address: str = ""
    """Without port."""
    certificate_sha256: bytes = b""


NO_EVIDENCE: Final = Evidence()


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


def is_bound(record: TokenRecord) -> bool:
    """Whether calls with this token have to come from somewhere, or with some certificate."""
    return bool(record.allowed_networks or record.certificate_sha256)


def mismatch(record: TokenRecord, evidence: Evidence) -> Reason | None:
    """Which of a token's bindings a call does not match; None: it matches all."""
    if record.allowed_networks and not Networks(record.allowed_networks).hold(evidence.address):
        return Reason.NETWORK_MISMATCH
    bound_to = record.certificate_sha256
    if bound_to and not hmac.compare_digest(bound_to, evidence.certificate_sha256):
        return Reason.CERTIFICATE_MISMATCH
    return None


def judge(
    record: TokenRecord | None,
    *,
    proved: bool,
    verifier: str,
    required: Sequence[str],
    now: datetime,
    evidence: Evidence | None = NO_EVIDENCE,
) -> Verdict:
    """Judges a looked-up token.

    `proved` says that the presented secret is the record's; `now` is the database's clock at the read. A token ends at
    `expires_at`, a session also at `idle_expires_at`: at that very instant it has ended. `evidence` None: whoever asked
    compares the bindings itself, with each call.
    """
    if record is None:
        return Verdict(Reason.UNKNOWN)
    if not proved:
        return Verdict(Reason.SECRET_MISMATCH, record)
    if record.revoked_at is not None:
        return Verdict(Reason.REVOKED, record)
    idle_expires_at = record.idle_expires_at
    if now >= record.expires_at or (idle_expires_at is not None and now >= idle_expires_at):
        return Verdict(_end(record, now), record)
    if not serves_audience(record.audiences, verifier):
        return Verdict(Reason.AUDIENCE_MISMATCH, record)
    if evidence is not None and is_bound(record):
        mismatched = mismatch(record, evidence)
        if mismatched is not None:
            return Verdict(mismatched, record)
    if required:
        missing = missing_scopes(record.scopes, required)
        if missing:
            return Verdict(Reason.SCOPE_MISSING, record, missing)
    return Verdict(Reason.ACTIVE, record)


def _end(record: TokenRecord, now: datetime) -> Reason:
    """How a token ended that was not revoked."""
    if record.successor_id is not None:
        return Reason.ROTATED
    return Reason.EXPIRED if now >= record.expires_at else Reason.IDLE
