"""What happens inside the transaction that revocations share: tokens are ended, that is recorded, a position taken.

Level by level (see naming.py), each after the tokens before it are locked: whoever issues or rotates holds their rows,
and what it stores is seen by the next level. All that is named at one level is locked by one query, in order of id. The
lock on the blocked subjects comes before all that, the one on the position's row after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from watchword_server.store.contract import LastAdministratorError, Position, Preview, Revocation, Revoked
from watchword_server.store.database import Connection, query
from watchword_server.store.event_contract import Event
from watchword_server.store.lookups import snapshot_of
from watchword_server.store.naming import Asked, Share, first, then
from watchword_server.store.recording import record

# So many are in memory at a time, whatever a revocation ends, and everybody else's calls get their turns between them.
_ROWS_AT_A_TIME: Final = 500
# To name more than so many to every verifier takes longer than to have them forget all.
CHANGES_MAX: Final = 100_000
PREVIEWED_MAX: Final = 1_000


async def end_together(connection: Connection, revocations: Sequence[Revocation]) -> list[Revoked]:
    """Ends what the revocations name, each within its reach, in the transaction under way; what each came to.

    A token that two of them name is ended by one, and was revoked before for the other. Raises LastAdministratorError.
    """
    shares = [Share(revocation) for revocation in revocations]
    await _block(connection, revocations)
    # Who ends everything within reach may end one token or a million: no verifier is told which.
    wide = any(share.revocation.selector.issued_before is not None for share in shares)
    changes = _Changes(0 if wide else CHANGES_MAX)
    async for ended, events in _walk(connection, shares):
        changes.add(ended)
        await record(connection, events)
    successors = await _live_successors(connection, shares)
    # What is refused is recorded by whoever refuses it.
    await record(connection, [share.deed() for share in shares if not share.refused])
    # A revocation that names a token always writes: whoever waits for the position waits for every verifier, whether
    # this call, an earlier one, or nobody ended the token.
    changes.add(share.named for share in shares if share.named is not None and share.may_name)
    if changes.token_ids or changes.everything or any(share.named is not None for share in shares):
        position = await take_position(connection, list(changes.token_ids), everything=changes.everything)
    else:
        position = await current_position(connection)
    if any(share.keeps_an_administrator for share in shares):
        await check_administrator_left(connection)
    return [
        Revoked(
            share.count,
            share.out_of_reach,
            position,
            share.refused,
            None if share.left_lineage is None else successors.get(share.left_lineage),
        )
        for share in shares
    ]


async def foresee(connection: Connection, revocation: Revocation) -> Preview:
    """What a revocation would come to, in a transaction that is taken back."""
    share = Share(revocation)
    shown: list[UUID] = []
    async for ended, _ in _walk(connection, [share]):
        shown += ended[: PREVIEWED_MAX - len(shown)]
    rows = await connection.fetch(query("read_many"), shown)
    snapshot = snapshot_of(rows)
    # As they were: nothing is revoked.
    records = [record._replace(revoked_at=None, revoke_reason=None) for record in snapshot.rows.values()]
    return Preview(share.count, share.out_of_reach, snapshot.position, records, snapshot.now, share.refused)


async def take_position(connection: Connection, token_ids: Sequence[UUID], *, everything: bool = False) -> Position:
    """The next position, with the tokens that are less valid from there on. Holds its row until the commit, so this
    comes last."""
    row = await connection.fetchrow(query("revoke_position"), everything, token_ids)
    return Position(row["epoch"], row["position"])


async def check_administrator_left(connection: Connection, *, until: datetime | None = None) -> None:
    """Raises LastAdministratorError if there is no live administrator, or none that lives until then.

    After the position was taken: of two transactions that each end one of the last two, the second one sees what the
    first one did (test_of_the_last_two_administrators_one_is_left).
    """
    row = await connection.fetchrow(query("administrators"))
    last_ends_at = row["last_ends_at"]
    if last_ends_at is None or (until is not None and last_ends_at < until):
        raise LastAdministratorError("no administrator would be left")


async def current_position(connection: Connection) -> Position:
    """The position as it stands."""
    row = await connection.fetchrow(query("position"))
    return Position(row["epoch"], row["position"])


async def _block(connection: Connection, revocations: Sequence[Revocation]) -> None:
    """Whatever is being issued for these subjects is waited for, and nothing more will be."""
    blocking = {one.selector.subject: one for one in revocations if one.block}
    if not blocking:
        return
    await connection.execute("lock table blocked_subjects in exclusive mode")
    await connection.execute(
        query("block"),
        list(blocking),
        [one.reason for one in blocking.values()],
        [one.actor.subject for one in blocking.values()],
        [one.actor.token_id for one in blocking.values()],
    )


async def _live_successors(connection: Connection, shares: Sequence[Share]) -> dict[UUID, UUID]:
    """The latest tokens of lineages of which an older one was named, where they are live."""
    lineages = [share.left_lineage for share in shares if share.left_lineage is not None]
    if not lineages:
        return {}
    return {row["lineage_id"]: row["id"] for row in await connection.fetch(query("live_successors"), lineages)}


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


async def _walk(
    connection: Connection, shares: Sequence[Share]
) -> AsyncIterator[tuple[Sequence[UUID], Sequence[Event]]]:
    """Ends all that the revocations come to: some ids at a time, with the events of those that nobody named by id."""
    asked = first(shares)
    while asked.names_any:
        async for rows in _candidates(connection, asked):
            yield await _end(connection, asked, rows)
        asked = then(shares)


async def _candidates(connection: Connection, asked: Asked) -> AsyncIterator[Sequence[Any]]:
    ids = [*asked.ids, *asked.successors]
    if asked.only_ids:
        # As many as revocations share the transaction.
        yield await connection.fetch(query("revoke_named"), ids, asked.revoked_too)
        return
    cursor = await connection.cursor(
        query("revoke_candidates"),
        ids or None,
        list(asked.subjects) or None,
        [*asked.issuers, *asked.behind] or None,
        max((issued_before for issued_before, _ in asked.aged), default=None),
        asked.revoked_too,
        list(asked.behind) or None,
        list(asked.lineages) or None,
    )
    while rows := await cursor.fetch(_ROWS_AT_A_TIME):
        yield rows


async def _end(connection: Connection, asked: Asked, rows: Sequence[Any]) -> tuple[Sequence[UUID], Sequence[Event]]:
    ended: list[UUID] = []
    reasons: list[str] = []
    events: list[Event] = []
    heads: dict[UUID, Share] = {}
    for row in rows:
        token_id: UUID = row["id"]
        live = row["revoked_at"] is None
        for share, tied in (*((one, True) for one in asked.by_tie(row)), *((one, False) for one in asked.by(row))):
            if share.ends_tied(row, live) if tied else share.ends(row, live):
                live = False
                ended.append(token_id)
                reasons.append(share.revocation.reason)
                if token_id != share.named:
                    events.append(share.end_of(row, tied=tied))
                if row["successor_id"] is None:
                    heads[row["lineage_id"] or token_id] = share
    if ended:
        await connection.execute(query("revoke_mark"), ended, reasons)
    if heads:
        # Few have anything tied to them; so that not every token of a million has to be remembered for the next level.
        for row in await connection.fetch(query("tied_lineages"), list(heads)):
            heads[row["tied_to"]].lineages.add(row["tied_to"])
    return ended, events
