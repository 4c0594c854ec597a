"""Write to stdout without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import select
import sys

_ATOMIC = select.PIPE_BUF


async def write(data: bytes) -> None:
    """Write everything, as fast as the reader reads. Raises BrokenPipeError if it has exited.

    A reader that pauses (`| less`) must not stop the heartbeats to the relay. A pipe that is ready
    for writing takes PIPE_BUF bytes, so polling first is enough. The descriptor stays in blocking
    mode, because other processes share it.
    """
    descriptor = sys.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    view = memoryview(data)
    while view:
        if not poll.poll(0):
            await _writable(descriptor)
        view = view[os.write(descriptor, view[:_ATOMIC]) :]


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
