"""Letting time pass, where the passing of time is the experiment itself and nothing is waited for."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def pause(seconds: float) -> None:
    """So many seconds later."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
