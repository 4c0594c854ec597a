"""Accept local programs, also while unauthenticated peers use up the process's descriptors.

libzmq accepts connections up to the soft limit of descriptors. So the soft limit is kept below the
hard limit, and is raised only for the moment in which a program is accepted.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from typing import Any

from arke.program.accept_loop import AcceptLoop

_RESERVED = 1_024
"""Descriptors that are reserved for programs; a quarter of all if the hard limit is low."""

_ACCEPTS_PER_ITERATION = 64


class Acceptor:
    """Accepts connections on a bound socket, and gives each one a protocol."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        backlog: int,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._loop = loop
        self._protocol = protocol
        self._tasks: set[asyncio.Task[None]] = set()
        listener.listen(backlog)
        self._accept_loop = AcceptLoop(
            loop,
            listener,
            self._on_connection,
            batch=_ACCEPTS_PER_ITERATION,
            accept=_accept_with_reserve,
        )
        self._accept_loop.start()

    def close(self) -> None:
        """Stop accepting. Accepted connections stay open."""
        self._accept_loop.close()

    def _on_connection(self, sock: socket.socket, _: Any) -> None:
        task = self._loop.create_task(self._attach(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attach(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except OSError:
            sock.close()


def reserve_descriptors() -> None:
    """Reserve descriptors for programs: lower the soft limit that everything else can use."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - min(_RESERVED, hard // 4), hard))


def _accept_with_reserve(listener: socket.socket) -> tuple[socket.socket, Any]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        return listener.accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
