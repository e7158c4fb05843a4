"""Who may call what: one table. An RPC that is missing here stops the server from starting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Access:
    """What the caller's token has to hold: these scopes and nothing else counts.

    `presenting` names a request field: whoever fills it with a whole token needs no scope to act on that token.
    """

    scopes: tuple[str, ...]
    presenting: str = ""


_ISSUE: Final = Access(("watchword.issue",))
_VALIDATE: Final = Access(("watchword.validate",))
_READ: Final = Access(("watchword.read",))
_REGISTER: Final = Access(("watchword.register",))

ACCESS: Final[Mapping[str, Access]] = MappingProxyType(
    {
        "/watchword.v1.TokenService/Issue": _ISSUE,
        "/watchword.v1.TokenService/Validate": _VALIDATE,
        "/watchword.v1.TokenService/BatchValidate": _VALIDATE,
        "/watchword.v1.TokenService/Revoke": Access(("watchword.revoke",), presenting="token"),
        "/watchword.v1.TokenService/ListScopes": _READ,
        "/watchword.v1.TokenService/GetToken": _READ,
        "/watchword.v1.TokenService/ListTokens": _READ,
        "/watchword.v1.TokenService/RegisterScopes": _REGISTER,
        "/watchword.v1.AuditService/ListEvents": _READ,
        "/watchword.v1.VerifierService/Watch": _VALIDATE,
        "/watchword.v1.FleetService/ListWatchers": _READ,
    }
)


def check_access(methods: Iterable[str], table: Mapping[str, Access] = ACCESS) -> None:
    """Raises ValueError unless the table has exactly the methods that are served."""
    served, known = set(methods), set(table)
    if served - known:
        raise ValueError(f"no access rule for {min(served - known)}: add it to ACCESS in request/access.py")
    if known - served:
        raise ValueError(f"an access rule for {min(known - served)}, which is not served")
