"""`watchword validate`: is this token good, and for what? The exit code is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.bindings import certificate_sha256
from watchword_server.cli.connect import Session
from watchword_server.cli.durations import format_duration
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import CertificateHashOption, CertificateOption
from watchword_server.cli.output import message_json
from watchword_server.cli.secrets_input import read_secret
from watchword_server.cli.show_token import token_fields

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import ActiveToken, Explanation, Token

_PROMPT: Final = "Token to validate (not shown): "
# What each VerdictReason means to an operator, and what to do.
REASONS: Final = {
    "ACTIVE": "It is good.",
    "SCOPE_MISSING": "It is good, but lacks scopes that the call needs. Issue one that holds them.",
    "MALFORMED": "It is not a token: wrong length, prefix, alphabet or checksum. Was all of it copied?",
    "UNKNOWN": "It is well formed, but no such token exists here. Is it another deployment's?",
    "SECRET_MISMATCH": "Its public half exists, its secret is another. Someone may be guessing, or it was retyped.",
    "EXPIRED": "It has expired. Issue a new one.",
    "REVOKED": "It was revoked. Issue a new one.",
    "AUDIENCE_MISMATCH": "It is good, but not for this verifier. Issue one that names the verifier as an audience.",
    "IDLE": "The session was not used for its idle timeout, and has ended. Its user has to sign in again.",
    "ROTATED": "It was rotated, and its grace period is over. Whoever presents it has not taken its successor, or found"
    " it somewhere: `watchword audit list --action rotated_token_presented` says where it turned up.",
    "NETWORK_MISMATCH": "It is good, but not from this address: see allowed_networks. Is the caller behind a proxy that"
    " the verifier does not trust? To judge a call, give its address: --client-ip.",
    "CERTIFICATE_MISMATCH": "It is good, but not with this client certificate, or without one. Was the certificate"
    " renewed? Then issue one for the new: watchword issue --certificate FILE."
    " To judge a call, give its: --certificate.",
}


@dataclass(frozen=True, slots=True)
class _Call:
    """What the call would need, and where it would come from."""

    scopes: Sequence[str]
    client_ip: str
    certificate_sha256: bytes


def validate(
    session: Session,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where the token to judge is. Default: standard input, or a prompt.")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope that the call would need. Repeat.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also say why. For operators: needs watchword.read.")
    ] = False,
    as_verifier: Annotated[
        str, typer.Option("--as", metavar="VERIFIER", help="Judge as this service would; implies --explain.")
    ] = "",
    client_ip: Annotated[
        str, typer.Option("--client-ip", metavar="ADDRESS", help="Where the call would come from.", show_default=False)
    ] = "",
    certificate: CertificateOption = None,
    certificate_hash: CertificateHashOption = "",
) -> None:
    """Judge a token: exit code 0 if it is active (and holds the scopes), 1 if not.

    The token is read from standard input, a file, or a prompt that does not echo; never from arguments.
    """
    call = _Call(scope or [], client_ip, certificate_sha256(certificate, certificate_hash))
    secret = read_secret(file, _PROMPT)
    if not (_explain(session, secret, call, as_verifier) if explain or as_verifier else _ask(session, secret, call)):
        raise typer.Exit(ExitCode.NO)


def _ask(session: Session, secret: str, call: _Call) -> bool:
    from watchword.v1.token_service_pb2 import ValidateRequest

    request = ValidateRequest(
        token=secret,
        required_scopes=call.scopes,
        client_ip=call.client_ip,
        certificate_sha256=call.certificate_sha256,
    )
    response = session.call(session.tokens.Validate, request)
    verdict = response.WhichOneof("verdict")
    if verdict is None:
        raise CommandError(
            "the server gave a verdict that this version does not know",
            "It counts as no. Update the command line: pip install --upgrade 'watchword[cli]'",
            ExitCode.INTERNAL,
        )
    output = session.output
    if output.is_json:
        output.json(message_json(response))
    elif verdict == "inactive":
        output.line("inactive")
        output.note("Operators can learn why: watchword validate --explain")
    elif verdict == "insufficient":
        output.record(
            [("verdict", "insufficient"), ("missing_scopes", "  ".join(response.insufficient.missing_scopes))]
        )
        output.record(_active_fields(response.insufficient.token))
    else:
        output.record([("verdict", "active"), *_active_fields(response.active)])
    return verdict == "active"


def _active_fields(token: ActiveToken) -> list[tuple[str, str]]:
    remaining = timedelta(seconds=token.remaining.seconds, microseconds=token.remaining.nanos // 1000)
    return [
        ("token_id", token.token_id),
        ("subject", token.subject),
        ("scopes", "  ".join(token.scopes)),
        ("audiences", "  ".join(token.audiences)),
        ("remaining", format_duration(remaining)),
        *((f"metadata.{key}", token.metadata[key]) for key in sorted(token.metadata)),
    ]


def _explain(session: Session, secret: str, call: _Call, as_verifier: str) -> bool:
    from watchword.v1.token_service_pb2 import GetTokenRequest, GetTokenResponse, VerdictReason

    # Without --as the question is the one that Validate answers: good for the caller itself?
    verifier = (
        as_verifier or session.call(session.tokens.GetToken, GetTokenRequest(token=session.own_secret)).token.subject
    )
    try:
        response = session.call(
            session.tokens.GetToken,
            GetTokenRequest(
                token=secret,
                as_verifier=verifier,
                required_scopes=call.scopes,
                client_ip=call.client_ip,
                certificate_sha256=call.certificate_sha256,
            ),
        )
    except CommandError as error:
        if error.exit_code is not ExitCode.NOTHING_MATCHED:
            raise
        response = GetTokenResponse()
        response.explanation.reason = VerdictReason.VERDICT_REASON_UNKNOWN
    output = session.output
    if output.is_json:
        output.json(message_json(response))
    else:
        reason = _reason_name(response.explanation)
        output.record(
            [
                ("verdict", "active" if reason == "ACTIVE" else "refused"),
                ("for verifier", verifier),
                ("reason", reason.lower()),
                ("", _in_words(reason, response.token)),
                ("missing_scopes", "  ".join(response.explanation.missing_scopes)),
                *(token_fields(response.token) if response.HasField("token") else ()),
            ]
        )
    return response.explanation.reason == VerdictReason.VERDICT_REASON_ACTIVE


def _in_words(reason: str, token: Token) -> str:
    words = REASONS.get(reason, "")
    return f"Its successor is {token.successor_id}. {words}" if reason == "ROTATED" and token.successor_id else words


def _reason_name(explanation: Explanation) -> str:
    from watchword.v1.token_service_pb2 import VerdictReason

    if explanation.reason not in VerdictReason.values():
        return str(explanation.reason)
    return VerdictReason.Name(explanation.reason).removeprefix("VERDICT_REASON_")
