"""What happens inside the transaction that revocations share: tokens are ended, that is recorded, a position taken.

Level by level: first what the selectors name, then what those issued, each after its issuers are locked. All that the
revocations name at one level is locked by one query, in order of id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from watchword.token import format_token_id
from watchword_server.rules.grants import covering_grant
from watchword_server.rules.tokens import Grant
from watchword_server.store.contract import Position, Revocation, Revoked
from watchword_server.store.database import Connection, query
from watchword_server.store.recording import Event, record
from watchword_server.store.rows import grants_of, new_event_id

# So many are in memory at a time, whatever a revocation ends, and everybody else's calls get their turns between them.
_ROWS_AT_A_TIME: Final = 500
# To name more than so many to every verifier takes longer than to have them forget all.
CHANGES_MAX: Final = 100_000


async def end_together(connection: Connection, revocations: Sequence[Revocation]) -> list[Revoked]:
    """Ends what the revocations name, each within its reach, in the transaction under way; what each came to.

    A token that two of them name is ended by one, and was revoked before for the other.
    """
    shares = [_Share(revocation) for revocation in revocations]
    # Who ends everything within reach may end one token or a million: no verifier is told which.
    wide = any(share.revocation.selector.issued_before is not None for share in shares)
    changes = _Changes(0 if wide else CHANGES_MAX)
    asked = _first(shares)
    while asked.names_any:
        async for rows in _candidates(connection, asked):
            changes.add(await _end(connection, asked, rows))
        asked = _behind(shares)
    await record(connection, [share.deed() for share in shares])
    # A revocation that names a token always writes: whoever waits for the position waits for every verifier, whether
    # this call, an earlier one, or nobody ended the token.
    changes.add(share.named for share in shares if share.named is not None and share.may_name)
    if changes.token_ids or changes.everything or any(share.named is not None for share in shares):
        row = await connection.fetchrow(query("revoke_position"), changes.everything, list(changes.token_ids))
    else:
        row = await connection.fetchrow(query("position"))
    position = Position(row["epoch"], row["position"])
    return [Revoked(share.count, share.out_of_reach, position, share.refused) for share in shares]


class _Share:
    """One revocation's part: what it may end, and what it came to."""

    def __init__(self, revocation: Revocation) -> None:
        self.revocation = revocation
        self.named = revocation.selector.token_id
        self.event_id = new_event_id()
        self.count = 0
        self.out_of_reach = 0
        self.refused = False
        self.behind: set[UUID] = set()
        """Whose issued tokens come next."""
        self._met: set[UUID] = set()
        if revocation.cascade and self.named is not None:
            # Its row may be gone, purged with its partition, while what it issued lives on.
            self.behind.add(self.named)

    @property
    def may_name(self) -> bool:
        """Whether verifiers are told which token it names. A wrong secret, or one out of reach, makes nothing less
        valid; told of it, they would end the streams of a good token. (test_out_of_reach_moves_the_position...)"""
        return self.revocation.proved is not False and not self.refused

    def ends(self, row: Any, live: bool) -> bool:
        """Whether this revocation ends the token of a row that it names, which is live or was revoked before.

        A cascade goes on behind every token it meets, also one that was revoked before or lies out of reach: what that
        one issued may be live and within reach. Not behind the one token that it named by id, if that lies out of
        reach: then it is refused.
        """
        token_id, cascade = row["id"], self.revocation.cascade
        if not (live or cascade) or self._spares(token_id):
            return False
        if cascade:
            # Issue makes no rings, but whoever writes rows by hand could.
            if token_id in self._met:
                return False
            self._met.add(token_id)
        presented = self.revocation.proved is True and token_id == self.named
        if presented or _within_reach(row, self.revocation.within):
            self.count += live
            self._go_on_behind(token_id)
            return live
        self.out_of_reach += live
        if token_id == self.named:
            self.refused, self.out_of_reach = True, 1
            self.behind.clear()
        else:
            self._go_on_behind(token_id)
        return False

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
        return Event("revoke", self.revocation.actor, self.named, details, event_id=self.event_id)

    def end_of(self, token_id: UUID) -> Event:
        """The end of one token beside the named one, so that a token's own events tell it, however it came. For every
        one, however many: after a restore from a backup, these events say what has to be ended again."""
        details = {"reason": self.revocation.reason, "by_event": str(self.event_id)}
        return Event("revoke", self.revocation.actor, token_id, details)


