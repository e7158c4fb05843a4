"""Makes tokens themselves: id, secret, and the digest that is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from watchword.token import ParsedToken, new_token, new_token_id
from watchword_server.answer.proof import Digests

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Minted(NamedTuple):
    """A new token and what its record needs of it. `token` holds the secret, here and nowhere else."""

    token: ParsedToken
    pepper_version: int
    digest_scheme: int
    digest: bytes
    expires_at: datetime


class Mint:
    """Makes tokens of one deployment."""

    def __init__(self, digests: Digests, *, token_prefix: str, idle_slack: timedelta) -> None:
        """`idle_slack` is what a session's idle end is late by: as long as it may take until its use is known."""
        self._digests = digests
        self._token_prefix = token_prefix
        self._idle_slack = idle_slack

    def token(self, ends_at: datetime) -> Minted:
        """A token that ends then, or less than a millisecond earlier."""
        # The id carries the end in whole milliseconds, and the row must not outlive its id.
        ends_at_ms = (ends_at - _UNIX_EPOCH) // _MILLISECOND
        token = new_token(new_token_id(ends_at_ms), self._token_prefix)
        digest = self._digests.digest(token.text)
        expires_at = _UNIX_EPOCH + ends_at_ms * _MILLISECOND
        return Minted(token, self._digests.current, self._digests.scheme, digest, expires_at)

    def idle_expires_at(self, idle_timeout: timedelta | None, now: datetime) -> datetime | None:
        """When a new session ends that is never used. None without an idle timeout."""
        return None if idle_timeout is None else now + idle_timeout + self._idle_slack
