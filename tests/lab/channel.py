"""The line between the test and the lab's agent: one JSON object a message, with descriptors."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

# A message carries a whole environment; the kernel refuses more than its send buffer in one piece.
_MESSAGE_BYTES = 1 << 20
_MESSAGE_FDS = 4


class Channel:
    """Strictly one request, then its one answer; the end of either side is the end of the line."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @staticmethod
    def pair() -> tuple[Channel, socket.socket]:
        """Our end, and the other one as a socket to hand to a child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Channel(ours), theirs

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        socket.send_fds(self._socket, [json.dumps(message).encode()], list(fds))

    def receive(self, limit: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """Raise EOFError when the other side is gone, TimeoutError after `limit` seconds."""
        self._socket.settimeout(limit)
        data, fds, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, _MESSAGE_FDS)
        if not data:
            raise EOFError
        for fd in fds:
            os.set_inheritable(fd, False)
        return json.loads(data), fds

    def close(self) -> None:
        self._socket.close()
