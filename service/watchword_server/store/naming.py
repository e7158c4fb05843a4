"""Which tokens revocations name, level by level, and which of those each of them ends.

First what the selectors name; then, for a cascade, what those issued and their successors; and what is tied to a
lineage that ended, in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from watchword.token import format_token_id
from watchword_server.rules.grants import covering_grant
from watchword_server.rules.tokens import Grant
from watchword_server.store.administrators import administers
from watchword_server.store.contract import Revocation
from watchword_server.store.event_contract import Event
from watchword_server.store.rows import grants_of, new_event_id


class Share:
    """One revocation's part: what it may end, and what it came to."""

    def __init__(self, revocation: Revocation) -> None:
        self.revocation = revocation
        self.named = revocation.selector.token_id
        self.event_id = new_event_id()
        self.count = 0
        self.out_of_reach = 0
        self.refused = False
        self.ended_administrator = False
        self.left_lineage: UUID | None = None
        """Of the token that it named, if that one has a successor, which is left alone."""
        self.behind: set[UUID] = set()
        """Whose issued tokens, and whose successors, come next."""
        self.lineages: set[UUID] = set()
        """What is tied to these comes next."""
        self._successors: set[UUID] = set()
        self._met_successors: set[UUID] = set()
        self._met: set[UUID] = set()
        if revocation.cascade and self.named is not None:
            # Its row may be gone, purged with its partition, while what it issued lives on.
            self.behind.add(self.named)

    @property
    def may_name(self) -> bool:
        """Whether verifiers are told which token it names. A wrong secret, or one out of reach, makes nothing less
        valid; told of it, they would end the streams of a good token.
        (test_out_of_reach_moves_the_position_and_names_nothing)"""
        return self.revocation.proved is not False and not self.refused

    @property
    def keeps_an_administrator(self) -> bool:
        """Whether it is to be refused if none is left."""
        return self.ended_administrator and not self.revocation.force and self.revocation.selector.issued_before is None

    def ends(self, row: Any, live: bool) -> bool:
        """Whether this revocation ends the token of a row that it names, which is live or was revoked before.

        A cascade goes on behind every token it meets, also one that was revoked before or lies out of reach: what that
        one issued may be live and within reach. Not behind the one token that it named by id, if that lies out of
        reach: then it is refused.
        """
        token_id, cascade = row["id"], self.revocation.cascade
        self._follow(row)
        if not (live or cascade) or self._spares(token_id):
            return False
        if cascade:
            # Issue makes no rings, but whoever writes rows by hand could.
            if token_id in self._met:
                return False
            self._met.add(token_id)
        presented = self.revocation.proved is True and token_id == self.named
        if presented or _within_reach(row, self.revocation.within):
            return self._end(row, live)
        self.out_of_reach += live
        if token_id == self.named:
            self.refused, self.out_of_reach = True, 1
            self.behind.clear()
        else:
            self._go_on_behind(token_id)
        return False

    def ends_tied(self, row: Any, live: bool) -> bool:
        """The same for a token that is tied to a lineage which ended: it has no life of its own, and no grant needs to
        cover it."""
        return live and not self._spares(row["id"]) and self._end(row, live)

    def _end(self, row: Any, live: bool) -> bool:
        self.count += live
        if live and row["unexpired"]:
            self.ended_administrator |= administers(
                scopes=row["scopes"], audiences=row["audiences"], gives=row["grants"] is not None
            )
        self._go_on_behind(row["id"])
        return live

    def _follow(self, row: Any) -> None:
        """Sees to it that a successor is met as well where the old token is not named by its own id: it may have been
        stored after this level's statement had begun, by a rotation that this one then waited for.

        A cascade finds it behind the old one. (test_a_subjects_revocation_ends_the_successor_that_is_just_being_made)
        """
        if self.revocation.cascade:
            return
        if row["predecessor_id"] is not None:
            self._met_successors.add(row["id"])
        if row["successor_id"] is not None:
            if row["id"] == self.named:
                self.left_lineage = row["lineage_id"] or row["id"]
            else:
                self._successors.add(row["successor_id"])

    def successors(self) -> set[UUID]:
        """Those that were not met yet, and come next."""
        unmet = self._successors - self._met_successors
        self._successors.clear()
        return unmet

    def names_successor(self, row: Any) -> bool:
        """Whether it would name a successor by itself: those share the subject, the owner and the issuer, not the
        age."""
        issued_before = self.revocation.selector.issued_before
        return issued_before is None or row["created_at"] < issued_before

    def _spares(self, token_id: UUID) -> bool:
        """Whoever ends everything keeps the token they do it with, and what that issues anew."""
        return self.revocation.selector.issued_before is not None and token_id == self.revocation.actor.token_id

    def _go_on_behind(self, token_id: UUID) -> None:
        if self.revocation.cascade:
            self.behind.add(token_id)

    def deed(self) -> Event:
        """What was done, all in all."""
        selector = self.revocation.selector
        details = {"count": str(self.count), "reason": self.revocation.reason}
        if selector.subject is not None:
            details["subject"] = selector.subject
        if selector.issued_by is not None:
            details["issued_by"] = format_token_id(selector.issued_by)
        if selector.issued_before is not None:
            details["issued_before"] = selector.issued_before.isoformat()
        if self.revocation.cascade:
            details["cascade"] = "true"
        action = "block_subject" if self.revocation.block else "revoke"
        return Event(action, self.revocation.actor, self.named, details, event_id=self.event_id)

    def end_of(self, row: Any, *, tied: bool) -> Event:
        """The end of one token beside the named one, so that a token's own events tell it, however it came. For every
        one, however many: after a restore from a backup, these events say what has to be ended again."""
        details = {"reason": self.revocation.reason, "by_event": str(self.event_id)}
        if tied:
            details["tied_to"] = format_token_id(row["tied_to"])
        return Event("revoke", self.revocation.actor, row["id"], details)


