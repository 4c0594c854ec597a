"""The access log: lines are gathered while the loop runs, and written by a thread of their own."""

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

_MOST = 4 * 1024 * 1024  # octets that wait for a disk that stands still; then lines are dropped
_FAREWELL = 2.0  # seconds that the last lines may take
_STDOUT = 1


class AccessLog:
    """Appends a line for each request to a file, or to stdout (`-`).

    The loop calls `note` and `flush`; only the thread ever waits for the disk or the pipe. Several
    processes may append to one file: each write is of whole lines, and no longer than a pipe takes
    at once (unless a single line is). `complain` is called in the thread.
    """

    def __init__(
        self,
        path: str,
        form: Format,
        complain: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file. Raises OSError."""
        self._path = path
        self._form = form
        self._complain = complain
        self._clock = clock
        self._lines: list[bytes] = []
        self._gathered = 0  # octets so far; only the loop counts here
        self._settled = 0  # octets written or dropped so far; only the thread counts here
        self._lock = threading.Condition()
        self._orders: list[list[bytes] | None] = []  # lines to write, or to open the file anew
        self._ending = False
        self._torn = False  # the last line is there in part
        self._turned_away = 0  # lines, in the loop
        self._failed = 0  # lines, in the thread
        self._file = self._open()
        self._piece = _piece(self._file)
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost because the disk or the pipe was full, failed, or stood still."""
        return self._turned_away + self._failed

    def record(self, record: RequestRecord) -> None:
        """Gather a line."""
        if self._gathered - self._settled > _MOST:
            self._turned_away += 1
            return
        line = self._form(record, self._clock())
        self._gathered += len(line)
        self._lines.append(line)

    def flush(self) -> None:
        """Hand what was gathered to the thread."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._order(lines)

    def reopen(self) -> None:
        """Go on in a new file: the old one has been renamed."""
        self.flush()
        self._order(None)

    def close(self) -> None:
        """Write what is left, if that does not take long."""
        self.flush()
        with self._lock:
            self._ending = True
            self._lock.notify()
        self._thread.join(_FAREWELL)

    def _order(self, order: list[bytes] | None) -> None:
        with self._lock:
            self._orders.append(order)
            self._lock.notify()

    def _open(self) -> int:
        if self._path == "-":
            return _STDOUT
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            # Without waiting for somebody who reads, if it is a pipe; the writes may wait.
            file = os.open(self._path, flags | os.O_NONBLOCK, 0o640)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise OSError(errno.ENXIO, "nobody reads this pipe") from None
        os.set_blocking(file, True)
        return file

    # In the thread.

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._orders or self._ending):
                    self._lock.wait()
                orders, self._orders = self._orders, []
                ending = self._ending
            for lines in orders:
                if lines is None:
                    self._replace()
                else:
                    self._write_all(lines)
            if ending:
                return

    def _write_all(self, lines: list[bytes]) -> None:
        for count, piece in pieces(lines, self._piece):
            try:
                self._write(piece)
            except OSError as error:
                self._failed += count
                self._complain(f"-access-log {self._path}: {error.strerror or error}")
        self._settled += sum(map(len, lines))

    def _write(self, piece: bytes) -> None:
        if self._torn:
            piece = b"\n" + piece
        rest = piece
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        finally:
            self._torn = 0 < len(rest) < len(piece) or (self._torn and rest is piece)

    def _replace(self) -> None:
        if self._file == _STDOUT:
            return
        try:
            file = self._open()
        except OSError as error:
            self._complain(
                f"-access-log {self._path}: {error.strerror or error}; the old one stays"
            )
            return
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = file
        self._piece = _piece(file)
        self._torn = False


def _piece(file: int) -> int:
    """Return how much one write may hold such that nobody else's comes in between."""
    return 1024 * 1024 if stat.S_ISREG(os.fstat(file).st_mode) else select.PIPE_BUF


def pieces(lines: list[bytes], most: int) -> Iterator[tuple[int, bytes]]:
    """Join whole lines into pieces of `most` octets; yield how many lines each has.

    A line that is longer is a piece by itself.
    """
    held: list[bytes] = []
    size = 0
    for line in lines:
        if held and size + len(line) > most:
            yield len(held), b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield len(held), b"".join(held)
