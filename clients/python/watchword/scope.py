"""What a held scope covers: `orders.read`, `orders.*` and `*`, decided in one place for server and verifiers alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

SCOPE_LENGTH_MAX: Final = 128
# Watchword's own scopes and audience. No wildcard reaches them from outside: they have to be written out.
RESERVED: Final = "watchword"
_RESERVED_BELOW: Final = RESERVED + "."
# ASCII only: look-alike letters from other scripts would make two scopes that people cannot tell apart.
_SCOPE: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)
_SCOPE_PATTERN: Final = re.compile(r"(?:[a-z0-9_-]+\.)*\*|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII)


@lru_cache(maxsize=4096)
def is_scope(text: str) -> bool:
    """Whether `text` names one scope: lower-case segments of `a-z 0-9 _ -` joined by dots, no wildcard."""
    return len(text) <= SCOPE_LENGTH_MAX and _SCOPE.fullmatch(text) is not None


def is_scope_pattern(text: str) -> bool:
    """Whether a token may hold `text`: a scope, `a.*`, or `*`."""
    return len(text) <= SCOPE_LENGTH_MAX and _SCOPE_PATTERN.fullmatch(text) is not None


def covers(held: str, wanted: str) -> bool:
    """Whether the held scope (or pattern) covers the wanted one, itself a scope or a pattern.

    `a.*` covers `a.b`, `a.b.c` and `a.b.*`, not `a`; `*` covers everything except what lies in `watchword`, which has
    to be written out; a pattern is covered only by one at least as wide.
    """
    if held == wanted:
        return True
    if held == "*":
        return wanted != RESERVED and not wanted.startswith(_RESERVED_BELOW)
    if held.endswith(".*"):
        return wanted.startswith(held[:-1])
    return False


def missing_scopes(held: Iterable[str], required: Iterable[str]) -> list[str]:
    """Those of `required` that nothing in `held` covers, in the order asked."""
    held = tuple(held)
    return [scope for scope in required if scope not in held and not any(covers(one, scope) for one in held)]
