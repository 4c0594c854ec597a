"""Reads stdin as it comes, without ever blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from arke.wire.limits import CHUNK


async def chunks() -> AsyncIterator[bytes]:
    """What stdin holds, in pieces of 64 KiB at most, until it ends."""
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
        return  # a file, or the like: it is always ready, and no loop can be asked about it
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
