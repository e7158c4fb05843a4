"""How long a token that renews itself waits for what, in seconds. `remaining` is how long the token in use lives on.

`uniform` is random.uniform, or a test's: every wait of many clients is a different one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

Uniform: TypeAlias = Callable[[float, float], float]

RENEW_SHARE_MIN: Final = 0.6
RENEW_SHARE_MAX: Final = 0.8
"""Of a token's life: it is renewed at a random point between, so that tokens made together are not renewed together."""
OVERDUE_SECONDS_MAX: Final = 60.0
"""Over how long those are spread that should have been renewed while no process ran."""
LOOK_SECONDS_MAX: Final = 10.0
LOOK_SECONDS_MIN: Final = 0.05
UNREADABLE_SECONDS_MAX: Final = 2.0
"""How long until it is looked again for a token where there was none."""
RETRY_SECONDS_MIN: Final = 0.2
RETRY_SECONDS_MAX: Final = 60.0
REFUSED_SECONDS_MAX: Final = 600.0
_RETRY_CEILING_MIN: Final = 1.0
_BLOCKED_SECONDS_MAX: Final = 2.0
_CALL_SECONDS_MIN: Final = 1.0
_CALL_SECONDS_MAX: Final = 10.0


def renew_at(made_at: float, ends_at: float, now: float, uniform: Uniform) -> float:
    """When to renew a token that lives from `made_at` to `ends_at`."""
    planned = made_at + (ends_at - made_at) * uniform(RENEW_SHARE_MIN, RENEW_SHARE_MAX)
    if planned >= now:
        return planned
    return now + uniform(0.0, min(OVERDUE_SECONDS_MAX, max(0.0, ends_at - now) / 10))


def retry_seconds(failures: int, remaining: float, asked: float | None, uniform: Uniform) -> float:
    """After a failure. Full jitter: of all that wait, as many try in each moment, however many there are (M. Brooker,
    "Exponential backoff and jitter", AWS Architecture Blog, 2015). `asked` is what the service said.
    """
    longest = min(_ceiling(remaining), RETRY_SECONDS_MIN * 2.0 ** min(failures, 16))
    return max(uniform(LOOK_SECONDS_MIN, longest), min(asked or 0.0, REFUSED_SECONDS_MAX))


def refused_seconds(remaining: float, uniform: Uniform) -> float:
    """After a refusal, which only an operator can change."""
    if remaining <= 0:
        return uniform(REFUSED_SECONDS_MAX / 2, REFUSED_SECONDS_MAX)
    longest = min(max(remaining / 10, RETRY_SECONDS_MIN), REFUSED_SECONDS_MAX)
    return uniform(longest / 2, longest)


def blocked_seconds(remaining: float, uniform: Uniform) -> float:
    """While another process is at work."""
    return uniform(LOOK_SECONDS_MIN, min(_BLOCKED_SECONDS_MAX, _ceiling(remaining)))


def look_seconds(remaining: float, grace: float) -> float:
    """How often to look whether others have changed the token, or began to and died: after that the old one lives for
    the grace period only.
    """
    shortest = min(grace / 10, LOOK_SECONDS_MAX)
    if remaining > 0:
        shortest = min(shortest, remaining / 20)
    return max(shortest, LOOK_SECONDS_MIN)


def call_seconds_max(remaining: float) -> float:
    """How long a call to the service may take."""
    return min(max(remaining / 4, _CALL_SECONDS_MIN), _CALL_SECONDS_MAX)


def _ceiling(remaining: float) -> float:
    """The longest wait between two attempts: less where little is left, and never next to nothing."""
    if remaining <= 0:
        return RETRY_SECONDS_MAX
    return min(max(remaining / 10, _RETRY_CEILING_MIN), RETRY_SECONDS_MAX)
