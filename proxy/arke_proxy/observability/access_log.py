"""Write the access log from a thread, so that a slow disk or pipe never blocks the event loop."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator

from arke_proxy.observability.access_log_format import Format
from arke_proxy.observability.request_record import RequestRecord

_MAX_BUFFERED = 4 * 1024 * 1024  # bytes of unwritten lines; further lines are dropped
_CLOSE_TIMEOUT = 2.0  # seconds to write the last lines
_STDOUT = 1


class AccessLog:
    """Appends a line for each request to a file, or to stdout (`-`).

    The event loop calls `record` and `flush`; only the writer thread waits for the disk or pipe.
    Several processes may append to one file: each write holds whole lines and is small enough to be
    atomic, unless a single line is too long. `warn` is called in the writer thread.
    """

    def __init__(
        self,
        path: str,
        format_line: Format,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file. Raises OSError."""
        self._path = path
        self._format_line = format_line
        self._warn = warn
        self._clock = clock
        self._lines: list[bytes] = []  # not passed to the writer thread yet
        self._bytes_recorded = 0  # changed by the event loop only
        self._bytes_handled = 0  # written or dropped; changed by the writer thread only
        self._lock = threading.Condition()
        self._queue: list[list[bytes] | None] = []  # lines to write; None reopens the file
        self._closing = False
        self._partial_line = False  # the last write ended within a line
        self._dropped_full = 0  # lines dropped by the event loop: the buffer was full
        self._dropped_failed = 0  # lines dropped by the writer thread: the write failed
        self._file = self._open()
        self._max_write = _max_write(self._file)
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were lost because the disk or pipe was full, slow or failed."""
        return self._dropped_full + self._dropped_failed

    def record(self, record: RequestRecord) -> None:
        """Format and buffer a line; drop it if the buffer is full."""
        if self._bytes_recorded - self._bytes_handled > _MAX_BUFFERED:
            self._dropped_full += 1
            return
        line = self._format_line(record, self._clock())
        self._bytes_recorded += len(line)
        self._lines.append(line)

    def flush(self) -> None:
        """Pass the buffered lines to the writer thread."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._put(lines)

    def reopen(self) -> None:
        """Continue in a new file, because the old one has been renamed."""
        self.flush()
        self._put(None)

    def close(self) -> None:
        """Write the last lines, within a time limit."""
        self.flush()
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join(_CLOSE_TIMEOUT)

    def _put(self, item: list[bytes] | None) -> None:
        with self._lock:
            self._queue.append(item)
            self._lock.notify()

    def _open(self) -> int:
        if self._path == "-":
            return _STDOUT
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            # Opening must not wait for the reader of a named pipe; writing may.
            file = os.open(self._path, flags | os.O_NONBLOCK, 0o640)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise OSError(errno.ENXIO, "the named pipe has no reader") from None
        os.set_blocking(file, True)
        return file

    # In the writer thread.

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._queue or self._closing):
                    self._lock.wait()
                items, self._queue = self._queue, []
                closing = self._closing
            for lines in items:
                if lines is None:
                    self._reopen_file()
                else:
                    self._write_lines(lines)
            if closing:
                return

    def _write_lines(self, lines: list[bytes]) -> None:
        for count, batch in batches(lines, self._max_write):
            try:
                self._write(batch)
            except OSError as error:
                self._dropped_failed += count
                self._warn(f"-access-log {self._path}: {error.strerror or error}")
        self._bytes_handled += sum(map(len, lines))

    def _write(self, batch: bytes) -> None:
        if self._partial_line:
            batch = b"\n" + batch
        rest = batch
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        finally:
            unchanged = rest is batch
            self._partial_line = 0 < len(rest) < len(batch) or (self._partial_line and unchanged)

    def _reopen_file(self) -> None:
        if self._file == _STDOUT:
            return
        try:
            file = self._open()
        except OSError as error:
            fault = error.strerror or error
            self._warn(f"-access-log {self._path}: {fault}; logging continues in the old file")
            return
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = file
        self._max_write = _max_write(file)
        self._partial_line = False


def _max_write(file: int) -> int:
    """Return how many bytes one write may have without mixing with those of other processes."""
    return 1024 * 1024 if stat.S_ISREG(os.fstat(file).st_mode) else select.PIPE_BUF


def batches(lines: list[bytes], limit: int) -> Iterator[tuple[int, bytes]]:
    """Join whole lines into batches of at most `limit` bytes; yield each with its line count.

    A line longer than `limit` is a batch of its own.
    """
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > limit:
            yield len(batch), b"".join(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield len(batch), b"".join(batch)
