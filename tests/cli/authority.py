"""A small authority with the real API and the real wire, so that the command line is tested as its users run it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from tests.cli.authority_lifecycle import Lifecycle, refuse
from watchword.bearer import bearer_token
from watchword.status import reason_detail
from watchword.token import format_token_id, new_token, new_token_id
from watchword.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    subject_service_pb2_grpc,
    token_service_pb2,
    token_service_pb2_grpc,
)

HELD_SECONDS_MAX: Final = 30
YEAR_SECONDS: Final = 365 * 86_400


class Authority(
    Lifecycle,
    token_service_pb2_grpc.TokenServiceServicer,
    audit_service_pb2_grpc.AuditServiceServicer,
    fleet_service_pb2_grpc.FleetServiceServicer,
):
    """Tokens in a dictionary. `refusal`, once set, answers every call, or with `refuses_after` those after so many,
    `refusals_max` of them; `fleet_refusal` those about the fleet.

    While `released` is not set, Revoke waits, as it does for a verifier that is slow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.address = ""
        self.tokens: dict[str, token_service_pb2.Token] = {}
        self.scopes: dict[str, token_service_pb2.Scope] = {}
        self.events: list[audit_service_pb2.AuditEvent] = []
        self.requests: list[Message] = []
        self.bearers: list[str] = []
        self.request_ids: dict[str, str] = {}
        self.refusal: tuple[grpc.StatusCode, str, tuple[Message, ...]] | None = None
        self.refuses_after = 0
        self.refusals_max = sys.maxsize
        self.verdict_reason = token_service_pb2.VERDICT_REASON_UNSPECIFIED
        self.fleet_refusal: grpc.StatusCode | None = None
        self.propagation = token_service_pb2.PROPAGATION_COMPLETE
        self.position = token_service_pb2.Position(epoch=b"e" * 16, number=7)
        self.replicas: list[fleet_service_pb2.Replica] = []
        self.watchers: list[fleet_service_pb2.Watcher] = []
        self.released = threading.Event()
        self.released.set()
        self.deadlines_seconds: list[float] = []

    def add(self, subject: str = "ada", **fields: Any) -> str:
        """Makes a token and returns its secret."""
        expires_at = int(time.time()) + YEAR_SECONDS
        parsed = new_token(new_token_id(expires_at * 1000))
        token = token_service_pb2.Token(
            token_id=format_token_id(parsed.token_id),
            subject=subject,
            state=token_service_pb2.TOKEN_STATE_LIVE,
            **{"audiences": ["*"], **fields},
        )
        token.expires_at.FromSeconds(expires_at)
        secret = parsed.text.decode()
        self.tokens[secret] = token
        return secret

    def Issue(self, request: Any, context: Any) -> token_service_pb2.IssueResponse:
        self._admit(request, context)
        if token_id := self.request_ids.get(request.request_id):
            refuse(
                context,
                grpc.StatusCode.ALREADY_EXISTS,
                "request_id was used before",
                reason_detail("REQUEST_ID_USED", token_id=token_id),
            )
        secret = self.add(
            request.subject,
            scopes=request.scopes,
            audiences=request.audiences,
            grants=request.grants,
            name=request.name,
            metadata=request.metadata,
            kind=request.kind,
            owner=request.owner,
            allowed_networks=request.allowed_networks,
            certificate_sha256=request.certificate_sha256,
        )
        token = self.tokens[secret]
        self.request_ids[request.request_id] = token.token_id
        return token_service_pb2.IssueResponse(secret=secret, token=token)

    def Validate(self, request: Any, context: Any) -> token_service_pb2.ValidateResponse:
        self._admit(request, context)
        response = token_service_pb2.ValidateResponse()
        response.position.number = 7
        token = self.tokens.get(request.token)
        if token is None or token.state != token_service_pb2.TOKEN_STATE_LIVE:
            response.inactive.SetInParent()
            return response
        missing = [scope for scope in request.required_scopes if scope not in token.scopes]
        active = response.insufficient.token if missing else response.active
        response.insufficient.missing_scopes.extend(missing) if missing else None
        active.token_id, active.subject = token.token_id, token.subject
        active.scopes.extend(token.scopes)
        active.remaining.FromSeconds(3600)
        return response

    def BatchValidate(self, request: Any, context: Any) -> token_service_pb2.BatchValidateResponse:
        return token_service_pb2.BatchValidateResponse(
            responses=[self.Validate(one, context) for one in request.requests]
        )

    def Revoke(self, request: Any, context: Any) -> token_service_pb2.RevokeResponse:
        self._admit(request, context)
        matches: dict[str, Callable[[str, token_service_pb2.Token], bool]] = {
            "token": lambda secret, _: secret == request.token,
            "token_id": lambda _, token: token.token_id == request.token_id,
            "subject": lambda _, token: token.subject == request.subject,
            "issued_by": lambda _, token: token.issued_by == request.issued_by,
            "all": lambda secret, token: (
                secret != self.bearers[-1]
                and token.created_at.ToNanoseconds() < request.all.issued_before.ToNanoseconds()
            ),
        }
        wanted = matches[request.WhichOneof("target")]
        self.deadlines_seconds.append(context.time_remaining())
        self.released.wait(HELD_SECONDS_MAX)
        response = token_service_pb2.RevokeResponse(
            propagation=self.propagation,
            position=self.position,
            replicas_count=len(self.replicas),
            verifiers_count=len(self.watchers),
        )
        response.effective_in.FromSeconds(30)
        for secret, token in self.tokens.items():
            if wanted(secret, token) and token.state == token_service_pb2.TOKEN_STATE_LIVE:
                if request.dry_run:
                    response.would_revoke.append(token)
                    response.revoked_count += 1
                    continue
                if token.successor_id and not request.cascade:
                    response.live_successor_id = token.successor_id
                token.state = token_service_pb2.TOKEN_STATE_REVOKED
                response.revoked_count += 1
        return response

    def GetToken(self, request: Any, context: Any) -> token_service_pb2.GetTokenResponse:
        self._admit(request, context)
        found = [
            token
            for secret, token in self.tokens.items()
            if request.token == secret or request.token_id == token.token_id
        ]
        if not found:
            refuse(context, grpc.StatusCode.NOT_FOUND, "there is no such token", reason_detail("TOKEN_NOT_FOUND"))
        response = token_service_pb2.GetTokenResponse(token=found[0])
        if request.as_verifier:
            accepted = "*" in found[0].audiences or request.as_verifier in found[0].audiences
            response.explanation.reason = self.verdict_reason or (
                token_service_pb2.VERDICT_REASON_ACTIVE
                if accepted
                else token_service_pb2.VERDICT_REASON_AUDIENCE_MISMATCH
            )
        return response

    def ListTokens(self, request: Any, context: Any) -> token_service_pb2.ListTokensResponse:
        self._admit(request, context)
        tokens = [token for token in self.tokens.values() if request.subject in ("", token.subject)]
        page, following = _page(tokens, request)
        return token_service_pb2.ListTokensResponse(tokens=page, next_page_token=following)

    def ListScopes(self, request: Any, context: Any) -> token_service_pb2.ListScopesResponse:
        self._admit(request, context)
        page, following = _page(list(self.scopes.values()), request)
        return token_service_pb2.ListScopesResponse(scopes=page, next_page_token=following)

    def RegisterScopes(self, request: Any, context: Any) -> token_service_pb2.RegisterScopesResponse:
        self._admit(request, context)
        new = [scope for scope in request.scopes if scope.name not in self.scopes]
        for scope in request.scopes:
            self.scopes[scope.name] = token_service_pb2.Scope(
                name=scope.name, description=scope.description, live_tokens=3
            )
        return token_service_pb2.RegisterScopesResponse(registered_count=len(new))

    def ListEvents(self, request: Any, context: Any) -> audit_service_pb2.ListEventsResponse:
        self._admit(request, context)
        events = [
            event
            for event in self.events
            if event.occurred_at.ToNanoseconds() >= request.since.ToNanoseconds()
            and request.action in ("", event.action)
            and not (request.denied_only and event.outcome == "allowed")
        ]
        page, following = _page(events, request)
        return audit_service_pb2.ListEventsResponse(events=page, next_page_token=following)

    def ListWatchers(self, request: Any, context: Any) -> fleet_service_pb2.ListWatchersResponse:
        self._admit(request, context)
        if self.fleet_refusal is not None:
            refuse(context, self.fleet_refusal, "not for you", reason_detail("SCOPE_MISSING", scope="watchword.read"))
        page, following = _page(self.watchers, request)
        return fleet_service_pb2.ListWatchersResponse(
            position=self.position, replicas=self.replicas, watchers=page, next_page_token=following
        )

    def _admit(self, request: Message, context: Any) -> None:
        self.requests.append(request)
        self.bearers.append(bearer_token(context.invocation_metadata()))
        if self.refusal is not None and 0 < len(self.requests) - self.refuses_after <= self.refusals_max:
            code, message, details = self.refusal
            refuse(context, code, message, *details)


@contextmanager
def serving(authority: Authority, credentials: grpc.ServerCredentials | None = None) -> Iterator[Authority]:
    """Serves it on a free loopback port, over TLS if there are credentials, for as long as the block."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    token_service_pb2_grpc.add_TokenServiceServicer_to_server(authority, server)
    fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(authority, server)
    subject_service_pb2_grpc.add_SubjectServiceServicer_to_server(authority, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(authority, server)
    port = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    authority.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield authority
    finally:
        server.stop(grace=None).wait(10)


def _page(entries: list[Any], request: Any) -> tuple[list[Any], str]:
    begin = int(request.page_token or 0)
    # Pages of ten at most: shorter than asked for, as a server may answer.
    end = begin + min(request.page_size, 10)
    return entries[begin:end], str(end) if end < len(entries) else ""
