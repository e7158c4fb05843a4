"""From a failed call to words for people: what happened, and the way out, by the error's reason and then its status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from watchword_server.cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    import grpc

# In the core library's sentences about a way that could not be secured; it gives them no code of their own.
_OF_TLS: Final = ("ssl", "tls", "handshake", "certificate", "hostname")


def from_rpc_error(error: grpc.RpcError, address: str, credential_source: str) -> CommandError:
    """Translates a failed call. `credential_source` says where the caller's token came from, never what it is."""
    import grpc

    from watchword.status import error_info, field_violations, retry_delay_seconds

    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = (error.details() if isinstance(error, grpc.Call) else None) or code.name
    info = error_info(error)
    reason = info.reason if info is not None else ""
    metadata = dict(info.metadata) if info is not None else {}
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        fields = [f"{violation.field}: {violation.description}" for violation in field_violations(error)]
        message = "the server refused the request: " + ("; ".join(fields) or text)
        return CommandError(message, "Correct it and run the command again.", ExitCode.USAGE, reason)
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        return _unreachable(text, address)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return _not_now(text, address, reason, retry_delay_seconds(error))
    if reason in _BY_REASON:
        exit_code, remedy_of = _BY_REASON[reason]
        return CommandError(text, remedy_of(metadata), exit_code, reason)
    message, remedy, exit_code = _by_status(code, text, metadata, address, credential_source)
    return CommandError(message, remedy, exit_code, reason)


def _unreachable(text: str, address: str) -> CommandError:
    if any(word in text.lower() for word in _OF_TLS):
        remedy = (
            "The two ends disagree about TLS: name the authority's certificate with --ca-file, or use the name that "
            "is in the server's certificate (--server-name)."
        )
    else:
        remedy = (
            "Is it running (`watchword serve`), and is the address right (--address or WATCHWORD_ADDRESS)? A server "
            "with TLS needs --ca-file, or --tls."
        )
    return CommandError(f"cannot reach the server at {address}: {text}", remedy, ExitCode.UNAVAILABLE, "UNREACHABLE")


def _not_now(text: str, address: str, reason: str, delay_seconds: float | None) -> CommandError:
    wait = f"in {delay_seconds:g} s" if delay_seconds else "in a moment"
    if reason == "RATE_LIMITED":
        message = f"too much at once for the subject of your token: {text}"
        remedy = (
            f"Try again {wait}, and more slowly. The limit is the server's, for each subject that "
            "calls it: WATCHWORD_ISSUES_PER_SECOND, WATCHWORD_FAILED_VALIDATIONS_PER_SECOND."
        )
    else:
        message = f"the server at {address} cannot answer now: {text}"
        remedy = f"Try again {wait}; if it lasts, run `watchword doctor` on the server."
    return CommandError(message, remedy, ExitCode.UNAVAILABLE, reason)


def _request_id_used(metadata: Mapping[str, str]) -> str:
    token_id = metadata.get("token_id", "")
    return (
        f"That request made the token {token_id}, whose secret cannot be shown again. If you do not have it: "
        f"watchword revoke --id {token_id}, then issue with another --request-id."
    )


def _token_rotated(metadata: Mapping[str, str]) -> str:
    successor = metadata.get("token_id", "")
    return (
        f"Someone was first: the successor is {successor}, and nothing was done now. Whoever rotated has its secret "
        f"(`watchword audit list --action rotate` says who). If that is lost, rotate the successor: "
        f"watchword rotate {successor}"
    )


def _subject_blocked(metadata: Mapping[str, str]) -> str:
    subject = metadata.get("subject", "")
    return (
        "Nothing was done. `watchword subjects list` says who blocked it, when and why; if that is over: "
        f"watchword subjects unblock {subject or 'SUBJECT'}"
    )


def _token_not_live(_: Mapping[str, str]) -> str:
    return (
        "Nothing was done: it is revoked, expired, or was idle for too long (`watchword tokens show TOKEN_ID` says "
        "which). What has ended stays so: watchword issue makes a new one."
    )


def _last_administrator(_: Mapping[str, str]) -> str:
    return (
        "Make another administrator first: watchword issue --audience watchword --scope 'watchword.*' "
        "--grant 'scopes=*,watchword.*,subjects=*,audiences=*,watchword' --subject NAME. If it has to end now, because "
        "it leaked: the same command with --force, and then `watchword bootstrap` on the server's machine."
    )


def _deadline_too_near(_: Mapping[str, str]) -> str:
    return "Give it more time: a longer --timeout, or --wait."


# What a reason's exit code is, and what to do about it, with the error's metadata at hand.
_BY_REASON: Final[Mapping[str, tuple[ExitCode, Callable[[Mapping[str, str]], str]]]] = {
    "REQUEST_ID_USED": (ExitCode.CONFLICT, _request_id_used),
    "DEADLINE_TOO_NEAR": (ExitCode.UNAVAILABLE, _deadline_too_near),
    "TOKEN_ROTATED": (ExitCode.CONFLICT, _token_rotated),
    "SUBJECT_BLOCKED": (ExitCode.DENIED, _subject_blocked),
    "TOKEN_NOT_LIVE": (ExitCode.NOTHING_MATCHED, _token_not_live),
    "LAST_ADMINISTRATOR": (ExitCode.CONFLICT, _last_administrator),
}


def _by_status(
    code: grpc.StatusCode, text: str, metadata: Mapping[str, str], address: str, credential_source: str
) -> tuple[str, str, ExitCode]:
    import grpc

    match code:
        case grpc.StatusCode.UNAUTHENTICATED:
            return (
                f"the server does not accept the token from {credential_source}: {text}",
                "Give a live token with the audience `watchword`, by --token-file, WATCHWORD_TOKEN or "
                "WATCHWORD_TOKEN_FILE. One that is bound to networks or to a certificate is accepted from there only.",
                ExitCode.DENIED,
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            needed = metadata.get("scope") or metadata.get("scopes")
            remedy = (
                f"Use a token that holds the scope {needed}."
                if needed
                else "Nobody gives what they do not hold: one grant of your token has to cover all of it. Ask for less,"
                " or use a token with a wider grant (`watchword whoami` lists those of yours)."
            )
            return f"not allowed with the token from {credential_source}: {text}", remedy, ExitCode.DENIED
        case grpc.StatusCode.NOT_FOUND:
            return text, "Look it up: watchword tokens list --all-states", ExitCode.NOTHING_MATCHED
        case grpc.StatusCode.ALREADY_EXISTS:
            return text, "The first owner keeps a name: choose another, or ask its owner.", ExitCode.CONFLICT
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"the server at {address} did not answer in time",
                "Whether it acted is not known. Try again, with a longer --timeout if it is merely slow.",
                ExitCode.UNAVAILABLE,
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return (
                f"the server at {address} does not know this call",
                "Is that address a Watchword server, and as new as this command (`watchword --version`)?",
                ExitCode.INTERNAL,
            )
        case _:
            return (
                f"the server at {address} failed: {code.name}: {text}",
                "Look into the server's log for this moment; if it repeats, report it.",
                ExitCode.INTERNAL,
            )
