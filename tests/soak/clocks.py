"""The wall clock of a host, which jumps when a test says so; monotonic clocks go on as they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import LabUnavailable

_SHARED = Path("/dev/shm")
_PLACES = ("usr/lib/*/faketime", "usr/lib*/faketime", "usr/local/lib*/faketime")


@contextmanager
def tidied() -> Iterator[None]:
    """Remove what processes left behind that were killed under the library."""
    before = set(_SHARED.glob("*faketime_*"))
    yield
    for name in set(_SHARED.glob("*faketime_*")) - before:
        name.unlink(missing_ok=True)


class Clock:
    """`environment` is for every process of the host. It reads the file again once a second.

    Raises LabUnavailable where the library is not installed.
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
        """Let the clock be so far from the true time, from now on."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{seconds:+}\n", encoding="ascii")
        part.replace(self._file)


def _library() -> Path:
    """The library itself: the command `faketime` keeps a name for each process id, and trips over
    those that killed ones left behind.
    """
    for place in _PLACES:
        for found in Path("/").glob(f"{place}/libfaketimeMT.so.1"):
            return found
    raise LabUnavailable("the library of `faketime` is missing: install faketime")
