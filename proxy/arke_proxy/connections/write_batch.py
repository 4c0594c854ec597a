"""Writes that leave together: what all connections write in one turn of the loop, in a row.

A reader who sleeps is woken by a write, which costs more than the write; while it is awake, the
next ones find it so.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

_write: Final = os.write
_SMALL: Final = 8 * 1024  # octets


class Turn:
    """Whoever has something to write by the end of this turn of the loop."""

    __slots__ = ("_loop", "_outlets")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outlets: list[Outlet] = []

    def add(self, outlet: Outlet) -> None:
        if not self._outlets:
            self._loop.call_soon(self._end)
        self._outlets.append(outlet)

    def _end(self) -> None:
        outlets, self._outlets = self._outlets, []
        for outlet in outlets:
            try:
                outlet.flush()
            except Exception as error:  # noqa: BLE001 — the others are to be written all the same
                self._loop.call_exception_handler({"message": "a write failed", "exception": error})


class Outlet:
    """The writing side of a connection."""

    __slots__ = ("_behind", "_descriptor", "_held", "_transport", "_turn")

    def __init__(self, turn: Turn, transport: asyncio.Transport) -> None:
        self._turn = turn
        self._transport = transport
        self._held = b""
        self._descriptor = _descriptor(transport)
        self._behind = False  # the loop may still have some of what was written

    def write(self, data: bytes) -> None:
        """Write by the end of this turn; at once what is large, or full buffers would not tell."""
        held = self._held
        if held:
            data = held + data
        if len(data) > _SMALL:
            self._held = b""
            self._behind = True
            self._transport.write(data)
            return
        if not held:
            self._turn.add(self)
        self._held = data

    @property
    def held(self) -> int:
        """How many octets are still here."""
        return len(self._held)

    def flush(self) -> None:
        """Write now what is held."""
        held = self._held
        if not held:
            return
        self._held = b""
        transport = self._transport
        if transport.is_closing():
            return
        if self._behind:
            self._behind = transport.get_write_buffer_size() > 0
        if self._descriptor is not None and not self._behind:
            try:  # what the kernel takes at once need not pass through the loop
                sent = _write(self._descriptor, held)
            except OSError:  # it takes nothing, or never will: the loop finds out
                sent = 0
            if sent == len(held):
                return
            held = held[sent:]
            self._behind = True
        transport.write(held)

    def transport(self) -> asyncio.Transport:
        """The connection itself, with nothing held back: for whatever is not writing."""
        self.flush()
        return self._transport


def _descriptor(transport: asyncio.Transport) -> int | None:
    """Return what the kernel knows a connection by, if what is written to it goes out as it is."""
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return None
    descriptor: int = sock.fileno()
    return descriptor
