"""TokenService: each RPC asks one use case and encodes its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from watchword.scope import is_scope
from watchword.token import ParsedToken
from watchword.v1 import token_service_pb2 as pb
from watchword_server.answer.errors import FieldsInvalidError, TokenNotFoundError
from watchword_server.answer.issue import IssueOrder, Issuing
from watchword_server.answer.proof import Digests, examine, proves
from watchword_server.answer.propagate import Propagating
from watchword_server.answer.register import Registering
from watchword_server.answer.revoke import RevokeOrder, Revoking
from watchword_server.request import messages, pages
from watchword_server.request.pipeline import Call, Method
from watchword_server.rules.fields import BATCH_MAX, SCOPES_MAX, Faults
from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import Reason, Verdict, judge
from watchword_server.store.contract import Selector, Snapshot, Store, TokenQuery

# How many required scopes are judged before other calls get a turn: some ten milliseconds at worst.
_SCOPES_AT_A_STRETCH: Final = 512

SERVICE = pb.DESCRIPTOR.services_by_name["TokenService"]


class TokenService:
    """The RPCs of watchword.v1.TokenService, for callers that the pipeline has authenticated."""

    def __init__(
        self,
        *,
        store: Store,
        digests: Digests,
        issuing: Issuing,
        revoking: Revoking,
        propagating: Propagating,
        registering: Registering,
        count_verdict: Callable[[Reason], None],
    ) -> None:
        self._store = store
        self._digests = digests
        self._issuing = issuing
        self._revoking = revoking
        self._propagating = propagating
        self._registering = registering
        self._count_verdict = count_verdict

    def methods(self) -> list[Method[Any]]:
        """What to register."""
        path = f"/{SERVICE.full_name}/"
        return [
            Method(path + "Issue", pb.IssueRequest, self.issue, writes=True),
            Method(path + "Validate", pb.ValidateRequest, self.validate, _token_field),
            Method(path + "BatchValidate", pb.BatchValidateRequest, self.batch_validate, _batched_tokens),
            Method(path + "Revoke", pb.RevokeRequest, self.revoke, _token_field_if_set, writes=True),
            Method(path + "ListScopes", pb.ListScopesRequest, self.list_scopes, _token_field_if_set),
            Method(path + "GetToken", pb.GetTokenRequest, self.get_token, _token_field_if_set),
            Method(path + "ListTokens", pb.ListTokensRequest, self.list_tokens),
            Method(path + "RegisterScopes", pb.RegisterScopesRequest, self.register_scopes, writes=True),
        ]

    async def validate(self, call: Call[pb.ValidateRequest]) -> pb.ValidateResponse:
        """One verdict for the calling verifier."""
        required = tuple(call.request.required_scopes)
        _check_required([required])
        response = pb.ValidateResponse()
        self._answer(response, call.tokens[0], call.snapshot, call.caller.subject, required)
        return response

    async def batch_validate(self, call: Call[pb.BatchValidateRequest]) -> pb.BatchValidateResponse:
        """Many verdicts at one instant."""
        requests, snapshot, verifier = call.request.requests, call.snapshot, call.caller.subject
        # Tuples: each look into a repeated field of a message costs as much as the rest of a verdict.
        all_required = [tuple(request.required_scopes) for request in requests]
        _check_required(all_required)
        response = pb.BatchValidateResponse()
        add = response.responses.add
        asked = 0
        for token, required in zip(call.tokens, all_required, strict=True):
            self._answer(add(), token, snapshot, verifier, required)
            if required:
                asked += len(required)
                if asked >= _SCOPES_AT_A_STRETCH:
                    asked = 0
                    # A thousand times 64 scopes against 64 held take more than a second: the others get their turns
                    # meanwhile (test_a_batch_of_many_scopes_gives_way_to_others).
                    await asyncio.sleep(0)
        return response

    def _answer(
        self,
        response: pb.ValidateResponse,
        token: ParsedToken | None,
        snapshot: Snapshot,
        verifier: str,
        required: Sequence[str],
    ) -> None:
        verdict = examine(self._digests, token, snapshot, verifier=verifier, required=required)
        self._count_verdict(verdict.reason)
        messages.fill_verdict(response, verdict, token, snapshot)

    async def issue(self, call: Call[pb.IssueRequest]) -> pb.IssueResponse:
        """A new token; its secret leaves the server here."""
        request = call.request
        order = IssueOrder(
            subject=request.subject,
            audiences=tuple(request.audiences),
            scopes=tuple(request.scopes),
            grants=messages.grants_of(request.grants),
            ttl=messages.duration_of(request.ttl, "ttl") if request.HasField("ttl") else None,
            name=request.name,
            metadata=dict(request.metadata),
            request_id=request.request_id,
        )
        issued = await self._issuing.issue(call.caller, call.actor, order, call.snapshot.now)
        return pb.IssueResponse(
            secret=issued.token.text.decode("ascii"), token=messages.token_message(issued.record, call.snapshot.now)
        )

    async def revoke(self, call: Call[pb.RevokeRequest]) -> pb.RevokeResponse:
        """Ends tokens, and tells how far that has got. A caller that leaves while it waits undoes nothing."""
        request = call.request
        presented: ParsedToken | None = None
        selector = Selector()
        match request.WhichOneof("target"):
            case "token":
                presented = _well_formed(call)
            case "token_id":
                selector = Selector(token_id=pages.token_id_of(request.token_id, "token_id"))
            case "subject":
                selector = Selector(subject=request.subject)
            case "issued_by":
                selector = Selector(issued_by=pages.token_id_of(request.issued_by, "issued_by"))
            case "all":
                if not request.all.HasField("issued_before"):
                    raise FieldsInvalidError([("all.issued_before", "is required")])
                selector = Selector(issued_before=messages.instant_of(request.all.issued_before, "all.issued_before"))
            case _:
                raise FieldsInvalidError([("target", "one of token, token_id, subject, issued_by or all is required")])
        order = RevokeOrder(presented, selector, request.reason, request.cascade)
        revoked = await self._revoking.revoke(call.caller, call.actor, order, call.snapshot)
        reached = await self._propagating.reached(
            revoked.position, wait=not request.no_wait, seconds_left=call.seconds_left()
        )
        return pb.RevokeResponse(
            revoked_count=revoked.count,
            out_of_reach_count=revoked.out_of_reach,
            position=messages.position_message(revoked.position),
            propagation=pb.PROPAGATION_COMPLETE if reached.complete else pb.PROPAGATION_PENDING,
            effective_in=messages.duration_message(timedelta(seconds=reached.effective_in_seconds)),
            replicas_count=reached.replicas_count,
            verifiers_count=reached.verifiers_count,
        )

    async def list_scopes(self, call: Call[pb.ListScopesRequest]) -> pb.ListScopesResponse:
        """A token's scopes, or a page of the catalogue."""
        request = call.request
        target = request.WhichOneof("target")
        if target is not None:
            record, _ = await self._record(call, target, request.token_id)
            known = await self._store.scopes_named(record.scopes)
            return pb.ListScopesResponse(scopes=messages.held_scope_messages(record.scopes, known))
        limit = pages.page_size(request.page_size)
        entries = await self._store.scopes(limit=limit + 1, after=pages.page_after(request.page_token))
        return pb.ListScopesResponse(
            scopes=[messages.scope_message(entry) for entry in entries[:limit]],
            next_page_token=pages.page_token(entries[limit - 1].name) if len(entries) > limit else "",
        )

    async def get_token(self, call: Call[pb.GetTokenRequest]) -> pb.GetTokenResponse:
        """One record, and on request the true reason of its verdict."""
        request = call.request
        target = request.WhichOneof("target")
        faults = Faults()
        if target is None:
            faults.add("target", "one of token or token_id is required")
        if request.as_verifier:
            faults.name("as_verifier", request.as_verifier)
        faults.required_scopes("required_scopes", request.required_scopes)
        if faults.found:
            raise FieldsInvalidError(faults.found)
        if target == "token" and request.as_verifier:
            # Told why, also where there is no record to show.
            verdict = examine(
                self._digests,
                call.tokens[0],
                call.snapshot,
                verifier=request.as_verifier,
                required=request.required_scopes,
            )
            return _explained(verdict, call.snapshot)
        record, snapshot = await self._record(call, target, request.token_id)
        response = pb.GetTokenResponse(token=messages.token_message(record, snapshot.now))
        if request.as_verifier:
            verdict = judge(
                record, proved=True, verifier=request.as_verifier, required=request.required_scopes, now=snapshot.now
            )
            response.explanation.CopyFrom(messages.explanation_message(verdict))
        return response

    async def list_tokens(self, call: Call[pb.ListTokensRequest]) -> pb.ListTokensResponse:
        """A page of tokens."""
        request = call.request
        limit = pages.page_size(request.page_size)
        if request.subject:
            faults = Faults()
            faults.name("subject", request.subject)
            if faults.found:
                raise FieldsInvalidError(faults.found)
        wanted = TokenQuery(
            subject=request.subject,
            issued_by=pages.token_id_of(request.issued_by, "issued_by") if request.issued_by else None,
            include_inactive=request.include_inactive,
            limit=limit + 1,
            after=pages.page_after_id(request.page_token),
        )
        records, now = await self._store.tokens(wanted)
        shown = pages.fitting(messages.token_message(record, now) for record in records[:limit])
        more = len(records) > len(shown)
        return pb.ListTokensResponse(
            tokens=shown,
            next_page_token=pages.page_token(str(records[len(shown) - 1].token_id)) if more else "",
        )

    async def register_scopes(self, call: Call[pb.RegisterScopesRequest]) -> pb.RegisterScopesResponse:
        """Adds scopes to the catalogue."""
        scopes = [(scope.name, scope.description) for scope in call.request.scopes]
        return pb.RegisterScopesResponse(
            registered_count=await self._registering.register(call.caller, call.actor, scopes)
        )

    async def _record(
        self, call: Call[pb.GetTokenRequest] | Call[pb.ListScopesRequest], target: str | None, token_id: str
    ) -> tuple[TokenRecord, Snapshot]:
        """The record of a presented token, or of an id. Raises TokenNotFoundError."""
        if target == "token":
            token = _well_formed(call)
            record = call.snapshot.rows.get(token.token_id)
            if not proves(self._digests, token, record) or record is None:
                raise TokenNotFoundError
            return record, call.snapshot
        wanted: UUID = pages.token_id_of(token_id, "token_id")
        snapshot = await self._store.read((wanted,))
        record = snapshot.rows.get(wanted)
        if record is None:
            raise TokenNotFoundError
        return record, snapshot


