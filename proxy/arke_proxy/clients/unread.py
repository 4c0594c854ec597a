"""Whether a client has been sent what was written to it."""

from __future__ import annotations

import asyncio
import fcntl
import termios


def unread(transport: asyncio.Transport) -> bool:
    """Say whether some of what was written is still on its way to the client's machine.

    With TLS the loop does not count what waits beneath it. While any does, the kernel's queue is
    not empty either, and that can be asked for.
    """
    if transport.get_write_buffer_size():
        return True
    if transport.can_write_eof():
        return False
    try:
        queued = fcntl.ioctl(
            transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)
        )
    except (OSError, ValueError):  # it has just been closed
        return False
    return queued != bytes(4)
