"""A token that renews itself: what happens in which order, for both stacks. They only wait, and do what is asked.

A rotation: lock the place, look again what is there, write down the request id, ask the service, keep the new token,
and only then use it. The old one lives on for the grace period, so that calls under way and other readers of the file
come along. Whatever fails, the token in use is given out until its end.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, Self, TypeAlias

from watchword.credentials.outcome import ANSWER_INVALID, TOKEN_MALFORMED, TOKEN_ROTATED, outcome_of
from watchword.credentials.place import Place, PlaceError
from watchword.credentials.place_file import SharedTokenFile
from watchword.credentials.renewal import Renewal
from watchword.credentials.renewal_status import RenewalStatus
from watchword.credentials.source import TokenSourceError
from watchword.token import BODY_LENGTH, MalformedTokenError, ParsedToken, parse_token
from watchword.v1 import token_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Call:
    """To be asked of the TokenService."""

    method: Literal["Rotate", "WhoAmI"]
    request: pb.RotateRequest | pb.WhoAmIRequest
    timeout_seconds: float


Work: TypeAlias = Callable[[], Any]
"""To be called where it may block; what it returns may have to be awaited."""
Round: TypeAlias = Generator[Call | Work, Any, None]
"""Yields what to do and is sent what came of it, or has it raised."""


@dataclass(frozen=True, slots=True)
class _Unsaved:
    """A new token that could not be kept yet."""

    response: pb.RotateResponse = field(repr=False)
    sent_at: float
    replaces: str = field(repr=False)
    use_at: float
    """From then on it is given out all the same: the one before ends."""


CLOSE_SECONDS_MAX: Final = 15.0
"""More than a call to the service takes at most."""
# Of what is left to the old token, how much before its end a token that could not be kept is used all the same.
_USE_EARLY_SHARE: Final = 0.2


class Renewing:
    """A TokenSource that gives out what is in a place, and the rounds that renew it there."""

    @classmethod
    def file(
        cls, path: str | os.PathLike[str], *, ttl_seconds: float | None = None, grace_seconds: float | None = None
    ) -> Self:
        """The token is in this file, which is replaced when it is renewed. Other processes may share it.

        A new token lives for `ttl_seconds`, by default as long as the first one; the old one for `grace_seconds` after
        that, by default as the service says (an hour). Raises ValueError for numbers that make no sense.
        """
        return cls(SharedTokenFile(path), partial(Renewal, ttl_seconds=ttl_seconds, grace_seconds=grace_seconds))

    def __init__(self, place: Place, new_renewal: Callable[[], Renewal]) -> None:
        self._place: Final = place
        self._new_renewal: Final = new_renewal
        self._renewal = new_renewal()
        self._unsaved: _Unsaved | None = None
        if hasattr(os, "register_at_fork"):
            begin_anew = weakref.WeakMethod(self._begin_anew)
            os.register_at_fork(after_in_child=lambda: (method := begin_anew()) and method())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"

    def token(self) -> str:
        """See TokenSource. Never waits for a renewal."""
        unsaved = self._unsaved
        if unsaved is None:
            return self._place.token()
        try:
            kept = self._place.token()
        except TokenSourceError:
            return unsaved.response.secret
        # As long as the old one lives it stays in use, and so does not end early: whoever starts finds that one.
        is_needed = kept == unsaved.replaces and self._renewal.clock() >= unsaved.use_at
        return unsaved.response.secret if is_needed else kept

    def status(self) -> RenewalStatus:
        """How it is doing now."""
        return self._renewal.status()

    def _begin_anew(self) -> None:
        """In the child of a fork, where nothing runs that would renew. Held by tests/client/test_renewing_fork.py."""
        self._place.begin_anew()
        self._unsaved = None
        self._renewal = self._new_renewal()

    # Rounds

    def _round(self) -> Round:
        """Looks at what is there, and does what is due."""
        try:
            yield from self._do()
        except Exception as error:  # whatever it is, the next round comes
            self._renewal.failed(_cause_of(error))

    def _last_round(self) -> Round:
        """Before the end: what could not be kept is tried once more."""
        try:
            if self._unsaved is not None and (yield self._place.lock):
                yield from self._save(self._unsaved)
        finally:
            self._place.unlock()

    def _do(self) -> Round:
        renewal, place = self._renewal, self._place
        if self._unsaved is not None:
            if renewal.is_saving_due():
                # It is locked all the while, unless this was closed and started again.
                if (yield place.lock):
                    yield from self._save(self._unsaved)
                else:
                    renewal.blocked()
            return
        token = self._see()
        if token is None:
            return
        if renewal.is_asking_due():
            yield from self._ask()
        is_unfinished = yield lambda: place.unfinished(token.id_text)
        if renewal.is_renewing_due(is_unfinished=is_unfinished):
            if not (yield place.lock):
                renewal.blocked()
                return
            try:
                yield from self._rotate(token)
            finally:
                if self._unsaved is None:
                    place.unlock()

    def _see(self) -> ParsedToken | None:
        """The token that is there."""
        try:
            text = self._place.token()
            token = parse_token(text, text[:-BODY_LENGTH])
        except TokenSourceError as error:
            self._renewal.unreadable(str(error))
            return None
        except MalformedTokenError:
            self._renewal.unreadable(TOKEN_MALFORMED)
            return None
        self._renewal.sees(token.token_id)
        return token

    def _ask(self) -> Round:
        # What would keep a new token from being kept is found out at the start, and not weeks later.
        if (yield self._place.lock):
            self._place.unlock()
        try:
            answer = yield Call("WhoAmI", pb.WhoAmIRequest(), self._renewal.call_seconds_max())
        except Exception as error:
            self._heed(error)
        else:
            self._renewal.told(answer.token)

    def _rotate(self, token: ParsedToken) -> Round:
        """The place is locked."""
        renewal, place = self._renewal, self._place
        if not self._is_still(token):
            return
        now_ms = int(renewal.clock() * 1000)
        attempt = yield lambda: place.prepare(token.id_text, now_ms)
        sent_at = renewal.clock()
        try:
            response = yield Call("Rotate", renewal.request(attempt), renewal.call_seconds_max())
        except Exception as error:
            outcome = outcome_of(error)
            if outcome.cause != TOKEN_ROTATED:
                self._heed(error)
            elif self._is_still(token):
                yield place.forget
                renewal.taken(outcome.token_id)
            return
        if not _is_token(response.secret):
            # It would replace a good one.
            renewal.failed(ANSWER_INVALID)
            return
        old_ends_at = renewal.rotated(response, sent_at)
        use_at = old_ends_at - (old_ends_at - sent_at) * _USE_EARLY_SHARE
        # From here on it is never lost while this process lives.
        self._unsaved = unsaved = _Unsaved(response, sent_at, self._rotated_one(response, token), use_at)
        yield from self._save(unsaved)

    def _save(self, unsaved: _Unsaved) -> Round:
        """The place is locked, and stays so until the token is kept: who repeats the request would end this one."""
        renewal, place, secret = self._renewal, self._place, unsaved.response.secret
        try:
            kept = place.token()
        except TokenSourceError:
            kept = unsaved.replaces
        if kept not in (unsaved.replaces, secret):
            self._unsaved = None
            place.unlock()
            renewal.overtaken()
            return
        try:
            if kept != secret:
                yield lambda: place.store(secret)
        except Exception as error:
            renewal.unsaved(unsaved.response.token.token_id, _cause_of(error))
            return
        place.stored(secret)
        self._unsaved = None
        place.unlock()
        renewal.renewed(unsaved.response, unsaved.sent_at)

    def _rotated_one(self, response: pb.RotateResponse, token: ParsedToken) -> str:
        """What the new token takes the place of: `token`, unless somebody replaced that before the call was sent."""
        with suppress(TokenSourceError, MalformedTokenError):
            now = self._place.token()
            if parse_token(now, now[:-BODY_LENGTH]).id_text == response.rotated.token_id:
                return now
        return token.text.decode("ascii")

    def _is_still(self, token: ParsedToken) -> bool:
        try:
            return self._place.token().encode() == token.text
        except TokenSourceError:
            return False

    def _heed(self, error: Exception) -> None:
        outcome = outcome_of(error)
        if outcome.is_refusal:
            self._renewal.refused(outcome.cause)
        else:
            self._renewal.failed(outcome.cause, outcome.retry_seconds)


def _is_token(text: str) -> bool:
    try:
        parse_token(text, text[:-BODY_LENGTH])
    except MalformedTokenError:
        return False
    return True


def _cause_of(error: Exception) -> str:
    # The text of others may quote the token: a callback that fails says perhaps with what.
    return str(error) if isinstance(error, PlaceError) else type(error).__name__
