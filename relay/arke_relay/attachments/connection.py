"""One program's connection, whatever it speaks: its octets, its turns, its end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from arke.wire.limits import HIGH_WATER, READ_SIZE
from arke.wire.outbox import Outbox
from arke_relay.attachments.fair_reader import PIECE
from arke_relay.core.endpoints import Program

if TYPE_CHECKING:
    from arke_relay.attachments.program_registry import ProgramRegistry

OUTBOX = 64 * 1024 * 1024
"""Octets a program may leave unread before what comes next is dropped, and counted."""


class Connection(ABC):
    """What all have; a codec adds what the octets mean, and the MessageSink of its Program.

    For the loop it is a protocol.
    """

    def __init__(
        self, registry: ProgramRegistry, transport: asyncio.Transport, outbox: Outbox
    ) -> None:
        self._registry = registry
        self._transport = transport
        self._flusher = registry.flusher
        self._outbox = outbox
        self._turns = registry.turns
        self._paused = False
        self._ended = ""
        self._program: Program | None = None
        self.identity = b""
        """What the program is known by when it attaches again; empty if it did not say."""
        self.heard = True
        """Something arrived since the last look."""
        transport.set_write_buffer_limits(high=HIGH_WATER, low=0)

    # What a protocol adds.

    @abstractmethod
    def understand(self, data: bytes | memoryview) -> None:
        """Handle octets that came, and flush."""

    @abstractmethod
    def ping(self) -> None:
        """Ask for a sign of life."""

    @abstractmethod
    def _say_why(self, reason: str) -> None:
        """Queue the last words: why the connection ends."""

    @abstractmethod
    def _stop_handling(self) -> None:
        """Nothing that still comes counts any more."""

    @property
    @abstractmethod
    def receiving(self) -> bool:
        """Part of a large body has come, and the rest has not."""

    # Octets.

    def data_received(self, data: bytes) -> None:
        if self._ended:
            # It counts no more, and may be read all the same until the program closes. A turn
            # would stop that: who has ended does not resume reading behind it.
            return
        if len(data) <= PIECE:
            self.understand(data)
        else:
            self._turns.take(self, data)

    def eof_received(self) -> bool:
        """The program says no more: nor does the loop, then."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._turns.drop(self)
        self._detach(self._ended or (str(error) if error else ""))
        self._registry.closed(self)
        self._stop_handling()
        self._outbox.close()
        self._flusher.flush()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._ended and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    # MessageSink.

    def overrun(self) -> None:
        # Not at once: whoever found out is in the middle of something.
        asyncio.get_running_loop().call_soon(self.end, "it does not read")

    def _wake(self) -> None:
        self._flusher.dirty.append(self)

    def flush(self) -> None:
        transport = self._transport
        if self._paused or transport.is_closing():
            return
        outbox = self._outbox
        while outbox.size and not self._paused:
            transport.write(outbox.take(READ_SIZE))
        if self._ended and not outbox.size:
            self._finish()

    @property
    def queued(self) -> int:
        return self._outbox.size

    @property
    def program(self) -> Program | None:
        return self._program

    @property
    def topics(self) -> int:
        """How many topics the program subscribes to."""
        return len(self._program.topics) if self._program else 0

    # The end.

    def end(self, reason: str) -> None:
        """Tell the program why, and close. What it does not read in time is lost."""
        if not self._ended:
            self._say_why(reason)
            self._close(reason)

    def abort(self, reason: str) -> None:
        """Close at once."""
        self._ended = self._ended or reason
        self._transport.abort()

    def _close(self, reason: str) -> None:
        """Close behind what is queued. The program is gone now: it may never read that."""
        self._ended = self._ended or reason
        self._turns.drop(self)
        self._stop_handling()
        self.pause_reading()
        self._registry.closing(self)
        self._detach(self._ended)
        self.flush()

    def _finish(self) -> None:
        """All that was queued has left."""
        self._transport.close()

    def _detach(self, reason: str) -> None:
        program, self._program = self._program, None
        if program is not None:
            self._registry.detached(program, self, reason)
