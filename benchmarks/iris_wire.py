"""The Iris protocol on a blocking socket, for `iris_load` and `iris_member`.

It does as little as possible, so that the relay limits the rate.
"""

from __future__ import annotations

import socket

LIMIT = 10.0
READ = 1 << 18
CLOSE = b"\x02"
CLOSED = b"\x02\x00"
REQUEST = 0x04
REPLY = 0x05
_WELCOME = b"\x00\x10iris-relay-magic\x0bv1.0-draft2"
_HELLO = b"\x00\x11iris-client-magic\x0bv1.0-draft2"


class IrisError(Exception):
    """The relay sent an unexpected answer."""


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def read_varint(buffer: bytes, at: int) -> tuple[int, int]:
    """Return the value and its end. Raises IndexError if it is incomplete."""
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def binary(buffer: bytes) -> bytes:
    return varint(len(buffer)) + buffer


def attach(port: int, cluster: str = "") -> socket.socket:
    """Connect and perform the handshake, as a client or as a member of a cluster."""
    sock = socket.create_connection(("127.0.0.1", port), LIMIT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_HELLO + binary(cluster.encode()))
    expect(sock, _WELCOME)
    return sock


def detach(sock: socket.socket) -> None:
    """Send CLOSE, and wait for the relay's CLOSE."""
    sock.sendall(CLOSE)
    expect(sock, CLOSED)
    sock.close()


def expect(sock: socket.socket, expected: bytes) -> None:
    """Read exactly these bytes. Raises IrisError."""
    received = b""
    while len(received) < len(expected):
        data = sock.recv(len(expected) - len(received))
        if not data:
            break
        received += data
    if received != expected:
        raise IrisError(f"the relay sent {received!r} instead of {expected!r}")
