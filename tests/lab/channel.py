"""The channel between the test and the lab's agent: JSON messages with file descriptors."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

# A message contains a whole environment. The kernel refuses messages over its send buffer.
_MESSAGE_BYTES = 1 << 20
_MESSAGE_FDS = 4


class Channel:
    """One request and one reply at a time. The channel ends when either side closes it."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @staticmethod
    def pair() -> tuple[Channel, socket.socket]:
        """Return this process's end, and the other end as a socket for a child process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Channel(ours), theirs

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        socket.send_fds(self._socket, [json.dumps(message).encode()], list(fds))

    def receive(self, limit: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """Raises EOFError if the other side has closed, TimeoutError after `limit` seconds."""
        self._socket.settimeout(limit)
        data, fds, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, _MESSAGE_FDS)
        if not data:
            raise EOFError
        for fd in fds:
            os.set_inheritable(fd, False)
        return json.loads(data), fds

    def close(self) -> None:
        self._socket.close()
