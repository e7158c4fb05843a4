"""What the command line says when it cannot do what it was asked: what happened, what to do next, and an exit code."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import grpc
    from google.rpc.error_details_pb2 import ErrorInfo


# In the core library's sentences about a way that could not be secured; it gives them no code of their own.
_OF_TLS: Final = ("ssl", "tls", "handshake", "certificate", "hostname")


class ExitCode(enum.IntEnum):
    """How a command ends. Scripts may rely on these; docs/command-line.md holds the same table."""

    OK = 0
    """Done; for `validate`: the token is active."""
    NO = 1
    """The answer is no: inactive, scopes lacking, a failed check of `doctor`, a question answered with no."""
    USAGE = 2
    """The command was not understood, or the server refused a field of the request."""
    UNAVAILABLE = 3
    """The server (or its database) could not be reached, or not in time."""
    NOTHING_MATCHED = 4
    """No token, or nothing to revoke, was found."""
    DENIED = 5
    """No credential, one that is not accepted, or one that does not allow this."""
    CONFLICT = 6
    """It exists already: a request id, a scope of another owner, an administrator."""
    PENDING = 7
    """Revoked for good, and somewhere it may still be accepted for a while."""
    INTERNAL = 70
    """A defect, or a server that answers in ways this version does not know."""
    CONFIGURATION = 78
    """This machine is not set up for the command: settings, files, packages."""
    INTERRUPTED = 130
    """Ctrl-C."""
    BROKEN_PIPE = 141
    """The reader of the output went away."""


class CommandError(Exception):
    """Ends the command. `message` says what happened, `remedy` what to do next; neither ever holds a secret."""

    def __init__(self, message: str, remedy: str, exit_code: ExitCode, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code
        self.reason = reason


class BrokenOutputError(Exception):
    """Whoever read the output has closed it. Ends the command without a word."""


def missing_extra(extra: str, command: str, missing: str | None) -> CommandError:
    """For a command whose packages are not installed."""
    return CommandError(
        f"`watchword {command}` needs packages that are not installed here" + (f" ({missing})" if missing else ""),
        f"Install them: pip install 'watchword[{extra}]'",
        ExitCode.CONFIGURATION,
        "PACKAGES_MISSING",
    )


def from_rpc_error(error: grpc.RpcError, address: str, credential_source: str) -> CommandError:
    """Translates a failed call. `credential_source` says where the caller's token came from, never what it is."""
    import grpc

    from watchword.status import error_info, field_violations, retry_delay_seconds

    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = (error.details() if isinstance(error, grpc.Call) else None) or code.name
    info = error_info(error)
    reason = info.reason if info is not None else ""
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        fields = [f"{violation.field}: {violation.description}" for violation in field_violations(error)]
        message = "the server refused the request: " + ("; ".join(fields) or text)
        return CommandError(message, "Correct it and run the command again.", ExitCode.USAGE, reason)
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        return _unreachable(text, address)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        delay_seconds = retry_delay_seconds(error)
        wait = f" in {delay_seconds:g} s" if delay_seconds else " in a moment"
        return CommandError(
            f"the server at {address} cannot answer now: {text}",
            f"Try again{wait}; if it lasts, run `watchword doctor` on the server.",
            ExitCode.UNAVAILABLE,
            reason,
        )
    message, remedy, exit_code = _by_status(code, text, info, address, credential_source)
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


def _by_status(
    code: grpc.StatusCode, text: str, info: ErrorInfo | None, address: str, credential_source: str
) -> tuple[str, str, ExitCode]:
    import grpc

    metadata = info.metadata if info is not None else {}
    reason = info.reason if info is not None else ""
    match code:
        case grpc.StatusCode.UNAUTHENTICATED:
            return (
                f"the server does not accept the token from {credential_source}: {text}",
                "Give a live token with the audience `watchword`, by --token-file, WATCHWORD_TOKEN or "
                "WATCHWORD_TOKEN_FILE.",
                ExitCode.DENIED,
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            needed = metadata.get("scope") or metadata.get("scopes")
            if reason == "GRANT_MISSING":
                remedy = (
                    "Nobody gives what they do not hold: one grant of your token has to cover all of it. Ask for less, "
                    "or use a token with a wider grant (`watchword tokens show` lists the grants of one)."
                )
            elif needed:
                remedy = f"Use a token that holds the scope {needed}."
            else:
                remedy = "Use a token that is allowed to do this."
            return f"not allowed with the token from {credential_source}: {text}", remedy, ExitCode.DENIED
        case grpc.StatusCode.NOT_FOUND:
            return text, "Look it up: watchword tokens list --all-states", ExitCode.NOTHING_MATCHED
        case grpc.StatusCode.ALREADY_EXISTS:
            if reason == "REQUEST_ID_USED":
                token_id = metadata.get("token_id", "")
                return (
                    text,
                    f"That request made the token {token_id}, whose secret cannot be shown again. If you do not have "
                    f"it: watchword revoke --id {token_id}, then issue with another --request-id.",
                    ExitCode.CONFLICT,
                )
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
