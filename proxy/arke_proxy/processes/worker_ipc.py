"""A worker's side of the IPC with its master."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from arke_proxy.processes import ipc

_CHUNK = 65536
_TIMEOUT = 1.0  # seconds to wait for the master


class WorkerIpc:
    """Exchanges messages with the master, from `start` to `close`.

    `retired` is set when the master tells this worker to finish its connections and exit.
    """

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = socket.socket(fileno=descriptor)
        self._sock.setblocking(False)
        self._loop = loop
        self._decoder = ipc.LineDecoder()
        self._unsent = b""
        self._pending: list[asyncio.Future[dict[str, Any]]] = []  # requests for totals
        self._on_master_exit: Callable[[], None]
        self._on_reopen: Callable[[], None] = lambda: None
        self.retired = asyncio.Event()

    def start(self, on_master_exit: Callable[[], None]) -> None:
        self._on_master_exit = on_master_exit
        self._loop.add_reader(self._sock, self._read)

    def on_reopen(self, callback: Callable[[], None]) -> None:
        """Set the callback that reopens the access log after it was renamed."""
        self._on_reopen = callback

    def ready(self) -> None:
        """Report that this worker accepts connections."""
        self._send({"ready": True})

    def report(self, report: dict[str, Any]) -> None:
        """Send this worker's counters, gauges and backends."""
        self._send({"report": report})

    async def totals(self) -> dict[str, Any] | None:
        """Return the totals of all workers; None if the master does not answer."""
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._pending.append(answer)
        self._send({"get_totals": True})
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await answer
        except TimeoutError:
            return None

    def close(self) -> None:
        """Send what is unsent, and close the socket."""
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.setblocking(True)
        self._sock.settimeout(_TIMEOUT)
        with contextlib.suppress(OSError):  # the master may have exited
            self._sock.sendall(self._unsent)
        self._sock.close()

    def _send(self, message: ipc.Message) -> None:
        if len(self._unsent) <= ipc.MAX_MESSAGE:
            self._unsent += ipc.encode(message)
            self._flush()

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""
        if self._unsent:
            self._loop.add_writer(self._sock, self._flush)
        else:
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
            self._on_master_exit()
            return
        for message in self._decoder.feed(data):
            match message:
                case {"retire": True}:
                    self.retired.set()
                case {"reopen": True}:
                    self._on_reopen()
                case {"totals": totals}:
                    self._on_totals(totals)

    def _on_totals(self, totals: dict[str, Any]) -> None:
        answer = self._pending.pop(0)  # the master answers in order
        if not answer.done():
            answer.set_result(totals)
