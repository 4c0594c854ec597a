"""Copy every frame of an interface to stdout, with its length in 4 bytes before it.

It runs on a host of the lab.
It writes `listening` to stderr when the capture has started, and after SIGTERM `lost N`, the number
of frames that the kernel dropped.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys

_EVERY_PROTOCOL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_LARGEST_FRAME = 1 << 18  # with segmentation offload a frame may exceed 64 KiB
_RECEIVE_BUFFER = 1 << 26  # bytes; the kernel may give less


def main() -> None:
    wake, alarm = socket.socketpair()
    alarm.setblocking(False)
    signal.set_wakeup_fd(alarm.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)

    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    wire.bind((sys.argv[1], _EVERY_PROTOCOL))
    wire.setblocking(False)
    sys.stderr.write("listening\n")

    poll = select.poll()
    poll.register(wire, select.POLLIN)
    poll.register(wake, select.POLLIN)
    finished = False
    while not finished:
        finished = wake.fileno() in dict(poll.poll())
        drain(wire)
    sys.stdout.buffer.flush()
    _, lost = struct.unpack("II", wire.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    sys.stderr.write(f"lost {lost}\n")


def drain(wire: socket.socket) -> None:
    while True:
        try:
            frame = wire.recv(_LARGEST_FRAME)
        except BlockingIOError:
            return
        sys.stdout.buffer.write(struct.pack(">I", len(frame)) + frame)


if __name__ == "__main__":
    main()
