"""Who is calling Watchword itself. The same rules as for everyone's callers, with the audience `watchword`."""

from __future__ import annotations

from collections.abc import Callable

from watchword.token import ParsedToken
from watchword_server.answer.errors import CallerUnknownError, ScopeMissingError
from watchword_server.answer.proof import Digests, examine
from watchword_server.rules.tokens import WATCHWORD, TokenRecord
from watchword_server.rules.verdicts import NO_EVIDENCE, Evidence, Reason, is_bound
from watchword_server.store.contract import Snapshot


def authenticate(
    digests: Digests,
    token: ParsedToken,
    snapshot: Snapshot,
    *,
    required: tuple[str, ...],
    evidence: Callable[[], Evidence] = lambda: NO_EVIDENCE,
    rotated_presented: Callable[[TokenRecord], None] = lambda record: None,
) -> TokenRecord:
    """The caller's record, or CallerUnknownError, ScopeMissingError, PepperUnknownError.

    `evidence` says where the call comes from; it is asked only about callers with bound tokens. `rotated_presented`
    hears of a rotated token that was presented after its end.

    A token good for other services only is refused here as any inactive one: a service cannot replay to Watchword a
    bearer token that it received (test_token_for_another_audience_is_refused).
    """
    # The same whole token at the same snapshot gets the same answer; only acceptance is kept, and only as long as the
    # snapshot is.
    known = snapshot.authenticated.get((token.text, required))
    if known is not None:
        return known
    row = snapshot.rows.get(token.token_id)
    bound = row is not None and is_bound(row)
    verdict = examine(
        digests, token, snapshot, verifier=WATCHWORD, required=required, evidence=evidence() if bound else None
    )
    if verdict.reason is Reason.ACTIVE:
        assert verdict.record is not None
        # Another call with a bound token may come from elsewhere (test_a_bound_callers_token_is_good_from_there_only).
        if not bound:
            snapshot.authenticated[token.text, required] = verdict.record
        return verdict.record
    if verdict.reason is Reason.SCOPE_MISSING:
        raise ScopeMissingError(verdict.missing[0])
    if verdict.reason is Reason.ROTATED and verdict.record is not None:
        rotated_presented(verdict.record)
    raise CallerUnknownError("TOKEN_INACTIVE", "the calling token is not active, or not meant for Watchword")
