"""Families of tokens: issued, used by the callers, rotated, and ended one way or another. Each answer is recorded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration

from tests.history.events import Issue, Log, Revoke, Rotate, now
from tests.history.fleet_facts import AUDIENCE, IDLE_SECONDS, IDLE_SECONDS_MAX, SCOPE
from tests.history.pause import pause
from tests.history.workload import Family
from watchword.v1 import token_service_pb2 as pb

REVOKED_KEPT_MAX: Final = 40
ATTEMPTS_MAX: Final = 6
WRITE_SECONDS_MAX: Final = 3.0
# Said before anything was done. Everything else that fails is ambiguous.
REFUSALS: Final = {
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True, slots=True)
class Held:
    """A token in a caller's hands."""

    token_id: str
    secret: str


class Lives:
    """Those of all families. `check_everywhere` presents tokens to all verifiers."""

    def __init__(
        self,
        admin: Held,
        log: Log,
        check_everywhere: Callable[[list[Held], float], Coroutine[Any, Any, None]],
        *,
        lease_seconds: float,
    ) -> None:
        self._admin = admin
        self._log = log
        self._check_everywhere = check_everywhere
        self._lease_seconds = lease_seconds
        self.live: list[Held] = []
        self.ended: deque[Held] = deque(maxlen=REVOKED_KEPT_MAX)
        """Those that are revoked, or being so."""

    async def one(self, family: Family, subject: str, replicas: list[Any]) -> None:
        """From the first Issue to the end."""
        stub = replicas[family.replica % len(replicas)]
        members = await self._found(family, subject, stub)
        if not members:
            await pause(family.linger_seconds)
            return
        # The last one may stay unknown until the revocation is under way: its first lookup races with it.
        known = members[:-1] if family.late and len(members) > 1 else members
        self.live.extend(known)
        await pause(family.linger_seconds / 2)
        head = await self._succeed(family, members, subject, replicas) if family.rotates else members[0]
        await pause(family.linger_seconds / 2)
        if family.way == "idle":
            await self._leave_alone(members)
            return
        named = self._named(family, members, head)
        # While it is being revoked, callers go on using it, and afterwards they try.
        self.ended.extend(held for held in named if held in self.live)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._end(family, subject, members[0], head, replicas))
            if family.late:
                group.create_task(self._check_everywhere(members[-1:], family.late_seconds))
        self._forget(members)
        await self._check_everywhere(named, 0.0)

    def _named(self, family: Family, members: list[Held], head: Held) -> list[Held]:
        """What the end is about, so that callers go on trying it."""
        if family.way in ("token", "token_id"):
            return [head, *(members[1:] if family.tied else ())]
        return {"narrow": [head], "issued_by": [one for one in members[1:] if one is not head]}.get(family.way, members)

    def _forget(self, members: list[Held]) -> None:
        self.live = [held for held in self.live if held not in members]

    async def _leave_alone(self, members: list[Held]) -> None:
        """Sessions that nobody uses any more end by themselves. Other families live meanwhile."""
        self._forget(members)
        await pause(IDLE_SECONDS_MAX)
        await self._check_everywhere(members[:1], 0.0)

    async def _found(self, family: Family, subject: str, stub: Any) -> list[Held]:
        """The parent first, the last child issued by the first one."""
        parent = await self._issue(family, subject, self._admin, stub, tied=False)
        if parent is None:
            return []
        members = [parent]
        for number in range(family.children_count):
            deeper = number > 0 and family.way == "cascade"
            issuer = members[1] if deeper and len(members) > 1 else parent
            child = await self._issue(family, subject, issuer, stub, tied=family.tied)
            if child is not None:
                members.append(child)
        return members

    async def _issue(self, family: Family, subject: str, issuer: Held, stub: Any, *, tied: bool) -> Held | None:
        request = pb.IssueRequest(
            subject=subject,
            audiences=[AUDIENCE, "watchword"],
            scopes=["watchword.issue", SCOPE],
            grants=[pb.Grant(scopes=["*", "watchword.issue"], subjects=["*"], audiences=["*", "watchword"])],
            ttl=Duration(seconds=family.ttl_seconds),
            tied=tied,
        )
        idle_seconds = IDLE_SECONDS if family.way == "idle" else 0
        if idle_seconds:
            request.kind = pb.TOKEN_KIND_SESSION
            request.idle_timeout.seconds = idle_seconds
        told = Issue(
            "", subject, issuer.token_id, family.ttl_seconds, now(), 0.0, "", tied=tied, idle_seconds=idle_seconds
        )
        try:
            made = await stub.Issue(request, metadata=bearer(issuer), timeout=WRITE_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            outcome = "refused" if error.code() in REFUSALS else "unknown"
            self._log.write(replace(told, returned=now(), outcome=outcome))
            return None
        self._log.write(replace(told, token=made.token.token_id, returned=now(), outcome="acknowledged"))
        return Held(made.token.token_id, made.secret)

    # ---- rotation ----------------------------------------------------------------------------------------------------

    async def _succeed(self, family: Family, members: list[Held], subject: str, replicas: list[Any]) -> Held:
        """Rotates the parent by its own token; the head of its lineage then. Repeated with the same request id until
        it is answered: the successor of an answer that was lost is ended for it."""
        parent = members[0]
        request = pb.RotateRequest(grace=Duration(seconds=family.grace_seconds), request_id=f"rotate-{parent.token_id}")
        for attempt in range(ATTEMPTS_MAX):
            stub = replicas[(family.replica + attempt) % len(replicas)]
            request.attempt = attempt + 1
            told = await self._rotate(family, subject, parent, request, stub)
            if isinstance(told, Held):
                members.append(told)
                self.live.append(told)
                return told
            if told == "refused":
                break
        return parent

    async def _rotate(
        self, family: Family, subject: str, parent: Held, request: pb.RotateRequest, stub: Any
    ) -> Held | str:
        told = Rotate(parent.token_id, "", family.grace_seconds, now(), 0.0, "")
        try:
            made = await stub.Rotate(request, metadata=bearer(parent), timeout=self._lease_seconds * 3 + 2)
        except grpc.aio.AioRpcError as error:
            outcome = "refused" if error.code() in REFUSALS else "unknown"
            self._log.write(replace(told, returned=now(), outcome=outcome, code=error.code().name))
            return outcome
        returned = now()
        successor = Held(made.token.token_id, made.secret)
        self._log.write(
            Issue(
                successor.token_id,
                subject,
                "",
                family.ttl_seconds,
                told.invoked,
                returned,
                "acknowledged",
                idle_seconds=IDLE_SECONDS if family.way == "idle" else 0,
            )
        )
        self._log.write(
            replace(
                told,
                successor=successor.token_id,
                returned=returned,
                outcome="complete" if made.propagation == pb.PROPAGATION_COMPLETE else "pending",
                effective_seconds=made.effective_in.seconds + made.effective_in.nanos / 1e9,
            )
        )
        return successor

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def _end(self, family: Family, subject: str, parent: Held, head: Held, replicas: list[Any]) -> None:
        for attempt in range(ATTEMPTS_MAX):
            stub = replicas[(family.replica + attempt) % len(replicas)]
            if family.way == "narrow":
                outcome = await self._narrow(family, head, stub)
            else:
                outcome = await self._revoke(family, subject, parent, head, stub)
            if outcome in ("complete", "refused") or not family.waits:
                return

    async def _revoke(self, family: Family, subject: str, parent: Held, head: Held, stub: Any) -> str:
        request = pb.RevokeRequest(reason="RETIRED", no_wait=not family.waits)
        by, value = family.way, head.token_id
        if by == "token":
            request.token = head.secret
        elif by == "subject":
            request.subject = value = subject
        elif by == "issued_by":
            request.issued_by = value = parent.token_id
        elif by == "cascade":
            # Of the first one: its successor comes with it.
            by, value, request.token_id, request.cascade = "token_id", parent.token_id, parent.token_id, True
        else:
            request.token_id = head.token_id
        return await self._ended(stub.Revoke, request, by, value, family)

    async def _narrow(self, family: Family, head: Held, stub: Any) -> str:
        request = pb.NarrowRequest(token_id=head.token_id, remove_scopes=[SCOPE], no_wait=not family.waits)
        return await self._ended(stub.Narrow, request, "narrow", head.token_id, family)

    async def _ended(self, method: Any, request: Any, by: str, value: str, family: Family) -> str:
        invoked = now()
        effective_seconds, code = 0.0, grpc.StatusCode.OK
        try:
            answer = await method(request, metadata=bearer(self._admin), timeout=self._lease_seconds * 3 + 2)
            outcome = "complete" if answer.propagation == pb.PROPAGATION_COMPLETE else "pending"
            effective_seconds = answer.effective_in.seconds + answer.effective_in.nanos / 1e9
        except grpc.aio.AioRpcError as error:
            code = error.code()
            outcome = "refused" if code in REFUSALS else "unknown"
        cascade = family.way == "cascade"
        self._log.write(Revoke(by, value, cascade, family.waits, invoked, now(), outcome, effective_seconds, code.name))
        return outcome


def bearer(held: Held) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {held.secret}"),)
