"""The callers, all in one process: they issue, check, talk on streams and revoke, and record what they are told.

python -m tests.history.callers, then a JSON line with the fields of Configuration; any second line stops them
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration

from tests.history.events import Decision, Issue, Lag, Log, Revoke, now
from tests.history.pause import pause
from tests.history.verifier_process import AUDIENCE, TALK, UNARY
from tests.history.workload import Check, Family, checks, families
from watchword.v1 import token_service_pb2 as pb
from watchword.v1.token_service_pb2_grpc import TokenServiceStub

CHECKERS_COUNT: Final = 2
STREAMS_COUNT: Final = 2
FAMILIES_COUNT: Final = 4
REVOKED_KEPT_MAX: Final = 40
ATTEMPTS_MAX: Final = 6
ISSUE_SECONDS_MAX: Final = 3.0
LAG_PERIOD_SECONDS: Final = 0.05
# Gone servers are tried again soon: they come back under the same address.
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
# Said before anything was done. Everything else that fails is ambiguous.
REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
DENIALS: Final = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@dataclass(frozen=True, slots=True)
class Configuration:
    """Where everything is."""

    seed: int
    lease_seconds: float
    verifiers: Mapping[str, str]
    replicas: tuple[str, ...]
    token_file: str
    log_file: str


@dataclass(frozen=True, slots=True)
class Held:
    """A token in a caller's hands."""

    token_id: str
    secret: str


