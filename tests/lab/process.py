"""A process on a host of the lab, as tests use it."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from lab.errors import LabError

SHOWN = 4000  # characters of a log in an error's text
_LOG_POLL = 0.02  # seconds between two reads of a log in `wait_for_line`


class Process:
    """A process that ends with its lab at the latest.

    `pid` is its id inside the lab, `machine_pid` the one that /proc and `ps` show.
    """

    def __init__(
        self, name: str, pid: int, handle: int, log: BinaryIO, reap: Callable[[int], int]
    ) -> None:
        self.name = name
        self.pid = pid
        self.machine_pid = _pid_of(handle)
        self._handle = handle
        self._log = log
        self._reap = reap
        self._returncode: int | None = None
        self.closed = False
        """The log has been deleted."""

    @property
    def running(self) -> bool:
        return self._returncode is None and not self._ended_within(0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Raises ProcessLookupError if the process has ended."""
        signal.pidfd_send_signal(self._handle, number)

    def stop(self) -> None:
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def wait(self, limit: float) -> int:
        """Wait for the end; return the exit status, negative for a signal. Raises TimeoutError."""
        if self._returncode is None:
            if not self._ended_within(limit):
                raise TimeoutError(f"{self.name} still runs after {limit} s\n{self.tail()}")
            self._returncode = self._reap(self.pid)
        return self._returncode

    @property
    def written(self) -> int:
        """Size of the log in bytes; use it as `after` for `wait_for_line`."""
        return os.fstat(self._log.fileno()).st_size

    @property
    def log(self) -> str:
        """The output of the process so far, stdout and stderr."""
        return self._read(0).decode(errors="replace")

    def log_from(self, start: int) -> str:
        """Return the log from byte `start` on."""
        return self._read(start).decode(errors="replace")

    def tail(self) -> str:
        return self.log_from(max(0, self.written - SHOWN))

    def wait_for_line(self, pattern: str, limit: float, *, after: int = 0) -> re.Match[str]:
        """Return the first match of `pattern` in a whole line of the log from byte `after` on.

        Raises LabError when the process ends without such a line, TimeoutError after `limit` s.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + limit
        while True:
            ended = not self.running
            lines, end, rest = self._read(after).rpartition(b"\n")
            for line in (
                (lines + end + rest if ended else lines).decode(errors="replace").split("\n")
            ):
                if match := expression.search(line):
                    return match
            after += len(lines + end)
            if ended:
                raise LabError(f"{self.name} ended without {pattern!r}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: no {pattern!r} in {limit} s\n{self.tail()}")
            self._ended_within(_LOG_POLL)

    def close(self) -> None:
        """Release the descriptors of the process, which may continue to run."""
        self.closed = True
        os.close(self._handle)
        self._log.close()

    def _read(self, start: int) -> bytes:
        # The child shares the file offset; pread does not move it.
        return os.pread(self._log.fileno(), self.written - start, start)

    def _ended_within(self, limit: float) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(limit * 1000))


def _pid_of(handle: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="ascii").splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise LabError("the process handle has no process")
