"""Runs on a host: copies every frame of one interface to stdout, each after its 4-byte length.

Says `listening` on stderr once nothing can be missed, and after SIGTERM `lost N`: how many frames
the kernel had no room for.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys

_EVERY_PROTOCOL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_LARGEST_FRAME = 1 << 18  # segmentation is left to the device, so a frame may be 64 KiB and more
_ROOM = 1 << 26  # bytes of frames waiting for us; the kernel gives what it may


def main() -> None:
    wake, alarm = socket.socketpair()
    alarm.setblocking(False)
    signal.set_wakeup_fd(alarm.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)

    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
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
