"""Whether the tokens that streams came with are still good: a stream is more than its first moment.

Every message of a stream is a decision (rule 12 of docs/protocol.md): a change that names the caller's token shuts the
stream's gate before the change counts as applied, and the gate opens again only after a new look. Not every change ends
the token: some stand for all there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from watchword.token import ParsedToken
from watchword_server.answer.callers import authenticate
from watchword_server.request.access import Access
from watchword_server.request.evidence import address_of, evidence_of
from watchword_server.request.pipeline import Surroundings, bearer_of
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import StoreError
from watchword_server.store.fleet_contract import FeedPage

REJUDGE_SECONDS: Final = 300.0
"""How often a token is looked at that nothing was heard of."""
RETRY_SECONDS: Final = 1.0


class Standing:
    """One stream's caller. Begins shut; `judge` opens it."""

    def __init__(self, surroundings: Surroundings, access: Access, bearer: ParsedToken, context: Any) -> None:
        self._surroundings = surroundings
        self._access = access
        self._bearer = bearer
        self._context = context
        self._doubted = asyncio.Event()
        self._was_judged = False
        self._ends_at = 0.0
        self._rejudged_at = 0.0
        self.gate = asyncio.Event()
        """Set while messages may pass."""

    def doubt(self) -> None:
        """Shuts the gate until the token has been looked at again."""
        self.gate.clear()
        self._doubted.set()

    async def judge(self) -> TokenRecord:
        """Looks at the token and opens the gate; its record. Raises what `authenticate` and the store raise."""
        while True:
            self._doubted.clear()
            asked_at = time.monotonic()
            snapshot = await self._surroundings.store.read([self._bearer.token_id])
            record = authenticate(
                self._surroundings.digests,
                self._bearer,
                snapshot,
                required=self._access.scopes,
                evidence=lambda: evidence_of(self._context, self._surroundings.proxies),
                rotated_presented=self._rotated_presented,
            )
            self._was_judged = True
            # Also while it lasts: a token that a stream rests on is in use, and a rotated one not silent.
            self._surroundings.count_call(
                record, lambda: address_of(self._context, self._surroundings.proxies), self._access.scopes
            )
            # What was learnt while the answer was on its way may be newer than the answer.
            if not self._doubted.is_set():
                break
        seconds_left = (record.ends_at - snapshot.now).total_seconds()
        self._ends_at = asked_at + seconds_left
        self._rejudged_at = asked_at + REJUDGE_SECONDS
        if record.idle_expires_at is not None:
            # A session is in use while a stream rests on it: it is counted again before it would end for want of use.
            # (test_a_watch_keeps_the_session_that_it_rests_on)
            self._rejudged_at = asked_at + min(REJUDGE_SECONDS, max(RETRY_SECONDS, seconds_left / 2))
        self.gate.set()
        return record

    def _rotated_presented(self, record: TokenRecord) -> None:
        """That a token ended while a stream rested on it is no news: it was presented before."""
        if not self._was_judged:
            self._surroundings.rotated_presented(record, address_of(self._context, self._surroundings.proxies))

    async def keep(self) -> None:
        """Judges again whenever there is doubt, now and then without any, and when the token expires. Never returns:
        raises once it is no longer good. While nobody can say, the gate stays as it is until then."""
        while True:
            try:
                async with asyncio.timeout(min(self._rejudged_at, self._ends_at) - time.monotonic()):
                    await self._doubted.wait()
            except TimeoutError:
                if self._ends_at <= self._rejudged_at:
                    self.gate.clear()
            while True:
                try:
                    await self.judge()
                    break
                except StoreError:
                    await asyncio.sleep(RETRY_SECONDS)
                    if time.monotonic() >= self._ends_at:
                        self.gate.clear()


class Standings:
    """Those of all streams of one method."""

    def __init__(self, surroundings: Surroundings, access: Access) -> None:
        self._surroundings = surroundings
        self._access = access
        self._by_token: dict[UUID, set[Standing]] = {}

    @contextmanager
    def of(self, context: Any) -> Iterator[tuple[UUID, Standing]]:
        """The caller's token id and standing while the block runs. It hears of changes before it is first judged.

        Raises BearerError and CallerUnknownError.
        """
        bearer = bearer_of(context.invocation_metadata(), self._surroundings.token_prefix)
        standing = Standing(self._surroundings, self._access, bearer, context)
        standings = self._by_token.setdefault(bearer.token_id, set())
        standings.add(standing)
        try:
            yield bearer.token_id, standing
        finally:
            standings.discard(standing)
            if not standings and self._by_token.get(bearer.token_id) is standings:
                del self._by_token[bearer.token_id]

    def heard(self, page: FeedPage) -> None:
        """Shuts the gates of those that became less valid, perhaps. Before the page counts as applied."""
        if not page.continues or any(change.everything for change in page.changes):
            doubted: Iterable[UUID] = list(self._by_token)
        else:
            doubted = (token_id for change in page.changes for token_id in change.token_ids)
        for token_id in doubted:
            for standing in self._by_token.get(token_id, ()):
                standing.doubt()
