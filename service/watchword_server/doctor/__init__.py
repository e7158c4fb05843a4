"""Examines a deployment without changing it: each check says what it found and how to mend it."""

from __future__ import annotations

from watchword_server.doctor.examine import examine
from watchword_server.doctor.finding import Finding

__all__ = ["Finding", "examine"]
