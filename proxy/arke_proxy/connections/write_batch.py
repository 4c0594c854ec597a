"""Write batching: what all connections write in one loop iteration is sent together.

Each write may wake a sleeping peer on the same machine, which costs more than the write itself.
Writes in a row find it awake already.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

_write: Final = os.write
_SMALL: Final = 8 * 1024  # bytes; more is written at once


class WriteBatch:
    """Flushes, at the end of a loop iteration, the writers that have pending data."""

    __slots__ = ("_loop", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[BatchedWriter] = []

    def add(self, writer: BatchedWriter) -> None:
        if not self._writers:
            self._loop.call_soon(self._flush)
        self._writers.append(writer)

    def _flush(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            try:
                writer.flush()
            except Exception as error:  # noqa: BLE001 — the other writers must be flushed too
                self._loop.call_exception_handler({"message": "a write failed", "exception": error})


class BatchedWriter:
    """The writing side of one connection."""

    __slots__ = ("_backlog", "_batch", "_descriptor", "_pending", "_transport")

    def __init__(self, batch: WriteBatch, transport: asyncio.Transport) -> None:
        self._batch = batch
        self._transport = transport
        self._pending = b""
        self._descriptor = _plain_descriptor(transport)
        self._backlog = False  # the transport may still hold earlier data

    def write(self, data: bytes) -> None:
        """Write at the end of this loop iteration.

        Large data is passed to the transport at once, so that its flow control (`pause_writing`)
        works.
        """
        pending = self._pending
        if pending:
            data = pending + data
        if len(data) > _SMALL:
            self._pending = b""
            self._backlog = True
            self._transport.write(data)
            return
        if not pending:
            self._batch.add(self)
        self._pending = data

    @property
    def pending(self) -> int:
        """The number of bytes that wait for the end of the loop iteration."""
        return len(self._pending)

    def flush(self) -> None:
        """Write the pending data now."""
        pending = self._pending
        if not pending:
            return
        self._pending = b""
        transport = self._transport
        if transport.is_closing():
            return
        if self._backlog:
            self._backlog = transport.get_write_buffer_size() > 0
        if self._descriptor is not None and not self._backlog:
            try:  # the kernel usually takes everything; the transport's own path is slower
                sent = _write(self._descriptor, pending)
            except OSError:  # full, or broken: the transport handles either
                sent = 0
            if sent == len(pending):
                return
            pending = pending[sent:]
            self._backlog = True
        transport.write(pending)

    def flushed_transport(self) -> asyncio.Transport:
        """Return the transport, for other operations than writing, after flushing to it."""
        self.flush()
        return self._transport


def _plain_descriptor(transport: asyncio.Transport) -> int | None:
    """Return the socket's file descriptor; None if data must pass through TLS or a tunnel."""
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return None
    descriptor: int = sock.fileno()
    return descriptor
