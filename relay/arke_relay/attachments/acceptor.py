"""Accepts local programs, also while strangers on the peer ports use up this process's descriptors.

libzmq takes as many connections as the limit of descriptors allows. So that limit stands a little
under the hard one, and is lifted only for the moment in which a program is accepted.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Callable

_KEPT = 1_024
"""Descriptors that only programs get, or a quarter of all where there are few."""

_AT_ONCE = 64
"""Connections taken in one go before others on the loop get their turn."""

_PAUSE = 0.1
"""Seconds until the next try when even the descriptors that were kept are used up."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """FairReader connections to a bound, blocking `listener` into protocols until it is closed."""

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
        """Accept nobody any more; who was accepted stays."""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                made = _accepted(self._listener)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # that one gave up while it waited
                # The listener stays readable: asking on and on would only burn the processor.
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE, self._resume)
                return
            task = self._loop.create_task(self._attach(made))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attach(self, made: socket.socket) -> None:
        if made.family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(self._protocol, made)
        except OSError:
            made.close()


def keep_descriptors() -> None:
    """Leave some descriptors to programs alone: everything else must do without them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - min(_KEPT, hard // 4), hard))


def _accepted(listener: socket.socket) -> socket.socket:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        made, _ = listener.accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return made
