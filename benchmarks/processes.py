"""Run processes that are always reaped. With `setpriv` they also end if the benchmark is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import BenchError

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT = 5.0
LOG_SHOWN = 1000  # characters, from the end


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the duration of the block; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            _with_parent_death_signal(command),
            cwd=ROOT,
            env=_environment(),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    except BenchError as error:
        error.add_note(log.read_text(errors="replace")[-LOG_SHOWN:])
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_to_end(command: Sequence[str], limit: float) -> str:
    """Run a command to its end and return what it printed.

    Raises `BenchError` when it fails, or takes more than `limit` seconds.
    """
    name = " ".join(Path(word).name for word in command[:4])
    try:
        ended = subprocess.run(
            _with_parent_death_signal(command),
            cwd=ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name}: no result after {limit:.0f} s") from None
    if ended.returncode:
        raise BenchError(f"{name}: {ended.stderr.strip() or ended.returncode}")
    return ended.stdout


def module_command(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with the same Python."""
    return [sys.executable, "-m", name, *arguments]


def _with_parent_death_signal(command: Sequence[str]) -> list[str]:
    # Without this prefix a benchmark that is killed would leave its servers running.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)


def _environment() -> dict[str, str]:
    # The user's ARKE_ variables must not affect these relays.
    return {name: value for name, value in os.environ.items() if not name.startswith("ARKE_")}
