"""Coroutines that a test moves by hand: at each await of theirs it decides when, and whether, they go on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def always() -> bool:
    return True


class Op(Generic[T]):
    """Something done elsewhere: a request on its way until `perform`, then an answer on its way until `Task.step`.

    `ready`: whether it can be performed yet; what waits for a lock cannot. `answered`: whether there is an answer yet.
    One that is `local` is answered at once and cannot get lost.
    """

    def __init__(
        self,
        run: Callable[[], T],
        *,
        ready: Callable[[], bool] = always,
        answered: Callable[[], bool] = always,
        local: bool = False,
    ) -> None:
        self.run = run
        self.ready = ready
        self.answered = answered
        self.local = local
        self.performed = False
        self._result: T | None = None
        self._error: Exception | None = None

    def perform(self) -> None:
        """It happens there, now."""
        self.performed = True
        try:
            self._result = self.run()
        except Exception as error:
            self._error = error

    def __await__(self) -> Generator[Op[Any], None, T]:
        yield self
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class Task(Generic[T]):
    """A coroutine that awaits nothing but Ops. Runs up to the first at once.

    `expected`: the errors it may end with.
    """

    def __init__(self, name: str, coroutine: Coroutine[Op[Any], None, T], *expected: type[Exception]) -> None:
        self.name = name
        self.result: T | None = None
        self.error: Exception | None = None
        self.done = False
        self.op: Op[Any] | None = None
        self._coroutine = coroutine
        self._expected = expected
        self._move(lambda: coroutine.send(None))

    def __repr__(self) -> str:
        return f"Task({self.name})"

    @property
    def ready(self) -> bool:
        """Whether `step` does anything."""
        op = self.op
        return op is not None and (op.answered() if op.performed else op.ready())

    def step(self) -> None:
        """The request arrives; or the answer does."""
        op = self.op
        assert op is not None, f"{self.name} has ended"
        assert self.ready, f"{self.name} cannot go on yet"
        if not op.performed:
            self.arrive()
            if not op.local:
                return
        self._move(lambda: self._coroutine.send(None))

    def lose(self, error: Exception) -> None:
        """The connection is lost: with the request, if that has not arrived, otherwise with the answer."""
        assert self.op is not None
        assert not self.op.local
        self._move(lambda: self._coroutine.throw(error))

    def run(self) -> T:
        """To the end; what it returned."""
        while not self.done:
            self.step()
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]

    def run_until(self, reached: Callable[[], bool]) -> None:
        """Steps until `reached`."""
        while not reached():
            self.step()

    @property
    def on_its_way(self) -> bool:
        """Whether a request has left and not arrived: it may, whatever became of its sender."""
        return self.op is not None and not self.op.performed and not self.op.local and self.op.ready()

    def end(self) -> None:
        """Its process is gone. A request that has left may still arrive: `op` remains."""
        if not self.done:
            self.done = True
            self._coroutine.close()

    def arrive(self) -> None:
        """The request, and no more."""
        assert self.op is not None
        self.op.perform()

    def _move(self, resume: Callable[[], Op[Any]]) -> None:
        try:
            self.op = resume()
        except StopIteration as stop:
            self.op, self.done, self.result = None, True, stop.value
        except self._expected as error:
            self.op, self.done, self.error = None, True, error


class SteppedLock:
    """An asyncio.Lock for Tasks."""

    def __init__(self) -> None:
        self._held = False

    async def __aenter__(self) -> None:
        if self._held:
            await Op(lambda: None, ready=lambda: not self._held, local=True)
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held = False