class Callers:
    """All of them, on one event loop."""

    def __init__(self, configuration: Configuration, log: Log) -> None:
        self._configuration = configuration
        self._log = log
        self._admin = Held("", Path(configuration.token_file).read_text("ascii").strip())
        self._live: list[Held] = []
        self._revoked: deque[Held] = deque(maxlen=REVOKED_KEPT_MAX)
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Works until told to stop, and lets what is under way come to its end."""
        async with self._channels() as (verifiers, replicas):
            work: list[Coroutine[Any, Any, None]] = [self._feel_lag()]
            for name, channel in verifiers.items():
                work += [self._checks(name, channel, f"{name}-{one}") for one in range(CHECKERS_COUNT)]
                work += [self._streams(name, channel, f"{name}-stream-{one}") for one in range(STREAMS_COUNT)]
            work += [self._families(lane, verifiers, replicas) for lane in range(FAMILIES_COUNT)]
            async with asyncio.TaskGroup() as group:
                for one in work:
                    group.create_task(one)
                await stop.wait()
                self._stopping = True

    @asynccontextmanager
    async def _channels(self) -> AsyncIterator[tuple[dict[str, grpc.aio.Channel], list[Any]]]:
        verifiers = {
            name: grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            for name, address in self._configuration.verifiers.items()
        }
        replicas = [
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in self._configuration.replicas
        ]
        try:
            yield verifiers, [TokenServiceStub(channel) for channel in replicas]
        finally:
            for channel in (*verifiers.values(), *replicas):
                await channel.close()

    async def _feel_lag(self) -> None:
        while not self._stopping:
            due = now() + LAG_PERIOD_SECONDS
            await pause(LAG_PERIOD_SECONDS)
            if (late := now() - due) > LAG_PERIOD_SECONDS:
                self._log.write(Lag(now(), late))

    # ---- whoever is checked ------------------------------------------------------------------------------------------

    def _pick(self, check: Check) -> Held | None:
        pool = self._revoked if check.revoked and self._revoked else self._live
        return pool[int(check.pick * len(pool))] if pool else None

    async def _checks(self, verifier: str, channel: grpc.aio.Channel, caller: str) -> None:
        for check in checks(self._configuration.seed, caller, lease_seconds=self._configuration.lease_seconds):
            if self._stopping:
                return
            if (held := self._pick(check)) is not None:
                await self._check(verifier, channel, held, check.patience_seconds)
            await pause(check.pause_seconds)

    async def _check(self, verifier: str, channel: grpc.aio.Channel, held: Held, patience_seconds: float) -> None:
        invoked = now()
        code = grpc.StatusCode.OK
        try:
            call: Any = channel.unary_unary(UNARY)
            await call(b"", metadata=bearer(held), timeout=patience_seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        self._decided(held, "unary", verifier, invoked, code)

    async def _streams(self, verifier: str, channel: grpc.aio.Channel, caller: str) -> None:
        for check in checks(self._configuration.seed, caller, lease_seconds=self._configuration.lease_seconds):
            if self._stopping:
                return
            if (held := self._pick(check)) is not None:
                await self._talk(verifier, channel, held, check)
            await pause(check.pause_seconds)

    async def _talk(self, verifier: str, channel: grpc.aio.Channel, held: Held, check: Check) -> None:
        """One message at a time, until the stream is ended or enough was said."""
        call: Any = channel.stream_stream(TALK)(metadata=bearer(held))
        for _ in range(check.messages_count):
            invoked = now()
            code = grpc.StatusCode.OK
            try:
                async with asyncio.timeout(check.patience_seconds):
                    await call.write(b"x")
                    if await call.read() is grpc.aio.EOF:
                        code = await call.code()
            except TimeoutError:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            except grpc.aio.AioRpcError as error:
                code = error.code()
            except asyncio.InvalidStateError:
                # Ended before it was written to.
                code = await call.code()
            self._decided(held, "message", verifier, invoked, code)
            if code is not grpc.StatusCode.OK or self._stopping:
                break
            await pause(check.pause_seconds)
        call.cancel()

    def _decided(self, held: Held, kind: str, verifier: str, invoked: float, code: grpc.StatusCode) -> None:
        outcome = "accept" if code is grpc.StatusCode.OK else "inactive" if code in DENIALS else "unavailable"
        self._log.write(Decision(held.token_id, kind, verifier, invoked, now(), outcome, code.name))

    # ---- whoever issues and revokes ----------------------------------------------------------------------------------

    async def _families(self, lane: int, verifiers: Mapping[str, grpc.aio.Channel], replicas: list[Any]) -> None:
        configuration = self._configuration
        planned = families(configuration.seed, lane, lease_seconds=configuration.lease_seconds)
        for number, family in enumerate(planned):
            if self._stopping:
                return
            await self._live_and_die(family, f"family/{lane}/{number}", verifiers, replicas)

    async def _live_and_die(
        self,
        family: Family,
        subject: str,
        verifiers: Mapping[str, grpc.aio.Channel],
        replicas: list[Any],
    ) -> None:
        stub = replicas[family.replica % len(replicas)]
        members = await self._found(family, subject, stub)
        if not members:
            await pause(family.linger_seconds)
            return
        # The last one may stay unknown until the revocation is under way: its first lookup races with it.
        known = members[:-1] if family.late and len(members) > 1 else members
        self._live.extend(known)
        await pause(family.linger_seconds)
        named = {
            "token": members[:1],
            "token_id": members[:1],
            "subject": members,
            "issued_by": members[1:],
            "cascade": members,
        }[family.way]
        # While it is being revoked, callers go on using it, and afterwards they try.
        self._revoked.extend(held for held in named if held in known)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._revoke_until_done(family, subject, members[0], replicas))
            if family.late:
                group.create_task(self._check_everywhere(verifiers, members[-1:], family.late_seconds))
        self._live = [held for held in self._live if held not in members]
        await self._check_everywhere(verifiers, named)

    async def _check_everywhere(
        self, verifiers: Mapping[str, grpc.aio.Channel], tokens: list[Held], later_seconds: float = 0.0
    ) -> None:
        await pause(later_seconds)
        patience_seconds = self._configuration.lease_seconds * 0.75
        await asyncio.gather(
            *(
                self._check(name, channel, held, patience_seconds)
                for name, channel in verifiers.items()
                for held in tokens
            )
        )

    async def _revoke_until_done(self, family: Family, subject: str, parent: Held, replicas: list[Any]) -> None:
        for attempt in range(ATTEMPTS_MAX):
            stub = replicas[(family.replica + attempt) % len(replicas)]
            if await self._revoke(family, subject, parent, stub) in ("complete", "refused") or not family.waits:
                return

    async def _found(self, family: Family, subject: str, stub: Any) -> list[Held]:
        """The parent first, the last child issued by the first one."""
        parent = await self._issue(family, subject, self._admin, stub)
        if parent is None:
            return []
        members = [parent]
        for number in range(family.children_count):
            deeper = number > 0 and family.way == "cascade"
            child = await self._issue(family, subject, members[1] if deeper and len(members) > 1 else parent, stub)
            if child is not None:
                members.append(child)
        return members

    async def _issue(self, family: Family, subject: str, issuer: Held, stub: Any) -> Held | None:
        ends = Duration(seconds=family.ttl_seconds)
        request = pb.IssueRequest(
            subject=subject,
            audiences=[AUDIENCE, "watchword"],
            scopes=["watchword.issue"],
            grants=[pb.Grant(scopes=["*", "watchword.issue"], subjects=["*"], audiences=["*", "watchword"])],
            ttl=ends,
        )
        invoked = now()
        try:
            made = await stub.Issue(request, metadata=bearer(issuer), timeout=ISSUE_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            outcome = "refused" if error.code() in REFUSALS else "unknown"
            self._log.write(Issue("", subject, issuer.token_id, family.ttl_seconds, invoked, now(), outcome))
            return None
        held = Held(made.token.token_id, made.secret)
        self._log.write(
            Issue(held.token_id, subject, issuer.token_id, family.ttl_seconds, invoked, now(), "acknowledged")
        )
        return held

    async def _revoke(self, family: Family, subject: str, parent: Held, stub: Any) -> str:
        request = pb.RevokeRequest(reason="ROTATED", no_wait=not family.waits)
        by, value = family.way, parent.token_id
        if by == "token":
            request.token = parent.secret
        elif by == "subject":
            request.subject = value = subject
        elif by == "issued_by":
            request.issued_by = parent.token_id
        else:
            by = "token_id"
            request.token_id = parent.token_id
            request.cascade = family.way == "cascade"
        invoked = now()
        effective_seconds, code = 0.0, grpc.StatusCode.OK
        try:
            answer = await stub.Revoke(
                request, metadata=bearer(self._admin), timeout=self._configuration.lease_seconds * 3 + 2
            )
            complete = answer.propagation == pb.PROPAGATION_COMPLETE
            outcome = "complete" if complete else "pending"
            effective_seconds = answer.effective_in.seconds + answer.effective_in.nanos / 1e9
        except grpc.aio.AioRpcError as error:
            code = error.code()
            outcome = "refused" if code in REFUSALS else "unknown"
        self._log.write(
            Revoke(by, value, request.cascade, family.waits, invoked, now(), outcome, effective_seconds, code.name)
        )
        return outcome


def bearer(held: Held) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {held.secret}"),)


async def main() -> None:
    """Works until standard input says so."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    configuration = Configuration(**json.loads(await lines.readline()))
    sys.stdout.write(json.dumps({"seed": asdict(configuration)["seed"]}) + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    with Log(Path(configuration.log_file)) as log:
        async with asyncio.TaskGroup() as group:
            group.create_task(Callers(configuration, log).run(stop))
            await lines.readline()
            stop.set()
    sys.stdout.write("{}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
