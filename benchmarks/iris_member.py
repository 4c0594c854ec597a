"""The member for `iris_load`, in its own process: it replies with the request's body."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass

from arke.program import flags
from benchmarks.iris_wire import READ, REPLY, REQUEST, attach, binary, read_varint, varint


@dataclass(frozen=True, slots=True)
class Options:
    """Where to register."""

    cluster: str = flags.argument("CLUSTER", help="cluster to register in")
    port: int = flags.flag("N", parse=flags.port, required=True, help="port of the relay")


def serve(sock: socket.socket) -> None:
    """Reply until the connection ends."""
    sock.settimeout(None)
    held = b""
    while data := sock.recv(READ):
        held += data
        answers, done = echoes(held)
        sock.sendall(answers)
        held = held[done:]


def echoes(buffer: bytes) -> tuple[bytes, int]:
    """Return the replies to all complete requests, and the end of the last one."""
    answers, done = bytearray(), 0
    while True:
        try:
            number, body, end = parse_request(buffer, done)
        except IndexError:
            return bytes(answers), done
        answers += b"%c%b\x01%b" % (REPLY, varint(number), binary(body))
        done = end


def parse_request(buffer: bytes, at: int) -> tuple[int, bytes, int]:
    """Return the request's id, body and end. Raises IndexError if it is incomplete."""
    if buffer[at] != REQUEST:
        sys.exit(f"iris_member: unexpected operation {buffer[at]} from the relay")
    number, at = read_varint(buffer, at + 1)
    size, at = read_varint(buffer, at)
    _, end = read_varint(buffer, at + size)  # the remaining time
    return number, buffer[at : at + size], end


def main() -> None:
    options = flags.Command("iris_member", Options, "Replies to iris_load.").parse(
        sys.argv[1:], None
    )
    sock = attach(options.port, options.cluster)
    os.write(1, b"ready\n")
    serve(sock)


if __name__ == "__main__":
    main()
