"""The tokens that the load presents: distinct ones, issued through Issue, each for one verifier."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc

from bench.authority import Authority
from bench.load import Caller
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import token_service_pb2_grpc as pb_grpc

SCOPE: Final = "orders.read"
_IN_FLIGHT_MAX: Final = 64
_CALL_SECONDS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Verifier:
    """A service that checks tokens, with the tokens that are meant for it."""

    subject: str
    secret: str = field(repr=False)
    tokens: Sequence[str] = field(repr=False)

    def unary_caller(self, round_number: int) -> Caller:
        """Presents one token, another one in each round."""
        token = self.tokens[round_number % len(self.tokens)]
        return Caller(_validate(token).SerializeToString(), self.secret)

    def batch_caller(self, size: int) -> Caller:
        """Presents `size` distinct tokens in each call."""
        if size > len(self.tokens):
            raise ValueError("not enough tokens for a batch of distinct ones")
        message = pb.BatchValidateRequest(requests=[_validate(token) for token in self.tokens[:size]])
        return Caller(message.SerializeToString(), self.secret)


@dataclass(frozen=True, slots=True)
class Population:
    """Everything issued for a measurement."""

    verifiers: Sequence[Verifier]
    issuer_secret: str = field(repr=False)

    def unary_callers(self, round_number: int) -> list[Caller]:
        return [verifier.unary_caller(round_number) for verifier in self.verifiers]


def _validate(token: str) -> pb.ValidateRequest:
    return pb.ValidateRequest(token=token, required_scopes=[SCOPE])


def issue_request(subject: str, audience: str) -> pb.IssueRequest:
    """A plain token: one scope, one audience."""
    return pb.IssueRequest(subject=subject, scopes=[SCOPE], audiences=[audience], name="load")


def issue_all(stub: pb_grpc.TokenServiceStub, bearer: str, requests: Iterator[pb.IssueRequest]) -> Iterator[str]:
    """The secrets, in the order of the requests. Calls overlap, so that the server can share commits."""
    metadata = (("authorization", f"Bearer {bearer}"),)
    while window := list(itertools.islice(requests, _IN_FLIGHT_MAX)):
        calls = [stub.Issue.future(request, metadata=metadata, timeout=_CALL_SECONDS_MAX) for request in window]
        for call in calls:
            yield call.result().secret


def populate(authority: Authority, *, verifiers: int, tokens_each: int) -> Population:
    """Registers the scope, and issues an issuer's token, the verifiers' tokens, and those to be checked."""
    admin = authority.admin_token()
    subjects = [f"verifier-{number}" for number in range(verifiers)]
    with grpc.insecure_channel(f"127.0.0.1:{authority.port}") as channel:
        stub = pb_grpc.TokenServiceStub(channel)
        stub.RegisterScopes(
            pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=SCOPE, description="Read orders")]),
            metadata=(("authorization", f"Bearer {admin}"),),
            timeout=_CALL_SECONDS_MAX,
        )
        own = itertools.chain(
            (pb.IssueRequest(subject=s, scopes=["watchword.validate"], audiences=["watchword"]) for s in subjects),
            [_issuer_request()],
        )
        *secrets, issuer = issue_all(stub, admin, own)
        wanted = (issue_request(f"client-{n}", subject) for subject in subjects for n in range(tokens_each))
        tokens = list(issue_all(stub, issuer, wanted))
    shares = [tokens[at : at + tokens_each] for at in range(0, len(tokens), tokens_each)]
    made = [Verifier(*parts) for parts in zip(subjects, secrets, shares, strict=True)]
    return Population(made, issuer)


def _issuer_request() -> pb.IssueRequest:
    grant = pb.Grant(scopes=["*"], subjects=["*"], audiences=["*"])
    return pb.IssueRequest(subject="issuer", scopes=["watchword.issue"], audiences=["watchword"], grants=[grant])
