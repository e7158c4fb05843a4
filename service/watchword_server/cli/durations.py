"""Lengths of time and instants as people type and read them: `90d`, `1h30m`; `2h` ago, `2027-01-31T12:00:00Z`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

# durationpy skips what it does not know between two parts ("1h!30m") and has `mm` for months, which looks like a typing
# error for minutes: the whole text is checked first.
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:y|w|d|h|ms|m|s))+", re.ASCII)
_LENGTH_MAX: Final = 64
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def parse_duration(text: str) -> timedelta:
    """Reads `90d`, `1h30m`, `0.5s`: units y (365 days) w d h m s ms. Raises ValueError that says how to write it."""
    import durationpy

    if len(text) > _LENGTH_MAX or not _DURATION.fullmatch(text):
        raise ValueError("write a length of time as 90d, 12h, 30m, 45s or 1h30m (units: y w d h m s)")
    try:
        return durationpy.from_str(text)
    except (durationpy.DurationError, OverflowError) as error:
        raise ValueError("that is longer than time can be counted") from error


def parse_when(text: str, now: datetime) -> datetime:
    """Reads an instant, or how long before `now` it was. Raises ValueError that says how to write it."""
    try:
        return now - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write how long ago (2h, 7d) or an instant (2027-01-31T12:00:00Z)") from None
    # Without an offset it is UTC, as every instant in the output is.
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def format_duration(length: timedelta) -> str:
    """The two largest units that are not zero: `89d23h`, `4m10s`, `250ms`."""
    sign = "-" if length < timedelta() else ""
    length = abs(length)
    if length < timedelta(seconds=1):
        return f"{sign}{length // timedelta(milliseconds=1)}ms"
    left = length // timedelta(seconds=1)
    parts: list[str] = []
    for unit, unit_seconds in _UNITS:
        count, left = divmod(left, unit_seconds)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return sign + "".join(parts)