def _explained(verdict: Verdict, snapshot: Snapshot) -> pb.GetTokenResponse:
    """A verdict's reason. The record comes along only if the secret was right: a guess is shown nothing."""
    response = pb.GetTokenResponse(explanation=messages.explanation_message(verdict))
    if verdict.record is not None and verdict.reason is not Reason.SECRET_MISMATCH:
        response.token.CopyFrom(messages.token_message(verdict.record, snapshot.now))
    return response


def _well_formed(call: Call[pb.RevokeRequest] | Call[pb.GetTokenRequest] | Call[pb.ListScopesRequest]) -> ParsedToken:
    token = call.tokens[0]
    if token is None:
        raise FieldsInvalidError([("token", "is not a token: wrong length, prefix or checksum; was it cut off?")])
    return token


def _check_required(lists: Sequence[Sequence[str]]) -> None:
    for required in lists:
        if len(required) > SCOPES_MAX or not all(map(is_scope, required)):
            break
    else:
        return
    faults = Faults()
    for at, required in enumerate(lists):
        path = "required_scopes" if len(lists) == 1 else f"requests[{at}].required_scopes"
        faults.required_scopes(path, required)
    raise FieldsInvalidError(faults.found)


def _token_field(request: pb.ValidateRequest) -> Sequence[str]:
    return (request.token,)


def _token_field_if_set(request: pb.RevokeRequest | pb.GetTokenRequest | pb.ListScopesRequest) -> Sequence[str]:
    # Also when it is set to nothing at all: that is a malformed token, and not none.
    return (request.token,) if request.HasField("token") else ()


def _batched_tokens(request: pb.BatchValidateRequest) -> Sequence[str]:
    faults = Faults()
    if not faults.count("requests", request.requests, BATCH_MAX, count_min=1):
        raise FieldsInvalidError(faults.found)
    return [one.token for one in request.requests]
