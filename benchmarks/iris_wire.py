"""What `iris_side` and `iris_member` say to a relay: the Iris protocol on a blocking socket.

As little as will do, so that the relay is what is measured: the bindings are compiled.
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
    """The relay did not answer as it should."""


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def read_varint(octets: bytes, at: int) -> tuple[int, int]:
    """Return the value, and where it ends. Raises IndexError where it is not whole."""
    value = shift = 0
    while True:
        octet = octets[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7


def binary(octets: bytes) -> bytes:
    return varint(len(octets)) + octets


def attach(port: int, cluster: str = "") -> socket.socket:
    """Connect and shake hands: as a client, or as a member of that cluster."""
    sock = socket.create_connection(("127.0.0.1", port), LIMIT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_HELLO + binary(cluster.encode()))
    expect(sock, _WELCOME)
    return sock


def leave(sock: socket.socket) -> None:
    """Say goodbye, and wait until the relay has said it too."""
    sock.sendall(CLOSE)
    expect(sock, CLOSED)
    sock.close()


def expect(sock: socket.socket, octets: bytes) -> None:
    """Read exactly this. Raises IrisError."""
    got = b""
    while len(got) < len(octets):
        data = sock.recv(len(octets) - len(got))
        if not data:
            break
        got += data
    if got != octets:
        raise IrisError(f"the relay said {got!r}, not {octets!r}")
