"""Nobody gives what they do not hold: whether a request to issue (or revoke) lies within one grant of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from watchword.scope import covers as scope_covers
from watchword_server.rules.tokens import WATCHWORD, Grant, TokenRecord

_SEPARATORS = (".*", "/*", ":*")


def name_covers(held: str, wanted: str) -> bool:
    """Whether a subject or audience pattern covers a name, or a pattern at most as wide.

    `team/*`, `team.*` and `team:*` cover what lies below; `*` covers everything except `watchword`, which, as with
    scopes, has to be written out.
    """
    if held == wanted:
        return True
    if held == "*":
        return wanted != WATCHWORD
    if held.endswith(_SEPARATORS):
        return wanted.startswith(held[:-1]) and len(wanted) >= len(held)
    return False


def _all_covered(held: Sequence[str], wanted: Iterable[str], covers: Callable[[str, str], bool]) -> bool:
    return all(any(covers(one, want) for one in held) for want in wanted)


def grant_within(wanted: Grant, held: Grant) -> bool:
    """Whether whoever holds `held` may pass `wanted` on."""
    return (
        _all_covered(held.scopes, wanted.scopes, scope_covers)
        and _all_covered(held.subjects, wanted.subjects, name_covers)
        and _all_covered(held.audiences, wanted.audiences, name_covers)
    )


def covering_grant(
    held: Iterable[Grant],
    *,
    subject: str,
    scopes: Sequence[str],
    audiences: Sequence[str],
    grants: Sequence[Grant] = (),
    owner: str = "",
) -> Grant | None:
    """The first of `held` within which all of it lies, or None. An owner is one more subject.

    One grant has to cover everything: two that each cover a half would let a holder combine the scope of one with the
    subject of the other. Held by test_no_sequence_of_issues_escalates.
    """
    wanted = Grant(tuple(scopes), (subject, owner) if owner else (subject,), tuple(audiences))
    for grant in held:
        if grant_within(wanted, grant) and all(grant_within(passed_on, grant) for passed_on in grants):
            return grant
    return None


def covers_token(held: Iterable[Grant], record: TokenRecord) -> bool:
    """Whether a token lies within one of the grants, and so within reach of whoever holds them."""
    within = covering_grant(
        held,
        subject=record.subject,
        scopes=record.scopes,
        audiences=record.audiences,
        grants=record.grants,
        owner=record.owner,
    )
    return within is not None


def covers_subject(held: Iterable[Grant], subject: str) -> bool:
    """Whether one of the grants' subjects covers a subject."""
    return any(name_covers(one, subject) for grant in held for one in grant.subjects)


def covers_scope_name(held: Iterable[Grant], name: str) -> bool:
    """Whether one of the grants' scopes covers a name to be put into the catalogue."""
    return any(scope_covers(scope, name) for grant in held for scope in grant.scopes)
