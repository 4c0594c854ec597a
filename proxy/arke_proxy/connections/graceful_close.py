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
    """Begin to close: send the end of the stream, and enter LINGERING.

    The time limit of that state ends the wait for the client. `client_closed`: the client has
    already closed its sending direction.
    """
    timer.enter(LINGERING)
    # A TLS transport of asyncio cannot half-close; its shutdown waits for the client by itself.
    if client_closed or transport.is_closing() or not transport.can_write_eof():
        transport.close()
    else:
        transport.resume_reading()
        transport.write_eof()


def linger_timed_out(transport: asyncio.Transport, timer: ClientTimer) -> None:
    """Handle the time limit of a lingering connection.

    If everything is sent, the connection is closed. Otherwise the client gets more time, once, and
    then the connection is reset.
    """
    first = timer.state is LINGERING
    if first:
        timer.enter(LINGERING_SLOW)
    if not has_unsent(transport):
        transport.abort()
    elif not first:
        reset(transport)


def has_unsent(transport: asyncio.Transport) -> bool:
    """Say whether written data has not reached the kernel yet.

    With TLS the transport does not count the data in its lower layers. While there is any, the
    kernel's send queue is not empty either; so its size is queried instead.
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
