"""Who may call what, and what the audit log calls it: one table. An RPC that is missing here stops the server from
starting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message

NOT_ADMINISTRATIVE: Final = ""
"""What verifiers ask all the time, and what a token's holder asks about itself."""


@dataclass(frozen=True, slots=True)
class Access:
    """What the caller's token has to hold: these scopes and nothing else counts.

    `presenting` names a request field: whoever fills it with a whole token needs no scope to act on that token.
    `naming` names one: whoever leaves it empty acts on the calling token itself, and needs no scope for that either.
    `action` is the call's name in the audit log, which has all administrative calls; NOT_ADMINISTRATIVE for others.
    """

    scopes: tuple[str, ...]
    action: str
    presenting: str = ""
    naming: str = ""

    @property
    def scopes_always(self) -> tuple[str, ...]:
        """What every caller has to hold, whatever its request."""
        return () if self.presenting or self.naming else self.scopes

    def scopes_for(self, request: Message) -> tuple[str, ...]:
        """What the caller of this request has to hold."""
        if self.presenting and getattr(request, self.presenting):
            return ()
        if self.naming and not getattr(request, self.naming):
            return ()
        return self.scopes


_VALIDATE: Final = Access(("watchword.validate",), NOT_ADMINISTRATIVE)


def _read(action: str) -> Access:
    return Access(("watchword.read",), action)


def _revoke(action: str, *, presenting: str = "") -> Access:
    return Access(("watchword.revoke",), action, presenting=presenting)


ACCESS: Final[Mapping[str, Access]] = MappingProxyType(
    {
        "/watchword.v1.TokenService/Issue": Access(("watchword.issue",), "issue"),
        "/watchword.v1.TokenService/Validate": _VALIDATE,
        "/watchword.v1.TokenService/BatchValidate": _VALIDATE,
        "/watchword.v1.TokenService/Revoke": _revoke("revoke", presenting="token"),
        "/watchword.v1.TokenService/ListScopes": _read("list_scopes"),
        "/watchword.v1.TokenService/GetToken": _read("get_token"),
        "/watchword.v1.TokenService/ListTokens": _read("list_tokens"),
        "/watchword.v1.TokenService/Rotate": Access(("watchword.issue",), "rotate", naming="token_id"),
        "/watchword.v1.TokenService/Narrow": _revoke("narrow"),
        "/watchword.v1.TokenService/WhoAmI": Access((), NOT_ADMINISTRATIVE),
        "/watchword.v1.TokenService/RegisterScopes": Access(("watchword.register",), "register_scopes"),
        "/watchword.v1.SubjectService/BlockSubject": _revoke("block_subject"),
        "/watchword.v1.SubjectService/UnblockSubject": _revoke("unblock_subject"),
        "/watchword.v1.SubjectService/ListBlockedSubjects": _read("list_blocked_subjects"),
        "/watchword.v1.AuditService/ListEvents": _read("list_events"),
        "/watchword.v1.VerifierService/Watch": _VALIDATE,
        "/watchword.v1.FleetService/ListWatchers": _read("list_watchers"),
    }
)


def check_access(methods: Iterable[str]) -> None:
    """Raises ValueError unless ACCESS has exactly the methods that are served, and names each deed once."""
    served, known = set(methods), set(ACCESS)
    if served - known:
        raise ValueError(f"no access rule for {min(served - known)}: add it to ACCESS in request/access.py")
    if known - served:
        raise ValueError(f"an access rule for {min(known - served)}, which is not served")
    actions = Counter(access.action for access in ACCESS.values() if access.action != NOT_ADMINISTRATIVE)
    ambiguous = sorted(action for action, count in actions.items() if count > 1)
    if ambiguous:
        raise ValueError(f"the audit log could not tell two RPCs apart: {ambiguous[0]}")
