"""Answers checks from memory under a lease, and asks the authority otherwise: for thread-pool servers."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import grpc

from watchword.lease import LEASE_SECONDS_DEFAULT, Clock
from watchword.network import address_of_peer
from watchword.token import PREFIX_DEFAULT, MalformedTokenError, parse_token
from watchword.verifier.caching import EYE_SECONDS, Caching, WatchedStream
from watchword.verifier.contract import PeerName, VerifierUnavailableError
from watchword.verifier.entries import judge
from watchword.verifier.limits import CacheLimits
from watchword.verifier.lookup import Lookup
from watchword.verifier.misses import MissLimits
from watchword.verifier.remote_sync import RemoteVerifier
from watchword.verifier.verdict import Answer, Inactive, Verdict
from watchword.verifier.watch_sync import Watch
from watchword.verifier.wire import Question

# Open streams that are judged again at a time.
_RECHECKS_AT_A_TIME: Final = 8


class CachingVerifier(Caching):
    """A BlockingVerifier that remembers: watchword.aio's, for threads.

    A check of a remembered token takes microseconds and no I/O. Everything else is asked, as by RemoteVerifier; so is
    everything while no lease is live: the authority cannot be reached, is older than this library, or this platform
    has no CLOCK_BOOTTIME. `docs/revocation.md` states the guarantee; `status` says what is the case.

    `channel` as for RemoteVerifier. It is not closed here. `name` tells operators which service this is; they see it in
    `watchword watchers`. `lease_seconds` is asked for and may be granted shorter: how long cached answers outlive the
    connection to the authority, and how long a revocation waits for a verifier that is cut off.

    The watch opens with the first check, or by `start`. `close` it before the channel. After a fork the child begins
    afresh, and needs a channel that was made there.

    Raises ValueError for settings that make no sense.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        name: str,
        lease_seconds: float = LEASE_SECONDS_DEFAULT,
        limits: CacheLimits | None = None,
        miss_limits: MissLimits | None = None,
        token_prefix: str = PREFIX_DEFAULT,
        timeout_seconds: float = 2.0,
        batch_size_max: int = 256,
        queue_size_max: int = 10_000,
        calls_in_flight_max: int = 2,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            name=name,
            lease_seconds=lease_seconds,
            limits=limits,
            miss_limits=miss_limits,
            token_prefix=token_prefix,
            clock=clock,
        )
        self._channel: Final = channel
        self._timeout_seconds: Final = timeout_seconds
        self._remote: Final = RemoteVerifier(
            channel,
            token_prefix=token_prefix,
            timeout_seconds=timeout_seconds,
            batch_size_max=batch_size_max,
            queue_size_max=queue_size_max,
            calls_in_flight_max=calls_in_flight_max,
        )
        self._watch: Watch | None = None
        self._eye: threading.Thread | None = None
        self._started_in: int | None = None
        self._starting: Final = threading.Lock()
        self._closed: Final = threading.Event()
        self._look = threading.Event()

    def start(self) -> None:
        """Opens the watch, so that the first check need not. Does not wait for it; may be called again."""
        self._start()

    def close(self) -> None:
        """Gives the lease back, so that no revocation waits for this verifier, and refuses what waits and what comes.

        Takes about a second at most, and as long as a check that is under way.
        """
        with self._starting:
            self._closed.set()
        self._look.set()
        if self._cache is not None:
            self._cache.lapse()
        if self._watch is not None:
            self._watch.close()
        self._remote.close()
        if self._eye is not None:
            self._eye.join(EYE_SECONDS + self._timeout_seconds)

    def check(self, token: str, required_scopes: tuple[str, ...], *, peer: PeerName | None = None) -> Verdict:
        """See BlockingVerifier. Beyond the limits on misses it raises VerifierUnavailableError (`MISSES_LIMITED`)."""
        known = self.check_now(token, required_scopes)
        if known is not None:
            return known
        try:
            parse_token(token, self._prefix)
        except MalformedTokenError:
            return Inactive(malformed=True)
        caller = None if peer is None else peer()
        address = "" if caller is None else address_of_peer(caller)
        known = self._first_use(token, required_scopes, address)
        if known is not None:
            return known
        self._start()
        if self._cache is not None and (lookup := self._cache.joinable(token)) is not None:
            joined = self._join(lookup)
            if joined is not None and self._cache.joined_may_use(lookup, joined):
                # The authority was asked once, and knows of one use: this one is counted as from memory.
                known = self._first_use(token, required_scopes, address)
                return judge(joined.verdict, required_scopes) if known is None else known
        self._misses.take(caller)
        return self._ask(self._question(token, required_scopes, address)).verdict

    def _ask(self, question: Question) -> Answer:
        """A lookup of one's own. Its answer may be used once, whatever has changed since it was read."""
        self._asked_count += 1
        cache = self._cache
        if cache is None:
            return self._remote.ask(question)
        told: Future[Answer | str | None] = Future()
        lookup = cache.begin(question.token, told)
        outcome: Answer | str | None = None
        try:
            answer = outcome = self._remote.ask(question)
            self._answered(answer)
            cache.finish(lookup, answer)
            return answer
        except VerifierUnavailableError as error:
            outcome = error.cause
            raise
        finally:
            cache.abandon(lookup)
            told.set_result(outcome)

    def _join(self, lookup: Lookup) -> Answer | None:
        """The answer to another's lookup; None if the other gave up. Raises VerifierUnavailableError where it did."""
        told: Future[Answer | str | None] = lookup.result
        try:
            outcome = told.result(self._timeout_seconds)
        except TimeoutError:
            raise VerifierUnavailableError("DEADLINE_EXCEEDED") from None
        if isinstance(outcome, str):
            raise VerifierUnavailableError(outcome)
        return outcome

    def _start(self) -> None:
        process = os.getpid()
        if self._started_in == process:
            return
        with self._starting:
            if self._started_in == process or self._closed.is_set():
                return
            if self._started_in is not None:
                self._forked()
            self._started_in = process
            cache, clock = self._cache, self._clock
            if cache is not None and clock is not None:
                self._watch = Watch(self._channel, cache, clock, self._attachment, lambda: self._session(cache, clock))
                # After a fork nobody can tell in which state the old one is.
                self._look = threading.Event()
                self._eye = threading.Thread(target=self._keep_an_eye, name="watchword-streams", daemon=True)
                self._eye.start()

    def _look_soon(self) -> None:
        self._look.set()

    def _keep_an_eye(self) -> None:
        """Has open streams judged again whose token has changed, or whose judgement has run out or was lost with the
        cache.
        """
        while not self._closed.is_set():
            self._look.wait(EYE_SECONDS)
            self._look.clear()
            due = self._streams_due()
            if due:
                with ThreadPoolExecutor(min(_RECHECKS_AT_A_TIME, len(due)), "watchword-streams") as pool:
                    list(pool.map(self._judge_again, due))

    def _judge_again(self, stream: WatchedStream) -> None:
        try:
            # Apart from the limits on misses, which are for calls; RECHECKS_MAX bounds these.
            verdict = self._look_again(stream)
            if verdict is None:
                verdict = (self._ask(stream.question)).verdict
            stream.judged(verdict)
        except Exception:  # that it cannot be judged now, or whatever ending it raised: the others are looked after
            # No reason to end a stream that says nothing: its next message is judged anyway.
            self._recheck(stream)
