"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer: what is so and, where that is not well, how to mend it. Never holds a secret."""

    check: str
    status: Status
    message: str
    remedy: str = ""
