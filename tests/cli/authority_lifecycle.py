"""The authority's part in what becomes of tokens later: rotated, narrowed, blocked, looked at by their holders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from watchword.status import details_trailer, reason_detail
from watchword.v1 import subject_service_pb2, subject_service_pb2_grpc, token_service_pb2


class Lifecycle(subject_service_pb2_grpc.SubjectServiceServicer):
    """What an authority has of its own: `tokens` by secret, `add`, `_admit`.

    The next `lost_replies` rotations are carried out, and their replies get lost on the way.
    """

    tokens: dict[str, token_service_pb2.Token]
    bearers: list[str]
    position: token_service_pb2.Position
    propagation: token_service_pb2.Propagation.ValueType
    add: Callable[..., str]
    _admit: Callable[[Message, Any], None]

    def __init__(self) -> None:
        self.lost_replies = 0
        self.rotations: dict[str, str] = {}
        self.blocked: dict[str, subject_service_pb2.BlockedSubject] = {}

    def Rotate(self, request: Any, context: Any) -> token_service_pb2.RotateResponse:
        self._admit(request, context)
        old = self._by_id(request.token_id) if request.token_id else self.tokens[self.bearers[-1]]
        if old.successor_id and self.rotations.get(request.request_id) != old.successor_id:
            refuse(
                context,
                grpc.StatusCode.ALREADY_EXISTS,
                f"it has the successor {old.successor_id}",
                reason_detail("TOKEN_ROTATED", token_id=old.successor_id),
            )
        if old.successor_id:
            self._by_id(old.successor_id).state = token_service_pb2.TOKEN_STATE_REVOKED
        secret = self.add(old.subject, scopes=old.scopes, audiences=old.audiences, predecessor_id=old.token_id)
        token = self.tokens[secret]
        token.lineage_id = old.lineage_id or old.token_id
        old.successor_id = token.token_id
        self.rotations[request.request_id] = token.token_id
        if self.lost_replies:
            self.lost_replies -= 1
            refuse(context, grpc.StatusCode.UNAVAILABLE, "the reply got lost")
        response = token_service_pb2.RotateResponse(
            secret=secret, token=token, rotated=old, position=self.position, propagation=self.propagation
        )
        response.effective_in.FromSeconds(30)
        return response

    def Narrow(self, request: Any, context: Any) -> token_service_pb2.NarrowResponse:
        self._admit(request, context)
        token = self._by_id(request.token_id)
        left = [scope for scope in token.scopes if scope not in request.remove_scopes]
        del token.scopes[:]
        token.scopes.extend(left)
        response = token_service_pb2.NarrowResponse(
            token=token,
            position=self.position,
            propagation=self.propagation,
            live_successor_id=token.successor_id,
        )
        response.effective_in.FromSeconds(30)
        return response

    def WhoAmI(self, request: Any, context: Any) -> token_service_pb2.WhoAmIResponse:
        self._admit(request, context)
        return token_service_pb2.WhoAmIResponse(token=self.tokens[self.bearers[-1]])

    def BlockSubject(self, request: Any, context: Any) -> subject_service_pb2.BlockSubjectResponse:
        self._admit(request, context)
        self.blocked[request.subject] = subject_service_pb2.BlockedSubject(
            subject=request.subject, reason=request.reason, blocked_by="admin"
        )
        live = [
            token
            for token in self.tokens.values()
            if request.subject in (token.subject, token.owner) and token.state == token_service_pb2.TOKEN_STATE_LIVE
        ]
        for token in live:
            token.state = token_service_pb2.TOKEN_STATE_REVOKED
        response = subject_service_pb2.BlockSubjectResponse(
            revoked_count=len(live), position=self.position, propagation=self.propagation
        )
        response.effective_in.FromSeconds(30)
        return response

    def UnblockSubject(self, request: Any, context: Any) -> subject_service_pb2.UnblockSubjectResponse:
        self._admit(request, context)
        return subject_service_pb2.UnblockSubjectResponse(
            was_blocked=self.blocked.pop(request.subject, None) is not None
        )

    def ListBlockedSubjects(self, request: Any, context: Any) -> subject_service_pb2.ListBlockedSubjectsResponse:
        self._admit(request, context)
        return subject_service_pb2.ListBlockedSubjectsResponse(subjects=self.blocked.values())

    def _by_id(self, token_id: str) -> token_service_pb2.Token:
        return next(token for token in self.tokens.values() if token.token_id == token_id)


def refuse(context: Any, code: grpc.StatusCode, message: str, *details: Message) -> None:
    """Ends a call as the service does, with the details in the trailer."""
    context.set_trailing_metadata(details_trailer(code, message, *details))
    context.abort(code, message)
