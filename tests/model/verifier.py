"""One verifier process of the model: the real cache, sessions and stream gates, on steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from tests.client.caches import Made
from tests.clocks import ManualClock
from tests.model.replica import LEASE_SECONDS, Replica, Request
from tests.model.steps import Op, Task
from watchword.token import parse_token_id
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier.caching import WatchedStream
from watchword.verifier.contract import VerifierUnavailableError
from watchword.verifier.lookup import Lookup
from watchword.verifier.session import WatchProtocolError
from watchword.verifier.verdict import Active, Answer, Verdict
from watchword_server.replica.refusal import WatchRefusedError

if TYPE_CHECKING:
    from tests.model.world import World

STEADY_MAX = 100


class Link:
    """One Watch stream: two queues, and two ends that learn of one another's end only by a message, or never."""

    def __init__(self, verifier: Verifier, replica: Replica) -> None:
        self.verifier = verifier
        self.replica = replica
        self.session = verifier.new_session()
        self.stream = replica.attend()
        self.up: deque[pb.WatchRequest] = deque([self.session.hello()])
        self.down: deque[pb.WatchResponse | WatchRefusedError] = deque()
        self.client_open = True
        self.server_open = True
        self.polling: Task[Any] | None = None

    def __repr__(self) -> str:
        return f"Link({self.verifier.name}, {self.replica.name})"

    def arrive(self) -> bool:
        """The next message of the verifier reaches the replica. False: there is none, or nobody to take it."""
        if self.polling is not None and self.polling.done:
            self.polling = None
            if not self.look():
                return True
        if not (self.up and self.server_open and self.replica.running and self.polling is None):
            return False
        try:
            self.stream.receive(self.up.popleft())
        except WatchRefusedError as error:
            self._refuse(error)
            return True
        if self.stream.waits_for_number is not None:
            self.polling = self.replica.poll(self.stream)
        return True

    def look(self) -> bool:
        """The replica looks whether the stream is as it should be. False: it is not, and over."""
        if not (self.server_open and self.replica.running):
            return False
        try:
            self.stream.check()
        except WatchRefusedError as error:
            self._refuse(error)
        return self.server_open

    def write(self) -> bool:
        """The replica writes its next message. False: there is none."""
        if not (self.server_open and self.replica.running):
            return False
        try:
            message = self.stream.take()
        except WatchRefusedError as error:
            self._refuse(error)
            return True
        if message is not None:
            self.down.append(message)
        return message is not None

    def deliver(self) -> bool:
        """The next message of the replica reaches the verifier. False: there is none, or nobody to take it."""
        if not (self.down and self.client_open and self.verifier.running):
            return False
        session, message = self.session, self.down.popleft()
        if isinstance(message, WatchRefusedError):
            self.client_open = False
            if message.reason == "WATCH_PROTOCOL":
                self.verifier.cache.forget()
            return True
        attached, moved = session.attached, session.moved
        try:
            self.up.extend(session.receive(message))
        except WatchProtocolError:
            self.client_open = False
            self.verifier.cache.forget()
            return True
        if session.attached and not attached:
            self.up.append(session.renew())
        if session.moved and not moved:
            self.up.append(session.release())
        return True

    def renew(self) -> bool:
        """The verifier asks for a lease, if it is time to."""
        if not (self.client_open and self.verifier.running and self.session.attached and not self.session.moved):
            return False
        self.up.append(self.session.renew())
        return True

    def cut(self) -> None:
        """What is in flight is lost, and nothing passes any more. Neither end knows."""
        self.up.clear()
        self.down.clear()
        self.client_open = self.server_open = False
        self.stream.close()

    def pump(self) -> bool:
        """Everything that can pass does. False: nothing could."""
        moved = False
        for _ in range(STEADY_MAX):
            if not (self.arrive() | self.write() | self.deliver()):
                break
            moved = True
        return moved

    def _refuse(self, error: WatchRefusedError) -> None:
        self.down.append(error)
        self.server_open = False
        self.stream.close()


class Stream:
    """One open call of a caller, as the real verifier keeps it."""

    def __init__(self, verifier: Verifier, token: Made) -> None:
        self.token = token
        self.judging = 1
        self.watched = verifier.watch_stream(self)


