"""Rotate: a token gets a successor, and ends after its grace. Those that wait together share a transaction.

The locks in order: the blocked subjects, the tokens in order of id, what they are tied to, the position's row. Whoever
revokes a rotated token waits for the rotation and then finds the successor; whoever was first is seen here.
(test_a_revoked_token_never_slips_a_successor_in)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from watchword.token import expires_at_ms, format_token_id
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
from watchword_server.store.recording import Event, record
from watchword_server.store.rows import new_event_id, record_of, scheme_or_null
from watchword_server.store.together import Together

SUPERSEDED: Final = "SUPERSEDED"
_LOCK_SECONDS_MAX: Final = 5.0
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Rotations:
    """Runs rotations; those that wait together share a transaction (see together.py)."""

    def __init__(self, database: Database, *, queue_max: int) -> None:
        self._together: Together[Rotation, RotationOutcome] = Together(
            database, rotate_together, queue_max=queue_max, lock_timeout_seconds=_LOCK_SECONDS_MAX
        )

    async def rotate(self, rotation: Rotation) -> RotationOutcome:
        """Stores one successor."""
        return await self._together.run(rotation)

    async def close(self) -> None:
        """Waits for what is under way. Cancelled, it gives that up; Postgres then takes it back."""
        await self._together.close()


@dataclass(frozen=True, slots=True)
class _Step:
    """One rotation that is carried out."""

    rotation: Rotation
    rotated: TokenRecord
    successor: TokenRecord
    lost: TokenRecord | None
    """The successor of an earlier try, which the new one stands in for."""
    event_id: UUID = field(default_factory=new_event_id)


async def rotate_together(connection: Connection, rotations: Sequence[Rotation]) -> list[RotationOutcome]:
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
    records, now = await _locked(connection, rotated | {token_id for token_id in issuers if token_id is not None})
    lost = await _lost(connection, rotations.values(), records, now)
    ties = {one.tied_to for token_id in rotated if (one := records.get(token_id)) and one.tied_to is not None}
    tie_ends = {
        row["lineage"]: row["ends_at"]
        for row in (await connection.fetch(query("tie_ends"), list(ties)) if ties else ())
    }
    outcomes: dict[int, RotationOutcome | _Step] = {}
    for at, rotation in rotations.items():
        refused = _refused(rotation, records, blocked, now, retried=rotation.rotated_id in lost)
        if refused is not None:
            outcomes[at] = refused
            continue
        old, model = records[rotation.rotated_id], lost.get(rotation.rotated_id)
        tie_ends_at = None if old.tied_to is None else tie_ends[old.tied_to]
        if old.tied_to is not None and tie_ends_at is None:
            outcomes[at] = TokenNotLive()
        else:
            outcomes[at] = _step(rotation, old, model, tie_ends_at, now)
    await _write(connection, [outcome for outcome in outcomes.values() if isinstance(outcome, _Step)])
    return outcomes


async def _locked(connection: Connection, token_ids: Iterable[UUID]) -> tuple[dict[UUID, TokenRecord], datetime | None]:
    rows = await connection.fetch(query("lock_tokens"), list(token_ids))
    return {row["id"]: record_of(row) for row in rows}, rows[0]["read_at"] if rows else None


async def _lost(
    connection: Connection, rotations: Iterable[Rotation], records: Mapping[UUID, TokenRecord], now: datetime | None
) -> dict[UUID, TokenRecord]:
    """Successors whose secret never arrived, by the token that they succeed: the same caller asks again, by the same
    request id, and they are live and were not rotated themselves."""
    successors = {
        successor_id: rotation
        for rotation in rotations
        if rotation.request_id
        and rotation.rotated_id in records
        and (successor_id := records[rotation.rotated_id].successor_id) is not None
    }
    if not successors:
        return {}
    rows = await connection.fetch(
        query("requests_used"),
        [rotation.actor.subject for rotation in successors.values()],
        [_request_key(rotation) for rotation in successors.values()],
    )
    made, _ = await _locked(connection, {row["token_id"] for row in rows} & successors.keys())
    return {
        successors[token_id].rotated_id: one
        for token_id, one in made.items()
        if one.successor_id is None and _is_live(one, now)
    }


def _refused(
    rotation: Rotation,
    records: Mapping[UUID, TokenRecord],
    blocked: frozenset[str],
    now: datetime | None,
    *,
    retried: bool,
) -> RotationOutcome | None:
    if rotation.as_issuer:
        issuer = None if rotation.actor.token_id is None else records.get(rotation.actor.token_id)
        if not _is_live(issuer, now):
            return IssuerGone()
    for name in (rotation.successor.subject, rotation.successor.owner):
        if name in blocked:
            return SubjectBlocked(name)
    old = records.get(rotation.rotated_id)
    if old is None or old.revoked_at is not None:
        return TokenNotLive()
    if old.successor_id is not None:
        return None if retried else AlreadyRotated(old.successor_id)
    return None if _is_live(old, now) else TokenNotLive()


def _is_live(one: TokenRecord | None, now: datetime | None) -> bool:
    return one is not None and now is not None and one.revoked_at is None and one.ends_at > now


def _step(
    rotation: Rotation, old: TokenRecord, lost: TokenRecord | None, tie_ends_at: datetime | None, now: datetime | None
) -> _Step:
    assert now is not None
    # What it may do is copied from the row as it is now, whatever was read before: a token that was narrowed meanwhile
    # has a narrowed successor (test_a_narrowed_token_has_a_narrowed_successor).
    model = lost or old
    made = rotation.successor
    ends_at = [made.expires_at]
    if model.kind is TokenKind.SESSION or model.expires_at < _hard_end(model):
        # Neither a session's hard end nor life that was taken away is won back by a rotation.
        ends_at.append(model.expires_at)
    if tie_ends_at is not None:
        ends_at.append(tie_ends_at)
    successor = model._replace(
        token_id=made.token_id,
        pepper_version=made.pepper_version,
        digest=made.digest,
        digest_scheme=made.digest_scheme,
        created_at=now,
        expires_at=min(ends_at),
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


def _hard_end(one: TokenRecord) -> datetime:
    """The end that its id was made with."""
    return _UNIX_EPOCH + timedelta(milliseconds=expires_at_ms(one.token_id))


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
    )
    lost = [step.lost.token_id for step in superseded if step.lost is not None]
    if lost:
        await connection.execute(query("revoke_mark"), lost, [SUPERSEDED] * len(lost))
    await record(connection, [event for step in steps for event in _events(step)])


def _events(step: _Step) -> Iterable[Event]:
    actor, successor_id = step.rotation.actor, step.successor.token_id
    details = {"successor": format_token_id(successor_id)}
    yield Event("rotate", actor, step.rotated.token_id, details, event_id=step.event_id)
    if step.lost is not None:
        yield Event("revoke", actor, step.lost.token_id, {"reason": SUPERSEDED, "by_event": str(step.event_id)})


def _request_key(rotation: Rotation) -> str | None:
    """What a request id is stored as: another one for each token, and none that an Issue can have."""
    return f"{rotation.rotated_id}\n{rotation.request_id}" if rotation.request_id else None
