"""Who is calling: what an active token says about its holder, handed to the handler of the call."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from watchword.scope import covers


@dataclass(frozen=True, slots=True)
class Identity:
    """The holder of an active token, as the authority describes it. Holds nothing secret, so it is safe to log."""

    token_id: str
    """The public half of the token: 22 characters of base62."""
    subject: str
    scopes: tuple[str, ...]
    """As held: `orders.*` stays a pattern. Ask `holds`, do not compare."""
    audiences: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The owner's own key-value pairs."""

    def holds(self, scope: str) -> bool:
        """Whether one of the held scopes covers `scope`."""
        return any(covers(held, scope) for held in self.scopes)


class NoIdentityError(LookupError):
    """There is no identity here: not inside a protected call, or the method's rule is `public`."""


# One variable for both server stacks. Set by the interceptors alone, always in the context that runs the handler.
CURRENT: Final[ContextVar[Identity]] = ContextVar("watchword_identity")


def current_identity() -> Identity:
    """The identity of the call being handled.

    Works in handlers of both stacks, and in tasks and `asyncio.to_thread` work that they start (these copy the
    context); not in threads started by hand. Raises NoIdentityError where there is none: a public method's handler has
    no caller to speak of, also when a token came along.
    """
    try:
        return CURRENT.get()
    except LookupError:
        raise NoIdentityError("no authenticated call is being handled here") from None
