"""BatchValidate to and from our own words: shared by the two remote verifiers, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import grpc

from watchword.identity import Identity
from watchword.network import NetworkError, Networks
from watchword.protobuf_time import seconds_of
from watchword.v1 import token_service_pb2 as pb
from watchword.verifier.contract import VerifierUnavailableError
from watchword.verifier.verdict import Active, Answer, Bindings, Bound, Inactive, Insufficient, Position, Verdict

# The service's own limit for one BatchValidate.
BATCH_SIZE_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a token."""

    token: str = field(repr=False)
    required_scopes: tuple[str, ...]
    address: str = ""
    """Where the call comes from; empty if that is not known."""
    is_recheck: bool = False
    """There is no call: the token of an open stream is looked at again."""
    reports_uses: bool = False
    """Who asks tells the authority on a Watch which calls with bound tokens it admitted."""


def batch_request(questions: Iterable[Question]) -> pb.BatchValidateRequest:
    """The request for them all."""
    return pb.BatchValidateRequest(
        requests=[
            pb.ValidateRequest(
                token=question.token,
                required_scopes=question.required_scopes,
                client_ip=question.address,
                # Whoever takes these answers sees a Bound where there is something to compare.
                enforces_bindings=True,
                recheck=question.is_recheck,
                reports_uses=question.reports_uses,
            )
            for question in questions
        ]
    )


def batch_answers(response: pb.BatchValidateResponse, expected_count: int) -> Sequence[Answer | None]:
    """One answer per ask, in order; None: the authority cannot judge that token now. Raises VerifierUnavailableError if
    the reply cannot be matched or understood: shifted by one, it would hand one caller's verdict to another.
    """
    if len(response.responses) != expected_count:
        raise VerifierUnavailableError("ANSWER_INVALID")
    return [_answer(one) for one in response.responses]


def unavailable(error: grpc.RpcError) -> VerifierUnavailableError:
    """What a failed call means for those who wait for it. The error's text stays behind: it may quote anything."""
    code = error.code() if callable(getattr(error, "code", None)) else None
    return VerifierUnavailableError(code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN")


def is_too_large(error: grpc.RpcError) -> bool:
    """Whether a reply exceeded what one of the two sides takes, so that half of the batch may still be answered.

    gRPC gives no more than its sentence: the status alone is also that of a server at its limit of calls, which must
    not be asked twice as often.
    """
    details = error.details() if callable(getattr(error, "details", None)) else None
    return unavailable(error).cause == "RESOURCE_EXHAUSTED" and "larger than max" in (details or "")


def _answer(response: pb.ValidateResponse) -> Answer | None:
    verdict: Verdict
    remaining_seconds = 0.0
    which = response.WhichOneof("verdict")
    if which == "active":
        verdict = _bound(response.active, Active(_identity(response.active)))
        remaining_seconds = seconds_of(response.active.remaining)
    elif which == "insufficient":
        token = response.insufficient.token
        verdict = _bound(token, Insufficient(_identity(token), tuple(response.insufficient.missing_scopes)))
        remaining_seconds = seconds_of(token.remaining)
    elif which == "inactive":
        verdict = Inactive()
    elif which == "unjudged":
        return None
    else:
        raise VerifierUnavailableError("ANSWER_INVALID")
    return Answer(
        verdict,
        Position(response.position.epoch, response.position.number),
        seconds_of(response.cacheable_for),
        remaining_seconds,
    )


def _bound(token: pb.ActiveToken, verdict: Active | Insufficient) -> Verdict:
    if not token.HasField("bindings"):
        return verdict
    try:
        networks = Networks(token.bindings.allowed_networks)
    except NetworkError:
        raise VerifierUnavailableError("ANSWER_INVALID") from None
    return Bound(Bindings(networks, token.bindings.certificate_sha256), verdict)


def _identity(token: pb.ActiveToken) -> Identity:
    return Identity(
        token.token_id,
        token.subject,
        tuple(token.scopes),
        tuple(token.audiences),
        MappingProxyType(dict(token.metadata)),
    )
