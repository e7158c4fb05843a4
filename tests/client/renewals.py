"""A plan for renewals, with a clock and with chance that a test decides."""

from __future__ import annotations

from uuid import UUID

from watchword.credentials.renewal import Renewal
from watchword.protobuf_time import timestamp_of
from watchword.token import format_token_id, new_token_id
from watchword.v1 import token_service_pb2 as pb

START = 1_700_000_000.0
DAY = 86_400.0
LIFE = 10 * DAY
GRACE = 3_600.0


class Bench:
    """A renewal, with time and chance. `share` is where in a range chance falls: 0 at its beginning, 1 at its end."""

    def __init__(self, *, ttl_seconds: float | None = None, grace_seconds: float | None = None) -> None:
        self.now = START
        self.share = 0.5
        self.renewal = Renewal(
            ttl_seconds=ttl_seconds,
            grace_seconds=grace_seconds,
            clock=lambda: self.now,
            uniform=lambda low, high: low + (high - low) * self.share,
        )

    def sees(self, ends_in: float = LIFE) -> UUID:
        """A token that ends so long from now, by its id."""
        token_id = made_id(self.now + ends_in)
        self.renewal.sees(token_id)
        return token_id

    def told(self, token_id: UUID, age: float = 0.0, life: float = LIFE, **fields: object) -> None:
        """The service's answer about it."""
        self.renewal.told(message(token_id, self.now - age, life, **fields))

    def renews(self, life: float = LIFE, grace: float = GRACE, **fields: object) -> UUID:
        """The service's answer to a rotation, sent now; the new token."""
        token_id = made_id(self.now + life)
        response = rotated(token_id, self.now, life, grace, **fields)
        self.renewal.rotated(response, self.now)
        self.renewal.renewed(response, self.now)
        return token_id

    def is_due(self) -> bool:
        return self.renewal.is_renewing_due(is_unfinished=False)

    def due_after(self, seconds: float) -> bool:
        """Whether it is due at that time from now; the clock stays where it is."""
        self.now += seconds
        try:
            return self.is_due()
        finally:
            self.now -= seconds


def made_id(ends_at: float) -> UUID:
    return new_token_id(int(ends_at * 1000))


def message(token_id: UUID, created_at: float, life: float, **fields: object) -> pb.Token:
    return pb.Token(
        token_id=format_token_id(token_id),
        created_at=timestamp_of(created_at),
        expires_at=timestamp_of(created_at + life),
        **fields,  # type: ignore[arg-type]
    )


def rotated(token_id: UUID, at: float, life: float, grace: float, **fields: object) -> pb.RotateResponse:
    return pb.RotateResponse(
        secret="the new one",
        token=message(token_id, at, life, **fields),
        rotated=pb.Token(expires_at=timestamp_of(at + grace)),
    )
