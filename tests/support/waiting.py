"""Wait for a condition, within a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

LIMIT = 30.0
"""Seconds within which an expected event must happen; an idle machine needs far less than one."""

_PAUSE = 0.01
"""Seconds between two checks."""


def wait_until(condition: Callable[[], bool], limit: float = LIMIT) -> None:
    """Wait until the condition is true. Raises TimeoutError."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {limit} s: {condition}")
        time.sleep(_PAUSE)


async def wait_until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition is true. Raises TimeoutError."""
    async with asyncio.timeout(LIMIT):
        while not await condition():
            await asyncio.sleep(_PAUSE)
