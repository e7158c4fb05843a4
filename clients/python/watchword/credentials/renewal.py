"""When a token is renewed, and what each outcome means for the next attempt. No I/O: clock and chance are arguments.

Instants are unix seconds by this machine's clock. A new token's life counts from before it was asked for, so a clock
that is wrong plans no wrong renewals; only what was read from a file is judged by the wall clock. After a clock was set
back the service is asked again.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from watchword.credentials import renewal_times as times
from watchword.credentials.outcome import HARD_END, SESSION, TOKEN_ROTATED, sentence_of
from watchword.credentials.place import Attempt
from watchword.credentials.renewal_status import RenewalStatus
from watchword.protobuf_time import duration_of, seconds_of
from watchword.token import expires_at_ms, format_token_id
from watchword.v1 import token_service_pb2 as pb

_LOGGER: Final = logging.getLogger("watchword.credentials")

# A new token that lives for less than this share of what is usual has run up against an end that nothing moves.
_WORTHWHILE_SHARE: Final = 0.1
_GRACE_SECONDS: Final = 3_600.0
"""The service's own default."""
_SET_BACK_SECONDS: Final = 1.0
"""A clock that goes back by less than this between two looks is put right a little, as clocks are all the time."""


class Renewal:
    """The plan for one token after another. The one who drives it tells it what it sees and what came of each attempt.

    Not thread-safe, but for `status`, which may be off by one change.
    """

    def __init__(
        self,
        *,
        ttl_seconds: float | None = None,
        grace_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
        uniform: times.Uniform = random.uniform,
    ) -> None:
        if ttl_seconds is not None and not 1 <= ttl_seconds < math.inf:
            raise ValueError("ttl_seconds must be at least 1")
        if grace_seconds is not None and not 0 < grace_seconds < math.inf:
            raise ValueError("grace_seconds must be positive: calls that are under way carry the old token")
        self.clock: Final = clock
        self._ttl_seconds: Final = ttl_seconds
        self._grace_seconds: Final = grace_seconds
        self._uniform: Final = uniform
        self.token_id = ""
        self.ends_at = 0.0
        """When the token in use ends."""
        self.is_told = False
        """Whether the service told of the token; what its id says is its hard end only."""
        self._is_borne = True
        self._seen_at = 0.0
        self._renew_at = self._retry_at = 0.0
        self._life_seconds = 0.0
        self._asked_at: float | None = None
        self._failures = 0
        self._is_final = False
        self._is_refused = False
        self._is_unreadable = False
        self._is_unsaved = False
        self._last_error: str | None = None
        self._renewals_count = 0
        self._renewed_at: float | None = None

    # What is seen

    def sees(self, token_id: UUID) -> None:
        """The token in use is this one. If it is another than before, all begins anew, with what the id says."""
        text = format_token_id(token_id)
        if self._is_unreadable:
            self._is_unreadable = False
            self._succeeded()
        now = self.clock()
        seen_at, self._seen_at = self._seen_at, now
        if text == self.token_id:
            if now < seen_at - _SET_BACK_SECONDS:
                # What was counted from before the clock was set back lies anywhere: the service is asked again.
                self.is_told = False
                self._asked_at = None
            return
        self._life_seconds = 0.0
        self._is_borne = True
        self._begin(text, now, expires_at_ms(token_id) / 1000)
        self.is_told = False

    def told(self, token: pb.Token) -> None:
        """What the service says of the token that the channel bears: the one in use, or somebody made it otherwise."""
        self.is_told = True
        self._succeeded()
        self._is_borne = token.token_id == self.token_id
        if not self._is_borne:
            return
        self._plan(seconds_of(token.created_at), seconds_of(token.expires_at))
        if token.kind == pb.TOKEN_KIND_SESSION:
            self._finish(SESSION, logging.INFO)
        elif token.successor_id:
            # Perhaps by one who is about to put the new one here. Whoever holds the lock will see.
            self._renew_at = self.clock()

    # What is due

    def is_asking_due(self) -> bool:
        """Whether to ask the service about the token."""
        return not self.is_told and not self._is_waiting()

    def is_renewing_due(self, *, is_unfinished: bool) -> bool:
        """Whether to renew now. `is_unfinished`: somebody began to, and did not come to the end of it. Never before the
        service has told which token the channel bears: it is that one which a rotation rotates.
        """
        if self._is_waiting() or self._is_final or not self.is_told:
            return False
        return is_unfinished or self.clock() >= self._renew_at

    def is_saving_due(self) -> bool:
        """Whether to try again to keep a new token."""
        return self._is_unsaved and not self._is_waiting()

    def wait_seconds(self) -> float:
        """How long nothing is due, and nobody need look either."""
        now = self.clock()
        look_seconds = times.look_seconds(self.ends_at - now, self._grace_seconds or _GRACE_SECONDS)
        if self._is_waiting():
            until = self._retry_at
        elif not self.is_told or self._is_unsaved:
            until = now
        else:
            until = now + look_seconds if self._is_final else self._renew_at
        return min(max(until - now, times.LOOK_SECONDS_MIN), look_seconds)

    def call_seconds_max(self) -> float:
        """How long a call to the service may take."""
        return times.call_seconds_max(self._remaining())

    def request(self, attempt: Attempt) -> pb.RotateRequest:
        """What to ask for. From now on the token may have ended a grace period later, whatever the answer."""
        if self._asked_at is None:
            self._asked_at = self.clock()
        return pb.RotateRequest(
            # None is the calling one, which needs no scope for it.
            token_id="" if self._is_borne else self.token_id,
            ttl=None if self._ttl_seconds is None else duration_of(self._ttl_seconds),
            grace=None if self._grace_seconds is None else duration_of(self._grace_seconds),
            request_id=attempt.request_id,
            attempt=attempt.number,
        )

    # What came of it

    def renewed(self, response: pb.RotateResponse, sent_at: float) -> None:
        """There is a new token, and it is kept. It was asked for at `sent_at`."""
        old_id, token = self.token_id, response.token
        life_seconds = seconds_of(token.expires_at) - seconds_of(token.created_at)
        usual_seconds = min(self._ttl_seconds or self._life_seconds, self._life_seconds)
        self._is_unsaved = False
        self._succeeded()
        self._begin(token.token_id, sent_at, sent_at + life_seconds)
        self.is_told = True
        self._renewals_count += 1
        self._renewed_at = self.clock()
        _LOGGER.info(
            "the token %s is renewed: %s takes its place, until %s", old_id, self.token_id, _text(self.ends_at)
        )
        if token.kind == pb.TOKEN_KIND_SESSION or life_seconds < _WORTHWHILE_SHARE * usual_seconds:
            self._finish(HARD_END, logging.WARNING)

    def rotated(self, response: pb.RotateResponse, sent_at: float) -> float:
        """The service has rotated the token, and the new one is about to be kept; when the old one ends."""
        lives_seconds = seconds_of(response.rotated.expires_at) - seconds_of(response.token.created_at)
        self.ends_at = min(self.ends_at, sent_at + lives_seconds)
        return self.ends_at

    def unsaved(self, new_id: str, cause: str) -> None:
        """There is a new token, and it could not be kept. It is tried again."""
        if not self._is_unsaved:
            _LOGGER.warning(
                "the token %s is renewed, but its successor %s is in memory only, and tried to be kept again: %s",
                self.token_id,
                new_id,
                cause,
            )
        self._is_unsaved = True
        self._last_error = cause
        self._back_off(None)

    def overtaken(self) -> None:
        """A new token is dropped: somebody has put another one in its place."""
        self._is_unsaved = False

    def failed(self, cause: str, retry_seconds: float | None = None) -> None:
        """Nothing came of it, and it is worth another attempt, after `retry_seconds` if the service said so."""
        self._is_refused = False
        self._says(
            logging.WARNING, cause, "the token %s cannot be renewed now: %s; it serves until %s, and it is tried again"
        )
        self._back_off(retry_seconds)

    def refused(self, cause: str) -> None:
        """The service will not, and nothing but an operator changes that."""
        self._says(logging.WARNING, cause, "the token %s is not renewed: %s; it serves until %s at the latest")
        self._is_refused = True
        self._wait(times.refused_seconds(self._remaining(), self._uniform))

    def taken(self, successor_id: str) -> None:
        """Somebody else has rotated the token, and did not put the new one here."""
        if not self._is_final:
            _LOGGER.warning(
                "the token %s was rotated by somebody else, and its successor %s is not here: it serves until its end. "
                "Put a new token in its place; if nobody knows of that rotation, it has leaked: revoke both",
                self.token_id,
                successor_id,
            )
        self._is_final = True
        self._last_error = TOKEN_ROTATED

    def blocked(self) -> None:
        """Another process is at it."""
        self._wait(times.blocked_seconds(self._remaining(), self._uniform))

    def unreadable(self, cause: str) -> None:
        """There is no token to renew."""
        if self._last_error != cause:
            _LOGGER.warning("there is no token to renew: %s", sentence_of(cause))
        self._is_unreadable = True
        self._last_error = cause
        self._wait(self._uniform(times.UNREADABLE_SECONDS_MAX / 2, times.UNREADABLE_SECONDS_MAX))

    def status(self) -> RenewalStatus:
        """How it is doing."""
        error = self._last_error
        is_renewing = bool(self.token_id) and not (self._is_final or self._is_refused)
        return RenewalStatus(
            token_id=self.token_id,
            ends_at=_instant(self.ends_at) if self.token_id else None,
            renews_at=_instant(max(self._renew_at, self._retry_at)) if is_renewing else None,
            is_renewing=is_renewing,
            is_unsaved=self._is_unsaved,
            last_error=error,
            reason=None if error is None else sentence_of(error),
            renewals_count=self._renewals_count,
            renewed_at=None if self._renewed_at is None else _instant(self._renewed_at),
        )

    # How

    def _begin(self, token_id: str, made_at: float, ends_at: float) -> None:
        self.token_id = token_id
        self._asked_at = None
        self._failures = 0
        self._retry_at = 0.0
        self._is_final = self._is_refused = False
        self._last_error = None
        self._plan(made_at, ends_at)

    def _plan(self, made_at: float, ends_at: float) -> None:
        self.ends_at = ends_at
        self._life_seconds = max(self._life_seconds, ends_at - made_at)
        self._renew_at = times.renew_at(made_at, ends_at, self.clock(), self._uniform)

    def _finish(self, cause: str, level: int) -> None:
        self._is_final = True
        self._says(level, cause, "the token %s is not renewed: %s; it ends at %s")

    def _succeeded(self) -> None:
        if self._last_error is not None:
            _LOGGER.warning("the token %s can be renewed again", self.token_id)
        self._last_error = None
        self._is_refused = False
        self._failures = 0
        self._retry_at = 0.0

    def _says(self, level: int, cause: str, sentence: str) -> None:
        """Once for as long as it is the same."""
        if self._last_error != cause:
            _LOGGER.log(level, sentence, self.token_id, sentence_of(cause), _text(self.ends_at))
        self._last_error = cause

    def _is_waiting(self) -> bool:
        # A clock that was set back must not make a wait of minutes one of hours.
        return 0 < self._retry_at - self.clock() <= times.REFUSED_SECONDS_MAX

    def _back_off(self, asked: float | None) -> None:
        self._wait(times.retry_seconds(self._failures, self._remaining(), asked, self._uniform))
        self._failures += 1

    def _wait(self, seconds: float) -> None:
        self._retry_at = self.clock() + seconds

    def _remaining(self) -> float:
        """How long the token lives on; after a rotation was asked for, how long in any case, while that is any time."""
        now = self.clock()
        if (
            self._asked_at is not None
            and (surely := self._asked_at + (self._grace_seconds or _GRACE_SECONDS) - now) > 0
        ):
            return min(surely, self.ends_at - now)
        return self.ends_at - now


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(seconds: float) -> str:
    return _instant(seconds).isoformat(timespec="seconds")
