"""The wall clock of a host, which jumps when a test says so; monotonic clocks go on as they do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lab import LabUnavailable


class Clock:
    """`environment` is for every process of the host. It reads the file again once a second.

    Raises LabUnavailable where the library is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)
        faketime = shutil.which("faketime")
        if faketime is None:
            raise LabUnavailable("the command `faketime` is missing: install faketime")
        library = subprocess.run(
            [faketime, "-m", "-f", "+0", "printenv", "LD_PRELOAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",  # a killed process would leave it behind
            "NO_FAKE_STAT": "1",
        }

    def jump(self, seconds: int) -> None:
        """Let the clock be so far from the true time, from now on."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{seconds:+}\n", encoding="ascii")
        part.replace(self._file)
