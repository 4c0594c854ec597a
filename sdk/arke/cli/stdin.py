"""Read stdin without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator

from arke.wire.limits import CHUNK


async def chunks() -> AsyncGenerator[bytes, None]:
    """Yield what is read from stdin, at most 64 KiB at once, until it is closed."""
    descriptor = sys.stdin.fileno()
    while True:
        await _readable(descriptor)
        data = os.read(descriptor, CHUNK)
        if not data:
            return
        yield data


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:
        return  # a file is always ready, and epoll does not accept it
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