def _within_reach(row: Any, grants: Sequence[Grant]) -> bool:
    passed_on = () if row["grants"] is None else grants_of(row["grants"])
    return (
        covering_grant(
            grants, subject=row["subject"], scopes=row["scopes"], audiences=row["audiences"], grants=passed_on
        )
        is not None
    )


class _Changes:
    """The tokens that a position is about; where they are more than `ids_max`, it stands for all there are."""

    def __init__(self, ids_max: int) -> None:
        self._ids_max = ids_max
        self.token_ids: set[UUID] = set()
        self.everything = False

    def add(self, token_ids: Iterable[UUID]) -> None:
        if self.everything:
            return
        self.token_ids.update(token_ids)
        if len(self.token_ids) > self._ids_max:
            self.everything = True
            self.token_ids.clear()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is named at one level, and by whom."""

    ids: Mapping[UUID, Sequence[_Share]] = field(default_factory=dict)
    subjects: Mapping[str, Sequence[_Share]] = field(default_factory=dict)
    issuers: Mapping[UUID, Sequence[_Share]] = field(default_factory=dict)
    aged: Sequence[tuple[datetime, _Share]] = ()
    revoked_too: bool = False

    @property
    def names_any(self) -> bool:
        return bool(self.ids or self.subjects or self.issuers or self.aged)

    @property
    def only_ids(self) -> bool:
        return not (self.subjects or self.issuers or self.aged)

    def by(self, row: Any) -> Sequence[_Share]:
        """Who names the token of a row."""
        found = self.ids.get(row["id"], ())
        if self.only_ids:
            return found
        return [
            *found,
            *self.subjects.get(row["subject"], ()),
            *self.issuers.get(row["issued_by"], ()),
            *(share for issued_before, share in self.aged if row["created_at"] < issued_before),
        ]


def _first(shares: Sequence[_Share]) -> _Asked:
    ids: dict[UUID, list[_Share]] = {}
    subjects: dict[str, list[_Share]] = {}
    issuers: dict[UUID, list[_Share]] = {}
    aged: list[tuple[datetime, _Share]] = []
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
    return _Asked(ids, subjects, issuers, aged, any(share.revocation.cascade for share in shares))


def _behind(shares: Sequence[_Share]) -> _Asked:
    issuers: dict[UUID, list[_Share]] = {}
    for share in shares:
        for token_id in share.behind:
            issuers.setdefault(token_id, []).append(share)
        share.behind.clear()
    return _Asked(issuers=issuers, revoked_too=True)


async def _candidates(connection: Connection, asked: _Asked) -> AsyncIterator[Sequence[Any]]:
    if asked.only_ids:
        # As many as revocations share the transaction.
        yield await connection.fetch(query("revoke_named"), list(asked.ids), asked.revoked_too)
        return
    cursor = await connection.cursor(
        query("revoke_candidates"),
        list(asked.ids),
        list(asked.subjects),
        list(asked.issuers),
        max((issued_before for issued_before, _ in asked.aged), default=None),
        asked.revoked_too,
    )
    while rows := await cursor.fetch(_ROWS_AT_A_TIME):
        yield rows


async def _end(connection: Connection, asked: _Asked, rows: Sequence[Any]) -> list[UUID]:
    ended: list[UUID] = []
    reasons: list[str] = []
    events: list[Event] = []
    for row in rows:
        token_id: UUID = row["id"]
        live = row["revoked_at"] is None
        for share in asked.by(row):
            if share.ends(row, live):
                live = False
                ended.append(token_id)
                reasons.append(share.revocation.reason)
                if token_id != share.named:
                    events.append(share.end_of(token_id))
    if ended:
        await connection.execute(query("revoke_mark"), ended, reasons)
    if events:
        await record(connection, events)
    return ended