class Verifier:
    """A process with one cache, and the callers that it judges."""

    def __init__(self, world: World, name: str, clock: ManualClock) -> None:
        self.name = name
        self.clock = clock
        self.alive = True
        self.frozen = False
        self.world = world
        self.cache = world.parts.cache(clock)
        self.links: list[Link] = []
        self.tasks: list[Task[Any]] = []
        self.streams: list[Stream] = []
        self.due: dict[WatchedStream, None] = {}

    def __repr__(self) -> str:
        return f"Verifier({self.name})"

    @property
    def running(self) -> bool:
        """Whether it takes steps of its own."""
        return self.alive and not self.frozen

    def new_session(self) -> Any:
        """For one stream."""
        return self.world.parts.session(
            self.cache, self.clock, lease_seconds=LEASE_SECONDS, name=self.name, instance="1", library="model"
        )

    def connect(self, replica: Replica, *, overlap: bool = False) -> Link:
        """A new stream. The one before is read no more, save with `overlap`."""
        for link in self.links:
            link.client_open = link.client_open and overlap
        link = Link(self, replica)
        self.links = [*(link for link in self.links if link.client_open or link.server_open), link]
        return link

    def kill(self) -> None:
        """The process is gone; its streams are not, as far as the replicas know."""
        self.alive = False
        for task in self.tasks:
            task.end()

    # Decisions

    def check(self, token: Made, replica: Replica) -> Task[bool]:
        """A call with this token comes in now; should it have to be looked up, `replica` is asked. Accepted?"""
        return self._begin("check", self._checked(token, replica))

    def open(self, token: Made, replica: Replica) -> Task[bool]:
        """A call that stays open comes in."""
        return self._begin("open", self._opened(token, replica))

    def message(self, stream: Stream, replica: Replica) -> Task[bool]:
        """The next message on an open call."""
        return self._begin("message", self._passed(stream, replica))

    def judge_again(self, replica: Replica) -> list[Task[Any]]:
        """The open calls that are due are judged in the background."""
        if not self.cache.lease.live(self.clock):
            return []
        self.cache.expire_gates()
        due = [stream for stream in self.streams if stream.watched in self.due and stream.watched.is_open]
        self.due.clear()
        return [self._begin("again", self._judged_again(stream, replica)) for stream in due]

    def watch_stream(self, stream: Stream) -> WatchedStream:
        """Registers an open call."""
        return WatchedStream(self.cache, stream.token.text, (), lambda verdict: None, self._recheck, self._recheck)

    def _recheck(self, stream: WatchedStream) -> None:
        self.due[stream] = None

    async def _checked(self, token: Made, replica: Replica) -> bool:
        ended = self.world.is_complete(token)
        verdict = await self.judge(token, replica)
        return self.world.decided(token, verdict, ended)

    async def _opened(self, token: Made, replica: Replica) -> bool:
        ended = self.world.is_complete(token)
        stream = Stream(self, token)
        self.streams.append(stream)
        return await self._judged(stream, replica, ended)

    async def _passed(self, stream: Stream, replica: Replica) -> bool:
        ended = self.world.is_complete(stream.token)
        if not stream.watched.is_open:
            return False
        stream.judging += 1
        return await self._judged(stream, replica, ended)

    async def _judged(self, stream: Stream, replica: Replica, ended: bool) -> bool:
        """Every doubt ends the call, and its gate stays shut."""
        verdict = None
        try:
            verdict = await self.judge(stream.token, replica)
        finally:
            stream.judging -= 1
            if not isinstance(verdict, Active):
                stream.watched.close()
        return stream.watched.is_open and self.world.decided(stream.token, verdict, ended)

    async def _judged_again(self, stream: Stream, replica: Replica) -> None:
        stream.judging += 1
        try:
            verdict = await self.judge(stream.token, replica)
        except VerifierUnavailableError:
            self._recheck(stream.watched)
        else:
            if not isinstance(verdict, Active):
                stream.watched.end(verdict)
        finally:
            stream.judging -= 1

    async def judge(self, token: Made, replica: Replica) -> Verdict:
        """In the order of watchword.verifier.caching_aio."""
        cache = self.cache
        known = await self.decide(token)
        if known is not None:
            self.world.hits += isinstance(known, Active)
            return known
        lookup = cache.joinable(token.text)
        if lookup is not None:
            joined: Request = lookup.result
            await Op(lambda: None, ready=lambda: joined.done, local=True)
            if joined.answer is None:
                raise VerifierUnavailableError("UNAVAILABLE")
            if cache.joined_may_use(lookup, joined.answer):
                self.world.joins += 1
                return joined.answer.verdict
        return (await self._ask(token, replica)).verdict

    async def decide(self, token: Made) -> Verdict | None:
        """From memory: one step."""
        return self.cache.decide(token.text, address="")

    async def finish(self, lookup: Lookup, answer: Answer) -> None:
        """What came is remembered: one step."""
        self.cache.finish(lookup, answer)

    async def _ask(self, token: Made, replica: Replica) -> Answer:
        told = Request()
        lookup = self.cache.begin(token.text, told)
        try:
            request = Request()
            await Op(lambda: replica.serve(parse_token_id(token.token_id), request), answered=lambda: request.done)
            if request.answer is None:
                raise VerifierUnavailableError("UNAVAILABLE")
            told.answer = request.answer
            await self.finish(lookup, request.answer)
            return request.answer
        finally:
            self.cache.abandon(lookup)
            told.done = True

    def _begin(self, name: str, coroutine: Coroutine[Op[Any], None, Any]) -> Task[Any]:
        task: Task[Any] = Task(name, coroutine, VerifierUnavailableError)
        self.tasks = [*(task for task in self.tasks if not task.done), task]
        return task
