"""The member that `iris_side` asks, a process of its own: it answers with what it was sent."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass

from arke.program import flags
from benchmarks.iris_wire import READ, REPLY, REQUEST, attach, binary, read_varint, varint


@dataclass(frozen=True, slots=True)
class Options:
    """Where to serve."""

    cluster: str = flags.argument("CLUSTER", help="what to register in")
    port: int = flags.flag("N", parse=flags.port, required=True, help="of the relay")


def serve(sock: socket.socket) -> None:
    """Answer until the connection ends."""
    sock.settimeout(None)
    held = b""
    while data := sock.recv(READ):
        held += data
        answers, done = echoes(held)
        sock.sendall(answers)
        held = held[done:]


def echoes(octets: bytes) -> tuple[bytes, int]:
    """Return the replies to all requests that are whole, and where these end."""
    answers, done = bytearray(), 0
    while True:
        try:
            number, body, end = request(octets, done)
        except IndexError:
            return bytes(answers), done
        answers += b"%c%b\x01%b" % (REPLY, varint(number), binary(body))
        done = end


def request(octets: bytes, at: int) -> tuple[int, bytes, int]:
    """Return its number, its body, and where it ends. Raises IndexError where it is not whole."""
    if octets[at] != REQUEST:
        sys.exit(f"iris_member: the relay sent operation {octets[at]}")
    number, at = read_varint(octets, at + 1)
    size, at = read_varint(octets, at)
    _, end = read_varint(octets, at + size)  # the time that is left
    return number, octets[at : at + size], end


def main() -> None:
    options = flags.Command("iris_member", Options, "Answers for iris_side.").parse(
        sys.argv[1:], None
    )
    sock = attach(options.port, options.cluster)
    os.write(1, b"ready\n")
    serve(sock)


if __name__ == "__main__":
    main()
