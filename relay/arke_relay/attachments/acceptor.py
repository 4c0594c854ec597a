"""Accept local programs, even when unauthenticated peers use up the process's descriptors.

libzmq accepts as many connections as the descriptor limit allows. So the soft limit is kept below
the hard limit, and is raised only while a program's connection is accepted.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Callable

_RESERVED = 1_024
"""Descriptors reserved for programs, or a quarter of all if there are fewer than 4096."""

_MAX_ACCEPTS = 64
"""Connections accepted before other work of the event loop runs."""

_PAUSE = 0.1
"""Seconds until accepting is tried again when even the reserved descriptors are used up."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Accepts connections of a bound `listener` and gives each one a protocol, until closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        backlog: int,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._protocol = protocol
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Stop accepting; accepted connections stay open."""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                accepted = _accept_beyond_limit(self._listener)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # the client closed the connection while it was in the backlog
                # The listener stays readable, so polling it would be a busy loop.
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE, self._resume)
                return
            task = self._loop.create_task(self._attach(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attach(self, accepted: socket.socket) -> None:
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError:
            accepted.close()


def reserve_descriptors() -> None:
    """Lower the soft descriptor limit, so that some are left for programs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - min(_RESERVED, hard // 4), hard))


def _accept_beyond_limit(listener: socket.socket) -> socket.socket:
    """Accept one connection with the soft limit raised to the hard limit."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        accepted, _ = listener.accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return accepted
