"""Scripts of raw backends, flags of a proxy for them, and the messages of a WebSocket upgrade."""

from __future__ import annotations

from support.backends import Backend
from support.connection import Connection

UPGRADE_FIELDS = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
UPGRADE_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n" + UPGRADE_FIELDS + b"\r\n"
UPGRADE_RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE_FIELDS + b"\r\n"


def never_respond(connection: Connection) -> None:
    """Read a request, and wait until the proxy closes the connection."""
    connection.read_head()
    connection.read_to_end()


def static_flags(*backends: Backend) -> list[str]:
    """Return the flags of a proxy with these backends."""
    flags = ["-choose", "static"]
    for backend in backends:
        flags += ["-backend", backend.address]
    return flags
