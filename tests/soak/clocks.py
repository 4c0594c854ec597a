"""Set the wall clock of a host with libfaketime. Monotonic clocks are not changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import LabUnavailable

_SHARED_MEMORY = Path("/dev/shm")
_LIBRARY_FOLDERS = ("usr/lib/*/faketime", "usr/lib*/faketime", "usr/local/lib*/faketime")


@contextmanager
def shared_memory_cleanup() -> Iterator[None]:
    """Remove the shared memory that killed processes leave behind."""
    before = set(_SHARED_MEMORY.glob("*faketime_*"))
    yield
    for name in set(_SHARED_MEMORY.glob("*faketime_*")) - before:
        name.unlink(missing_ok=True)


class Clock:
    """The clock of one host. Start each process of the host with `environment`.

    The library reads the clock file once a second. Raises LabUnavailable if it is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)
        self.environment = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, seconds: int) -> None:
        """Set the clock to `seconds` ahead of the real time."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{seconds:+}\n", encoding="ascii")
        part.replace(self._file)


def _library() -> Path:
    """Return the path of libfaketime.

    The command `faketime` cannot be used: it fails when a killed process with the same id has left
    its shared memory behind.
    """
    for place in _LIBRARY_FOLDERS:
        for found in Path("/").glob(f"{place}/libfaketimeMT.so.1"):
            return found
    raise LabUnavailable("the library of `faketime` is missing: install faketime")
