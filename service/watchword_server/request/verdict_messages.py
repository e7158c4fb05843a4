"""What is said of a token that was judged: to its verifier, and to operators."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from watchword.token import ParsedToken
from watchword.v1 import token_service_pb2 as pb
from watchword_server.request.messages import duration_message
from watchword_server.rules.verdicts import Reason, Verdict
from watchword_server.store.contract import Snapshot

# How long a verifier under a live lease may keep an answer: ValidateResponse.cacheable_for.
CACHEABLE_ACTIVE_MAX: Final = timedelta(hours=1)
CACHEABLE_INACTIVE_SECONDS: Final = 60
_CACHEABLE_ACTIVE_SECONDS: Final = int(CACHEABLE_ACTIVE_MAX.total_seconds())

REASONS: Final[Mapping[Reason, pb.VerdictReason.ValueType]] = {
    reason: pb.VerdictReason.Value(f"VERDICT_REASON_{reason.name}") for reason in Reason
}


def fill_verdict(
    message: pb.ValidateResponse,
    verdict: Verdict,
    token: ParsedToken | None,
    snapshot: Snapshot,
    *,
    of_one_call: bool = False,
) -> None:
    """What a verifier is told of a token it presented. Every reason for "no" looks the same.

    `of_one_call`: the token is bound and was judged by what one call came with, which says nothing about the next one.
    (test_a_bound_token_judged_here_is_never_cached)

    The message is filled in place: building nested messages first and copying them costs twice as much.
    """
    position = message.position
    position.epoch = snapshot.position.epoch.bytes
    position.number = snapshot.position.number
    reason, record = verdict.reason, verdict.record
    if reason is Reason.ACTIVE:
        active = message.active
    elif reason is Reason.SCOPE_MISSING:
        message.insufficient.missing_scopes.extend(verdict.missing)
        active = message.insufficient.token
    else:
        message.inactive.SetInParent()
        # Not by `of_one_call`: a wrong secret must not look otherwise where the token is bound.
        if reason is not Reason.NETWORK_MISMATCH and reason is not Reason.CERTIFICATE_MISMATCH:
            message.cacheable_for.seconds = CACHEABLE_INACTIVE_SECONDS
        return
    assert record is not None
    assert token is not None
    active.token_id = token.id_text
    active.subject = record.subject
    active.scopes.extend(record.scopes)
    active.audiences.extend(record.audiences)
    if record.metadata:
        active.metadata.update(record.metadata)
    idle_expires_at = record.idle_expires_at
    life = cacheable = (record.expires_at if idle_expires_at is None else record.ends_at) - snapshot.now
    remaining = active.remaining
    remaining.seconds = life.days * 86_400 + life.seconds
    remaining.nanos = life.microseconds * 1000
    if of_one_call:
        return
    if record.allowed_networks or record.certificate_sha256:
        active.bindings.allowed_networks.extend(record.allowed_networks)
        active.bindings.certificate_sha256 = record.certificate_sha256
    if idle_expires_at is not None:
        # A session that is in use comes back to be counted before it would end for want of use.
        cacheable = min(life, (idle_expires_at - snapshot.now) / 2)
    if cacheable < CACHEABLE_ACTIVE_MAX:
        message.cacheable_for.CopyFrom(duration_message(cacheable))
    else:
        message.cacheable_for.seconds = _CACHEABLE_ACTIVE_SECONDS


def explanation_message(verdict: Verdict) -> pb.Explanation:
    """What an operator is told."""
    return pb.Explanation(reason=REASONS[verdict.reason], missing_scopes=verdict.missing)
