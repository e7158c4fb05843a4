"""A token that renews itself, with a thread: renewing_aio's, for blocking clients and servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Self

import grpc

from watchword.credentials.place import HandedToken, Place
from watchword.credentials.renewal import Renewal
from watchword.credentials.renewing import CLOSE_SECONDS_MAX, Call, Renewing, Round, Work
from watchword.credentials.source import TokenSource
from watchword.v1.token_service_pb2_grpc import TokenServiceStub


class RenewingToken(Renewing):
    """A TokenSource whose token is renewed in the background, between 60 and 80 % of its life. Made by `file` or
    `handing_to`; see docs/renew-a-token.md.

        token = RenewingToken.file("orders.token")
        with connect("watchword.internal:7600", token=token) as authority, token.renewing(authority):
            ...

    The channel to the authority bears the token itself, which has to name the audience `watchword`, and needs no scope.
    What fails is tried again, and meanwhile the old token serves to its end; `status` says how it is doing, and so does
    the log (`watchword.credentials`). After a fork the child gives out what is in the file, and renews nothing until it
    is started there, with a channel that was made there.
    """

    @classmethod
    def handing_to(
        cls,
        store: Callable[[str], None],
        *,
        token: TokenSource | str,
        ttl_seconds: float | None = None,
        grace_seconds: float | None = None,
    ) -> Self:
        """Begins with `token`, and hands each new one to `store`, which keeps it for the next process and raises if it
        cannot. It is called in a thread of the library's. The rest as for `file`.
        """
        place = HandedToken(token, store)
        return cls(place, partial(Renewal, ttl_seconds=ttl_seconds, grace_seconds=grace_seconds))

    def __init__(self, place: Place, new_renewal: Callable[[], Renewal]) -> None:
        super().__init__(place, new_renewal)
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def start(self, authority: grpc.Channel) -> None:
        """Renews from now on, through a channel to Watchword. Waits for nothing; may be called again."""
        if self._thread is None:
            self._closing = threading.Event()
            run = partial(self._run, TokenServiceStub(authority), self._closing)
            # A daemon: it holds up no interpreter's end.
            self._thread = threading.Thread(target=run, name="watchword-renewing", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the renewing, and lets a rotation that is under way come to its end. Before the channel is closed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()
            thread.join(CLOSE_SECONDS_MAX)

    @contextmanager
    def renewing(self, authority: grpc.Channel) -> Iterator[Self]:
        """`start`, and at the end of the block `close`."""
        self.start(authority)
        try:
            yield self
        finally:
            self.close()

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._thread = None

    def _run(self, stub: TokenServiceStub, leaving: threading.Event) -> None:
        while not leaving.is_set():
            _go(stub, self._round())
            leaving.wait(self._renewal.wait_seconds())
        _go(stub, self._last_round())


def _go(stub: TokenServiceStub, steps: Round) -> None:
    with closing(steps), suppress(StopIteration):
        step = next(steps)
        while True:
            try:
                came = _take(stub, step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(came)


def _take(stub: TokenServiceStub, step: Call | Work) -> Any:
    if isinstance(step, Call):
        return getattr(stub, step.method)(step.request, timeout=step.timeout_seconds)
    return step()
