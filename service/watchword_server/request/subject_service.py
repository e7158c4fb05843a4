"""SubjectService: those for whom tokens are issued, or no longer."""

from __future__ import annotations

from typing import Any

from watchword.v1 import subject_service_pb2 as pb
from watchword_server.answer.block import Blocking
from watchword_server.answer.propagate import Propagating
from watchword_server.request import messages, pages
from watchword_server.request.pipeline import Call, Method
from watchword_server.store.contract import BlockedSubject, Store

SERVICE = pb.DESCRIPTOR.services_by_name["SubjectService"]


class SubjectService:
    """The RPCs of watchword.v1.SubjectService."""

    def __init__(self, *, store: Store, blocking: Blocking, propagating: Propagating) -> None:
        self._store = store
        self._blocking = blocking
        self._propagating = propagating

    def methods(self) -> list[Method[Any]]:
        """What to register."""
        path = f"/{SERVICE.full_name}/"
        return [
            Method(path + "BlockSubject", pb.BlockSubjectRequest, self.block_subject, writes=True),
            Method(path + "UnblockSubject", pb.UnblockSubjectRequest, self.unblock_subject, writes=True),
            Method(path + "ListBlockedSubjects", pb.ListBlockedSubjectsRequest, self.list_blocked_subjects),
        ]

    async def block_subject(self, call: Call[pb.BlockSubjectRequest]) -> pb.BlockSubjectResponse:
        """Ends what a subject has, and tells how far that has got."""
        request = call.request
        revoked = await self._blocking.block(
            call.caller, call.actor, request.subject, request.reason, force=request.force
        )
        reached = await self._propagating.reached(
            revoked.position, wait=not request.no_wait, seconds_left=call.seconds_left()
        )
        return pb.BlockSubjectResponse(
            revoked_count=revoked.count,
            out_of_reach_count=revoked.out_of_reach,
            position=messages.position_message(revoked.position),
            propagation=messages.propagation(reached),
            effective_in=messages.effective_in(reached),
        )

    async def unblock_subject(self, call: Call[pb.UnblockSubjectRequest]) -> pb.UnblockSubjectResponse:
        """Lets tokens be issued again."""
        was_blocked = await self._blocking.unblock(call.caller, call.actor, call.request.subject)
        return pb.UnblockSubjectResponse(was_blocked=was_blocked)

    async def list_blocked_subjects(self, call: Call[pb.ListBlockedSubjectsRequest]) -> pb.ListBlockedSubjectsResponse:
        """A page of the blocked subjects, in order of their names."""
        limit = pages.page_size(call.request.page_size)
        after = pages.page_after(call.request.page_token)
        blocked = await self._store.blocked(limit=limit + 1, after=after)
        return pb.ListBlockedSubjectsResponse(
            subjects=[_blocked_message(one) for one in blocked[:limit]],
            next_page_token=pages.page_token(blocked[limit - 1].subject) if len(blocked) > limit else "",
        )


def _blocked_message(blocked: BlockedSubject) -> pb.BlockedSubject:
    return pb.BlockedSubject(
        subject=blocked.subject,
        reason=blocked.reason,
        blocked_by=blocked.blocked_by,
        blocked_at=messages.timestamp_message(blocked.blocked_at),
    )
