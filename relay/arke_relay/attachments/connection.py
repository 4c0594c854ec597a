"""The connection of one program, for both protocols: reading, writing, closing."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from arke.wire.limits import HIGH_WATER, READ_SIZE
from arke.wire.outbox import Outbox
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.detach_reason import DETACH_TEXTS, DetachReason
from arke_relay.attachments.fair_reader import SLICE
from arke_relay.core.endpoints import Program

MAX_QUEUED = 64 * 1024 * 1024
"""Bytes queued for a program. Beyond it, messages are dropped and counted."""


class ProgramConnection(ABC):
    """An asyncio protocol. A subclass decodes the bytes, and is the MessageSink of its Program."""

    def __init__(
        self, context: AttachmentContext, transport: asyncio.Transport, outbox: Outbox
    ) -> None:
        self._context = context
        self._transport = transport
        self._flusher = context.flusher
        self._clock = context.clock
        self._outbox = outbox
        self._reader = context.fair_reader
        self._paused = False
        self._reason: DetachReason | None = None
        """Set once the connection is closing."""
        self._detail = ""
        self._program: Program | None = None
        self.identity = b""
        """Identifies the program when it attaches again; empty: it sent none."""
        self.received = True
        """Data has arrived since the last keepalive check."""
        transport.set_write_buffer_limits(high=HIGH_WATER, low=0)

    # For the subclasses.

    @abstractmethod
    def handle_data(self, data: bytes | memoryview) -> None:
        """Decode and handle received bytes, then flush."""

    @abstractmethod
    def ping(self) -> None:
        """Ask the program for a sign of life."""

    @abstractmethod
    def _send_reason(self, text: str) -> None:
        """Queue the message that tells the program why its connection closes."""

    @abstractmethod
    def _stop_handling(self) -> None:
        """Ignore all further messages."""

    @property
    @abstractmethod
    def receiving(self) -> bool:
        """A part of a large body has arrived, and the rest has not."""

    # Reading and writing.

    def data_received(self, data: bytes) -> None:
        if self._reason is not None:
            # Discard it here: the fair reader would pause reading, and a closing connection
            # does not resume. An Iris program may still be read from until it closes.
            return
        if len(data) <= SLICE:
            self.handle_data(data)
        else:
            self._reader.add(self, data)

    def eof_received(self) -> bool:
        """Close the transport when the program closes its side."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._reader.remove(self)
        if self._reason is None:
            if error is None:
                self._reason = DetachReason.CLOSED_BY_PROGRAM
            else:
                self._reason, self._detail = DetachReason.CONNECTION_LOST, str(error)
        self._detach()
        self._context.keepalive.closed(self)
        self._stop_handling()
        self._outbox.close()
        self._flusher.flush()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reason is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    # MessageSink.

    def overrun(self) -> None:
        # Not now: the caller may be iterating over the programs.
        asyncio.get_running_loop().call_soon(self.end, DetachReason.STALLED)

    def _wake(self) -> None:
        self._flusher.dirty.append(self)

    def flush(self) -> None:
        transport = self._transport
        if self._paused or transport.is_closing():
            return
        outbox = self._outbox
        while outbox.size and not self._paused:
            transport.write(outbox.take(READ_SIZE))
        if self._reason is not None and not outbox.size:
            self._flushed()

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._outbox.size

    @property
    def program(self) -> Program | None:
        return self._program

    @property
    def topics(self) -> int:
        """The number of topics the program subscribes to."""
        return len(self._program.topics) if self._program else 0

    # Closing.

    def end(self, reason: DetachReason, detail: str = "") -> None:
        """Send the reason and close. The program is detached now, though it may read for a while.

        `detail` replaces the standard text of the reason.
        """
        if self._reason is None:
            self._send_reason(detail or DETACH_TEXTS.get(reason, reason.value))
            self._close(reason, detail)

    def abort(self, reason: DetachReason) -> None:
        """Close at once and discard the queue."""
        if self._reason is None:
            self._reason = reason
        self._transport.abort()

    def _close(self, reason: DetachReason, detail: str = "") -> None:
        """Detach the program, and close the transport once the queue is written."""
        if self._reason is None:
            self._reason, self._detail = reason, detail
        self._reader.remove(self)
        self._stop_handling()
        self.pause_reading()
        self._context.keepalive.closing(self, self._clock())
        self._detach()
        self.flush()

    def _flushed(self) -> None:
        """The whole queue of a closing connection is written."""
        self._transport.close()

    def _detach(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            assert self._reason is not None
            self._context.registry.detached(program, self, self._reason, self._detail)
