"""Accept connections on a listening socket, and pause when the process runs out of descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""Errors of accept() that say that no descriptor or no memory is left."""

_PAUSE = 0.1  # seconds without accepting after such an error; new connections wait in the backlog


class AcceptLoop:
    """Calls `on_connection` with each new socket and its peer address, from `start` to `close`.

    At most `batch` connections are accepted in one iteration of the event loop. `on_shortage` is
    called with an error of OUT_OF_RESOURCES. `accept` replaces the call of `socket.accept`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        on_connection: Callable[[socket.socket, Any], None],
        *,
        batch: int,
        on_shortage: Callable[[OSError], None] = lambda _: None,
        accept: Callable[[socket.socket], tuple[socket.socket, Any]] = socket.socket.accept,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._on_connection = on_connection
        self._batch = batch
        self._on_shortage = on_shortage
        self._accept = accept
        self._resume_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start accepting. The socket must listen already."""
        self._listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Stop accepting and close the listening socket; does nothing the second time."""
        if self._listener.fileno() < 0:
            return
        if self._resume_timer:
            self._resume_timer.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def accept_from(self, listener: socket.socket, most: int) -> None:
        """Accept up to `most` connections from this socket or another non-blocking one."""
        for _ in range(most):
            try:
                sock, address = self._accept(listener)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    continue  # the client disconnected while it waited in the backlog
                self._on_shortage(error)
                self._pause()
                return
            self._on_connection(sock, address)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self.accept_from, self._listener, self._batch)

    def _pause(self) -> None:
        # The listener stays readable: without a pause the loop would retry without end.
        self._loop.remove_reader(self._listener)
        if self._resume_timer:
            self._resume_timer.cancel()
        self._resume_timer = self._loop.call_later(_PAUSE, self._resume)
