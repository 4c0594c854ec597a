"""A worker's end of the line to its master."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from arke_proxy.processes import ipc as channel

_CHUNK = 65536
_PATIENCE = 1.0  # seconds for the master to answer, which does nothing else


class Line:
    """Hears the master from `begin` to `end`.

    `retired` is set when this worker is to leave in its own time; `gone` is called if the master
    is no more.
    """

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = socket.socket(fileno=number)
        self._sock.setblocking(False)
        self._loop = loop
        self._lines = channel.LineDecoder()
        self._unsent = b""
        self._asked: list[asyncio.Future[dict[str, Any]]] = []
        self._gone: Callable[[], None]
        self._reopen: Callable[[], None] = lambda: None
        self.retired = asyncio.Event()

    def begin(self, gone: Callable[[], None]) -> None:
        self._gone = gone
        self._loop.add_reader(self._sock, self._hear)

    def on_reopen(self, reopen: Callable[[], None]) -> None:
        """Set what to do when log files have been renamed."""
        self._reopen = reopen

    def ready(self) -> None:
        """Say that this worker serves."""
        self._send({"ready": True})

    def report(self, report: dict[str, Any]) -> None:
        """Hand in this worker's numbers."""
        self._send({"report": report})

    async def totals(self) -> dict[str, Any] | None:
        """Ask for the numbers of all workers; None if the master does not answer."""
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._asked.append(answer)
        self._send({"ask": True})
        try:
            async with asyncio.timeout(_PATIENCE):
                return await answer
        except TimeoutError:
            return None

    def end(self) -> None:
        """Send what is still to be said, and hang up."""
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.setblocking(True)
        self._sock.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):  # the master may be gone
            self._sock.sendall(self._unsent)
        self._sock.close()

    def _send(self, message: channel.Message) -> None:
        if len(self._unsent) <= channel.MOST:
            self._unsent += channel.line(message)
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

    def _hear(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
            self._gone()
            return
        for message in self._lines.feed(data):
            match message:
                case {"retire": True}:
                    self.retired.set()
                case {"reopen": True}:
                    self._reopen()
                case {"totals": totals}:
                    self._answer(totals)

    def _answer(self, totals: dict[str, Any]) -> None:
        answer = self._asked.pop(0)  # the master answers in turn
        if not answer.done():
            answer.set_result(totals)
