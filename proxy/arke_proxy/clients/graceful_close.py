"""The end of a client's connection, which must not cost it the last answer."""

from __future__ import annotations

import asyncio
import fcntl
import termios


def end_after_reading(transport: asyncio.Transport) -> None:
    """Close once the client has; whoever calls it bounds the time.

    At once would not do: if the client is still sending, its kernel would throw away what has not
    been read. TLS takes care of that by itself, and has no half of a connection.
    """
    if transport.is_closing() or not transport.can_write_eof():
        transport.close()
    else:
        transport.resume_reading()
        transport.write_eof()


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
