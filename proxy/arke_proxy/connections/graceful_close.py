"""Lingering close: close a client connection without losing the end of the last response.

If the proxy closed while the client is still sending, the kernel would send a reset, and the
client's kernel would then discard the part of the response that the client has not read.
"""

from __future__ import annotations

import asyncio
import fcntl
import termios

from arke_proxy.connections.client_state import LINGERING, LINGERING_SLOW, ClientTimer
from arke_proxy.connections.reset import reset


def close_gracefully(
    transport: asyncio.Transport, timer: ClientTimer, *, client_closed: bool = False
) -> None:
    """Send the end of the stream, and wait for the client to close, as long as `timer` allows.

    `client_closed`: the client has closed its direction already, and sends nothing any more.
    """
    timer.enter(LINGERING)
    # TLS has no half-closed connections; its shutdown waits for the client by itself.
    if client_closed or transport.is_closing() or not transport.can_write_eof():
        transport.close()
    else:
        transport.resume_reading()
        transport.write_eof()


def linger_timed_out(transport: asyncio.Transport, timer: ClientTimer) -> None:
    """Handle the time limit of a lingering connection.

    A client that is still reading gets more time, once. After that the connection is reset.
    """
    first = timer.state is LINGERING
    if first:
        timer.enter(LINGERING_SLOW)
    if not has_unsent(transport):
        transport.abort()
    elif not first:
        reset(transport)


def has_unsent(transport: asyncio.Transport) -> bool:
    """Say whether written data has not reached the client's machine yet.

    With TLS the transport does not count the data in its lower layers. While there is any, the
    kernel's send queue is not empty either, and its size can be queried.
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
