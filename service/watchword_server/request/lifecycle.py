"""What changes tokens: Issue, Rotate, Narrow, Revoke, RegisterScopes. Each asks a use case and encodes its answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from watchword.token import ParsedToken, format_token_id
from watchword.v1 import token_service_pb2 as pb
from watchword_server.answer.errors import FieldsInvalidError
from watchword_server.answer.issue import IssueOrder, Issuing
from watchword_server.answer.narrow import Narrower, NarrowOrder
from watchword_server.answer.propagate import Propagating
from watchword_server.answer.register import Registering
from watchword_server.answer.revoke import RevokeOrder, Revoking
from watchword_server.answer.rotate import RotateOrder, Rotating
from watchword_server.request import messages, pages
from watchword_server.request.pipeline import Call, Method
from watchword_server.request.presented import token_field_if_set, well_formed
from watchword_server.request.rates import Rates
from watchword_server.request.token_service import PATH
from watchword_server.rules.tokens import TokenKind
from watchword_server.store.contract import Selector, Store


class TokenLifecycle:
    """The RPCs of watchword.v1.TokenService that write."""

    def __init__(
        self,
        *,
        store: Store,
        issuing: Issuing,
        rotating: Rotating,
        narrower: Narrower,
        revoking: Revoking,
        propagating: Propagating,
        registering: Registering,
        rates: Rates | None = None,
    ) -> None:
        self._store = store
        self._issuing = issuing
        self._rotating = rotating
        self._narrower = narrower
        self._revoking = revoking
        self._propagating = propagating
        self._registering = registering
        self._rates = rates or Rates(0)

    def methods(self) -> list[Method[Any]]:
        """What to register."""
        return [
            Method(PATH + "Issue", pb.IssueRequest, self.issue, writes=True, rates=self._rates),
            Method(PATH + "Rotate", pb.RotateRequest, self.rotate, writes=True, rates=self._rates),
            Method(PATH + "Narrow", pb.NarrowRequest, self.narrow, writes=True),
            Method(PATH + "Revoke", pb.RevokeRequest, self.revoke, token_field_if_set, writes=True),
            Method(PATH + "RegisterScopes", pb.RegisterScopesRequest, self.register_scopes, writes=True),
        ]

    async def issue(self, call: Call[pb.IssueRequest]) -> pb.IssueResponse:
        """A new token; its secret leaves the server here."""
        self._rates.spend(call.caller)
        request = call.request
        order = IssueOrder(
            subject=request.subject,
            audiences=tuple(request.audiences),
            scopes=tuple(request.scopes),
            grants=messages.grants_of(request.grants),
            ttl=messages.duration_given(request, "ttl"),
            name=request.name,
            metadata=dict(request.metadata),
            request_id=request.request_id,
            kind=messages.kind_of(request.kind, "kind") or TokenKind.SERVICE,
            owner=request.owner,
            idle_timeout=messages.duration_given(request, "idle_timeout"),
            allowed_networks=tuple(request.allowed_networks),
            certificate_sha256=request.certificate_sha256,
            tied=request.tied,
        )
        issued = await self._issuing.issue(call.caller, call.actor, order, call.snapshot.now)
        return pb.IssueResponse(
            secret=issued.token.text.decode("ascii"), token=messages.token_message(issued.record, call.snapshot.now)
        )

    async def rotate(self, call: Call[pb.RotateRequest]) -> pb.RotateResponse:
        """A successor, whose secret leaves the server here; and what became of the rotated token."""
        self._rates.spend(call.caller)
        request = call.request
        order = RotateOrder(
            token_id=pages.token_id_of(request.token_id, "token_id") if request.token_id else None,
            ttl=messages.duration_given(request, "ttl"),
            grace=messages.duration_given(request, "grace"),
            request_id=request.request_id,
            attempt=request.attempt,
        )
        # Before: once there is a successor, nothing that fails may keep its secret from the caller.
        usage = await self._store.usage([order.token_id or call.caller.token_id])
        done = await self._rotating.rotate(call.caller, call.actor, order, call.snapshot.now)
        successor, rotated = done.outcome.successor, done.outcome.rotated
        # When it was done, by the database's clock: without a grace, that is when the rotated one ended.
        now = successor.created_at
        reached = await self._propagating.reached(
            done.outcome.position, wait=done.at_once, seconds_left=call.seconds_left()
        )
        return pb.RotateResponse(
            secret=done.token.text.decode("ascii"),
            token=messages.token_message(successor, now),
            rotated=messages.token_message(rotated, now, usage.get(rotated.token_id, ())),
            position=messages.position_message(done.outcome.position),
            propagation=messages.propagation(reached),
            effective_in=messages.effective_in(reached),
        )

    async def narrow(self, call: Call[pb.NarrowRequest]) -> pb.NarrowResponse:
        """Takes rights or life from a token, and tells how far that has got."""
        request = call.request
        order = NarrowOrder(
            token_id=pages.token_id_of(request.token_id, "token_id"),
            remove_scopes=tuple(request.remove_scopes),
            ttl=messages.duration_given(request, "ttl"),
            reason=request.reason,
            force=request.force,
        )
        narrowed = await self._narrower.narrow(call.caller, call.actor, order)
        reached = await self._propagating.reached(
            narrowed.position, wait=not request.no_wait, seconds_left=call.seconds_left()
        )
        return pb.NarrowResponse(
            token=messages.token_message(narrowed.record, call.snapshot.now),
            position=messages.position_message(narrowed.position),
            propagation=messages.propagation(reached),
            effective_in=messages.effective_in(reached),
            live_successor_id=_id_text(narrowed.live_successor_id),
        )

    async def revoke(self, call: Call[pb.RevokeRequest]) -> pb.RevokeResponse:
        """Ends tokens, and tells how far that has got. A caller that leaves while it waits undoes nothing."""
        request = call.request
        presented, selector = _target(call)
        order = RevokeOrder(presented, selector, request.reason, request.cascade, request.force)
        if request.dry_run:
            return await self._preview(call, order)
        revoked = await self._revoking.revoke(call.caller, call.actor, order, call.snapshot)
        reached = await self._propagating.reached(
            revoked.position, wait=not request.no_wait, seconds_left=call.seconds_left()
        )
        return pb.RevokeResponse(
            revoked_count=revoked.count,
            out_of_reach_count=revoked.out_of_reach,
            position=messages.position_message(revoked.position),
            propagation=messages.propagation(reached),
            effective_in=messages.effective_in(reached),
            replicas_count=reached.replicas_count,
            verifiers_count=reached.verifiers_count,
            live_successor_id=_id_text(revoked.live_successor_id),
        )

    async def _preview(self, call: Call[pb.RevokeRequest], order: RevokeOrder) -> pb.RevokeResponse:
        preview = await self._revoking.preview(call.caller, call.actor, order, call.snapshot)
        return pb.RevokeResponse(
            revoked_count=preview.count,
            out_of_reach_count=preview.out_of_reach,
            position=messages.position_message(preview.position),
            would_revoke=pages.fitting(messages.token_message(record, preview.now) for record in preview.records),
        )

    async def register_scopes(self, call: Call[pb.RegisterScopesRequest]) -> pb.RegisterScopesResponse:
        """Adds scopes to the catalogue."""
        scopes = [(scope.name, scope.description) for scope in call.request.scopes]
        return pb.RegisterScopesResponse(
            registered_count=await self._registering.register(call.caller, call.actor, scopes)
        )


def _id_text(token_id: UUID | None) -> str:
    return "" if token_id is None else format_token_id(token_id)


def _target(call: Call[pb.RevokeRequest]) -> tuple[ParsedToken | None, Selector]:
    """The token that is presented, or what is named. Raises FieldsInvalidError."""
    request = call.request
    match request.WhichOneof("target"):
        case "token":
            return well_formed(call.tokens), Selector()
        case "token_id":
            return None, Selector(token_id=pages.token_id_of(request.token_id, "token_id"))
        case "subject":
            return None, Selector(subject=request.subject)
        case "issued_by":
            return None, Selector(issued_by=pages.token_id_of(request.issued_by, "issued_by"))
        case "all":
            if not request.all.HasField("issued_before"):
                raise FieldsInvalidError([("all.issued_before", "is required")])
            return None, Selector(issued_before=messages.instant_of(request.all.issued_before, "all.issued_before"))
        case _:
            raise FieldsInvalidError([("target", "one of token, token_id, subject, issued_by or all is required")])
