"""A question to the authority that is under way, as the cache sees it."""

from __future__ import annotations

from typing import Any, Final


class Lookup:
    """Begun before the request is sent. Compared by identity; never holds the token."""

    __slots__ = ("proof", "result", "sent_at", "token_id")

    def __init__(self, token_id: str, proof: bytes, sent_at: float, result: Any) -> None:
        self.token_id: Final = token_id
        self.proof: Final = proof
        self.sent_at: Final = sent_at
        """Boottime, read before the request was sent."""
        self.result: Final[Any] = result
        """What its starter left there for those who join: a future."""

    def __repr__(self) -> str:
        return f"Lookup({self.token_id})"
