"""What only looks: ListScopes, GetToken, ListTokens and WhoAmI."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from watchword.v1 import token_service_pb2 as pb
from watchword_server.answer.errors import FieldsInvalidError, TokenNotFoundError
from watchword_server.answer.proof import Digests, examine, proves
from watchword_server.request import messages, pages
from watchword_server.request.pipeline import Call, Method
from watchword_server.request.presented import token_field_if_set, well_formed
from watchword_server.request.token_service import PATH
from watchword_server.request.verdict_messages import explanation_message
from watchword_server.rules.fields import Faults
from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import Evidence, Reason, judge
from watchword_server.store.contract import Reads, Snapshot, Store, TokenQuery

# Of what is longer the beginning may be no instant that a database can hold.
_UNUSED_MAX: Final = timedelta(days=366_000)


class TokenReading:
    """The RPCs of watchword.v1.TokenService that show records."""

    def __init__(self, *, store: Store, reads: Reads, digests: Digests) -> None:
        self._store = store
        self._reads = reads
        self._digests = digests

    def methods(self) -> list[Method[Any]]:
        """What to register."""
        return [
            Method(PATH + "ListScopes", pb.ListScopesRequest, self.list_scopes, token_field_if_set),
            Method(PATH + "GetToken", pb.GetTokenRequest, self.get_token, token_field_if_set),
            Method(PATH + "ListTokens", pb.ListTokensRequest, self.list_tokens),
            Method(PATH + "WhoAmI", pb.WhoAmIRequest, self.who_am_i),
        ]

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
        """One record and its use, and on request the true reason of its verdict."""
        request = call.request
        target = request.WhichOneof("target")
        faults = Faults()
        if target is None:
            faults.add("target", "one of token or token_id is required")
        if request.as_verifier:
            faults.name("as_verifier", request.as_verifier)
        faults.required_scopes("required_scopes", request.required_scopes)
        faults.address("client_ip", request.client_ip)
        faults.certificate("certificate_sha256", request.certificate_sha256)
        if faults.found:
            raise FieldsInvalidError(faults.found)
        evidence = Evidence(request.client_ip, request.certificate_sha256)
        if target == "token" and request.as_verifier:
            # Told why, also where there is no record to show.
            verdict = examine(
                self._digests,
                call.tokens[0],
                call.snapshot,
                verifier=request.as_verifier,
                required=request.required_scopes,
                evidence=evidence,
            )
            response = pb.GetTokenResponse(explanation=explanation_message(verdict))
            # The record comes along only if the secret was right: a guess is shown nothing.
            if verdict.record is not None and verdict.reason is not Reason.SECRET_MISMATCH:
                response.token.CopyFrom(await self._used(verdict.record, call.snapshot))
            return response
        record, snapshot = await self._record(call, target, request.token_id)
        response = pb.GetTokenResponse(token=await self._used(record, snapshot))
        if request.as_verifier:
            verdict = judge(
                record,
                proved=True,
                verifier=request.as_verifier,
                required=request.required_scopes,
                now=snapshot.now,
                evidence=evidence,
            )
            response.explanation.CopyFrom(explanation_message(verdict))
        return response

    async def list_tokens(self, call: Call[pb.ListTokensRequest]) -> pb.ListTokensResponse:
        """A page of tokens."""
        request = call.request
        limit = pages.page_size(request.page_size)
        records, now = await self._store.tokens(_query(request, limit + 1))
        usage = await self._store.usage([record.token_id for record in records]) if request.with_usage else {}
        shown = pages.fitting(
            messages.token_message(record, now, usage.get(record.token_id, ()) if request.with_usage else None)
            for record in records[:limit]
        )
        more = len(records) > len(shown)
        return pb.ListTokensResponse(
            tokens=shown,
            next_page_token=pages.page_token(str(records[len(shown) - 1].token_id)) if more else "",
        )

    async def who_am_i(self, call: Call[pb.WhoAmIRequest]) -> pb.WhoAmIResponse:
        """The calling token's own record and use."""
        return pb.WhoAmIResponse(token=await self._used(call.caller, call.snapshot))

    async def _used(self, record: TokenRecord, snapshot: Snapshot) -> pb.Token:
        usage = await self._store.usage([record.token_id])
        return messages.token_message(record, snapshot.now, usage.get(record.token_id, ()))

    async def _record(
        self, call: Call[pb.GetTokenRequest] | Call[pb.ListScopesRequest], target: str | None, token_id: str
    ) -> tuple[TokenRecord, Snapshot]:
        """The record of a presented token, or of an id. Raises TokenNotFoundError."""
        if target == "token":
            token = well_formed(call.tokens)
            record = call.snapshot.rows.get(token.token_id)
            if not proves(self._digests, token, record) or record is None:
                raise TokenNotFoundError
            return record, call.snapshot
        wanted: UUID = pages.token_id_of(token_id, "token_id")
        snapshot = await self._reads.read((wanted,))
        record = snapshot.rows.get(wanted)
        if record is None:
            raise TokenNotFoundError
        return record, snapshot


def _query(request: pb.ListTokensRequest, limit: int) -> TokenQuery:
    """What is asked for. Raises FieldsInvalidError."""
    faults = Faults()
    for name, value in (("subject", request.subject), ("owner", request.owner)):
        if value:
            faults.name(name, value)
    unused_for = messages.duration_given(request, "unused_for")
    expiring_within = messages.duration_given(request, "expiring_within")
    faults.not_negative("unused_for", unused_for)
    faults.not_negative("expiring_within", expiring_within)
    if faults.found:
        raise FieldsInvalidError(faults.found)
    return TokenQuery(
        subject=request.subject,
        issued_by=pages.token_id_of(request.issued_by, "issued_by") if request.issued_by else None,
        include_inactive=request.include_inactive,
        limit=limit,
        after=pages.page_after_id(request.page_token),
        owner=request.owner,
        kind=messages.kind_of(request.kind, "kind"),
        unused_for=unused_for and min(unused_for, _UNUSED_MAX),
        expiring_within=expiring_within,
    )