def _within_reach(row: Any, grants: Sequence[Grant]) -> bool:
    passed_on = () if row["grants"] is None else grants_of(row["grants"])
    within = covering_grant(
        grants,
        subject=row["subject"],
        scopes=row["scopes"],
        audiences=row["audiences"],
        grants=passed_on,
        owner=row["owner"] or "",
    )
    return within is not None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is named at one level, and by whom."""

    ids: Mapping[UUID, Sequence[Share]] = field(default_factory=dict)
    subjects: Mapping[str, Sequence[Share]] = field(default_factory=dict)
    """Also as owners."""
    issuers: Mapping[UUID, Sequence[Share]] = field(default_factory=dict)
    aged: Sequence[tuple[datetime, Share]] = ()
    behind: Mapping[UUID, Sequence[Share]] = field(default_factory=dict)
    """As issuers and as predecessors."""
    successors: Mapping[UUID, Sequence[Share]] = field(default_factory=dict)
    lineages: Mapping[UUID, Sequence[Share]] = field(default_factory=dict)
    """What is tied to them."""
    revoked_too: bool = False

    @property
    def names_any(self) -> bool:
        """Whether there is anything to look for."""
        return not self.only_ids or bool(self.ids or self.successors)

    @property
    def only_ids(self) -> bool:
        """Whether all is named by id."""
        return not (self.subjects or self.issuers or self.aged or self.behind or self.lineages)

    def by(self, row: Any) -> Iterator[Share]:
        """Who names the token of a row, save as tied to a lineage."""
        found = [*self.ids.get(row["id"], ())]
        found += (share for share in self.successors.get(row["id"], ()) if share.names_successor(row))
        if not self.only_ids:
            found += self.subjects.get(row["subject"], ())
            found += self.subjects.get(row["owner"], ())
            found += self.issuers.get(row["issued_by"], ())
            found += self.behind.get(row["issued_by"], ())
            # Whoever rotates another's token gets a secret from it, as whoever issues one does
            # (test_what_a_token_rotated_of_others_goes_with_what_it_issued).
            found += self.issuers.get(row["rotated_by"], ())
            found += self.behind.get(row["rotated_by"], ())
            found += self.behind.get(row["predecessor_id"], ())
            found += (share for issued_before, share in self.aged if row["created_at"] < issued_before)
        # Each once, however many ways it names it.
        return iter(dict.fromkeys(found))

    def by_tie(self, row: Any) -> Sequence[Share]:
        """Who ended the lineage that it is tied to."""
        return self.lineages.get(row["tied_to"], ())


def first(shares: Sequence[Share]) -> Asked:
    """What the selectors name."""
    ids: dict[UUID, list[Share]] = {}
    subjects: dict[str, list[Share]] = {}
    issuers: dict[UUID, list[Share]] = {}
    aged: list[tuple[datetime, Share]] = []
    for share in shares:
        selector = share.revocation.selector
        if share.revocation.proved is False:
            share.behind.clear()
        elif selector.token_id is not None:
            ids.setdefault(selector.token_id, []).append(share)
        elif selector.subject is not None:
            subjects.setdefault(selector.subject, []).append(share)
        elif selector.issued_by is not None:
            issuers.setdefault(selector.issued_by, []).append(share)
        elif selector.issued_before is not None:
            aged.append((selector.issued_before, share))
    return Asked(ids, subjects, issuers, aged, revoked_too=any(share.revocation.cascade for share in shares))


def then(shares: Sequence[Share]) -> Asked:
    """What comes behind the level before."""
    behind: dict[UUID, list[Share]] = {}
    successors: dict[UUID, list[Share]] = {}
    lineages: dict[UUID, list[Share]] = {}
    for share in shares:
        for token_id in share.behind:
            behind.setdefault(token_id, []).append(share)
        for token_id in share.successors():
            successors.setdefault(token_id, []).append(share)
        for lineage in share.lineages:
            lineages.setdefault(lineage, []).append(share)
        share.behind.clear()
        share.lineages.clear()
    return Asked(behind=behind, successors=successors, lineages=lineages, revoked_too=bool(behind))
