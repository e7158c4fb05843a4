"""Rotate: a token gets a successor, and ends after its grace. Those that wait together share a transaction.

The locks in order: the blocked subjects, the tokens in order of id, what they are tied to, the position's row. Whoever
revokes a rotated token waits for the rotation and then finds the successor; whoever was first is seen here.
(test_a_revoked_token_never_slips_a_successor_in)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from watchword.token import format_token_id
from watchword_server.rules.tokens import TokenKind, TokenRecord
from watchword_server.store.contract import (
    AlreadyRotated,
    IssuerGone,
    Rotated,
    Rotation,
    RotationOutcome,
    SubjectBlocked,
    TokenNotLive,
)
from watchword_server.store.database import Connection, Database, query
from watchword_server.store.ending import take_position
from watchword_server.store.event_contract import Event
from watchword_server.store.recording import record
from watchword_server.store.rows import new_event_id, record_of, scheme_or_null
from watchword_server.store.together import Together

SUPERSEDED: Final = "SUPERSEDED"
_LOCK_SECONDS_MAX: Final = 5.0


def rotations_on(database: Database) -> Together[Rotation, RotationOutcome]:
    """Runs rotations."""
    return Together(database, _rotate_together, lock_timeout_seconds=_LOCK_SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class _Locked:
    """Rows that stay as they are until the commit."""

    records: Mapping[UUID, TokenRecord]
    shortened: frozenset[UUID]
    """Those whose end was brought forward."""
    now: datetime | None

    def live(self, token_id: UUID | None) -> bool:
        """Whether there is such a token and it is live."""
        one = None if token_id is None else self.records.get(token_id)
        return one is not None and self.now is not None and one.revoked_at is None and one.ends_at > self.now


@dataclass(frozen=True, slots=True)
class _Step:
    """One rotation that is carried out."""

    rotation: Rotation
    rotated: TokenRecord
    successor: TokenRecord
    lost: TokenRecord | None
    """The successor of an earlier try, which the new one stands in for."""
    event_id: UUID = field(default_factory=new_event_id)


async def _rotate_together(connection: Connection, rotations: Sequence[Rotation]) -> list[RotationOutcome]:
    """Carries them out in the transaction under way, each as if it came after those before it."""
    blocked = await _blocked(connection, rotations)
    outcomes: dict[int, RotationOutcome | _Step] = {}
    waiting = dict(enumerate(rotations))
    while waiting:
        # One for each token at a time; whoever comes second finds the first one's successor.
        turn = {rotation.rotated_id: (at, rotation) for at, rotation in reversed(waiting.items())}
        outcomes |= await _turn(connection, dict(turn.values()), blocked)
        waiting = {at: rotation for at, rotation in waiting.items() if at not in outcomes}
    steps = [outcome for outcome in outcomes.values() if isinstance(outcome, _Step)]
    if not steps:
        return [outcome for _, outcome in sorted(outcomes.items()) if not isinstance(outcome, _Step)]
    shortened = {step.rotated.token_id for step in steps} | {step.lost.token_id for step in steps if step.lost}
    position = await take_position(connection, list(shortened))
    return [
        Rotated(outcome.successor, outcome.rotated, position) if isinstance(outcome, _Step) else outcome
        for _, outcome in sorted(outcomes.items())
    ]


async def _blocked(connection: Connection, rotations: Iterable[Rotation]) -> frozenset[str]:
    subjects = {name for rotation in rotations for name in (rotation.successor.subject, rotation.successor.owner)}
    rows = await connection.fetch(query("blocked_now"), list(subjects))
    return frozenset(row["subject"] for row in rows)


async def _turn(
    connection: Connection, rotations: Mapping[int, Rotation], blocked: frozenset[str]
) -> dict[int, RotationOutcome | _Step]:
    rotated = {rotation.rotated_id for rotation in rotations.values()}
    issuers = {rotation.actor.token_id for rotation in rotations.values() if rotation.as_issuer}
    locked = await _lock(connection, rotated | {token_id for token_id in issuers if token_id is not None})
    made = await _made(connection, rotations.values(), locked)
    tie_ends = await _tie_ends(connection, (locked.records[one] for one in rotated & locked.records.keys()))
    outcomes: dict[int, RotationOutcome | _Step] = {}
    for at, rotation in rotations.items():
        old = locked.records.get(rotation.rotated_id)
        # A successor whose secret never arrived: the same caller asks again, by the same request id, and it is live
        # and was not rotated itself. Not where this request was merely held up, and a later attempt has its answer
        # (test_an_attempt_that_was_held_up_replaces_nothing).
        lost = None if old is None or old.successor_id is None else made.records.get(old.successor_id)
        if lost is not None and (lost.successor_id is not None or not made.live(lost.token_id)):
            lost = None
        refused = _refused(rotation, locked, blocked, retried=lost is not None)
        if refused is not None:
            outcomes[at] = refused
        elif old is None or (old.tied_to is not None and tie_ends[old.tied_to] is None):
            outcomes[at] = TokenNotLive()
        else:
            assert locked.now is not None
            model = lost or old
            ends_at = [rotation.successor.expires_at]
            if model.kind is TokenKind.SESSION or model.token_id in locked.shortened | made.shortened:
                # Neither a session's hard end nor life that was taken away is won back by a rotation.
                ends_at.append(model.expires_at)
            if old.tied_to is not None and (tie_ends_at := tie_ends[old.tied_to]) is not None:
                ends_at.append(tie_ends_at)
            outcomes[at] = _step(rotation, old, lost, min(ends_at), locked.now)
    await _write(connection, [outcome for outcome in outcomes.values() if isinstance(outcome, _Step)])
    return outcomes


async def _lock(connection: Connection, token_ids: Iterable[UUID]) -> _Locked:
    rows = await connection.fetch(query("lock_tokens"), list(token_ids))
    return _Locked(
        {row["id"]: record_of(row) for row in rows},
        frozenset(row["id"] for row in rows if row["shortened"]),
        rows[0]["read_at"] if rows else None,
    )


async def _made(connection: Connection, rotations: Iterable[Rotation], locked: _Locked) -> _Locked:
    """Successors that these very requests made before."""
    again = [
        rotation
        for rotation in rotations
        if rotation.request_id and (old := locked.records.get(rotation.rotated_id)) and old.successor_id is not None
    ]
    if not again:
        return _Locked({}, frozenset(), None)
    rows = await connection.fetch(
        query("requests_used"),
        [rotation.actor.subject for rotation in again],
        [_request_key(rotation) for rotation in again],
        [rotation.attempt for rotation in again],
    )
    return await _lock(connection, {row["token_id"] for row in rows})


async def _tie_ends(connection: Connection, records: Iterable[TokenRecord]) -> dict[UUID, datetime | None]:
    lineages = {one.tied_to for one in records if one.tied_to is not None}
    if not lineages:
        return {}
    return {row["lineage"]: row["ends_at"] for row in await connection.fetch(query("tie_ends"), list(lineages))}


def _refused(rotation: Rotation, locked: _Locked, blocked: frozenset[str], *, retried: bool) -> RotationOutcome | None:
    if rotation.as_issuer and not locked.live(rotation.actor.token_id):
        return IssuerGone()
    for name in (rotation.successor.subject, rotation.successor.owner):
        if name in blocked:
            return SubjectBlocked(name)
    old = locked.records.get(rotation.rotated_id)
    if old is None or old.revoked_at is not None:
        return TokenNotLive()
    if old.successor_id is not None:
        return None if retried else AlreadyRotated(old.successor_id)
    return None if locked.live(old.token_id) else TokenNotLive()


def _step(rotation: Rotation, old: TokenRecord, lost: TokenRecord | None, expires_at: datetime, now: datetime) -> _Step:
    # What it may do is copied from the row as it is now, whatever was read before: a token that was narrowed meanwhile
    # has a narrowed successor (test_a_narrowed_token_has_a_narrowed_successor).
    made = rotation.successor
    successor = (lost or old)._replace(
        token_id=made.token_id,
        pepper_version=made.pepper_version,
        digest=made.digest,
        digest_scheme=made.digest_scheme,
        created_at=now,
        expires_at=expires_at,
        idle_expires_at=made.idle_expires_at,
        lineage_id=old.lineage,
        predecessor_id=old.token_id,
    )
    rotated = old._replace(
        successor_id=made.token_id,
        rotated_at=old.rotated_at or now,
        expires_at=min(old.expires_at, now + rotation.grace),
    )
    return _Step(rotation, rotated, successor, lost)


async def _write(connection: Connection, steps: Sequence[_Step]) -> None:
    if not steps:
        return
    superseded = [step for step in steps if step.lost is not None]
    await connection.execute(
        query("rotate"),
        [step.successor.token_id for step in steps],
        [step.successor.pepper_version for step in steps],
        [step.successor.digest for step in steps],
        [scheme_or_null(step.successor.digest_scheme) for step in steps],
        [step.successor.expires_at for step in steps],
        [step.successor.idle_expires_at for step in steps],
        [step.rotated.lineage for step in steps],
        [(step.lost or step.rotated).token_id for step in steps],
        [step.rotated.token_id for step in steps],
        [step.rotated.expires_at for step in steps],
        [step.rotation.actor.subject for step in steps],
        [_request_key(step.rotation) for step in steps],
        [step.rotation.attempt for step in steps],
        [step.rotation.actor.token_id if step.rotation.as_issuer else None for step in steps],
    )
    lost = [step.lost.token_id for step in superseded if step.lost is not None]
    if lost:
        await connection.execute(query("revoke_mark"), lost, [SUPERSEDED] * len(lost))
    await record(connection, [event for step in steps for event in _events(step)])


def _events(step: _Step) -> Iterable[Event]:
    actor, successor_id = step.rotation.actor, step.successor.token_id
    details = {"successor": format_token_id(successor_id), "expires_at": step.rotated.expires_at.isoformat()}
    yield Event("rotate", actor, step.rotated.token_id, details, event_id=step.event_id)
    if step.lost is not None:
        yield Event("revoke", actor, step.lost.token_id, {"reason": SUPERSEDED, "by_event": str(step.event_id)})


def _request_key(rotation: Rotation) -> str | None:
    """What a request id is stored as: another one for each token, and none that an Issue can have."""
    return f"{rotation.rotated_id}\n{rotation.request_id}" if rotation.request_id else None
