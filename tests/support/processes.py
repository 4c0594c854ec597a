"""Start processes that a test can signal, read and wait for."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab import Process

started: list[Process] = []
"""Processes whose logs are not closed, newest last; the report of a failed test shows them."""


def start_process(name: str, command: Sequence[str | Path], **environ: str) -> Process:
    """Start a process on this machine; its stdout and stderr go to its log."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 — closed with the process
    popen = subprocess.Popen(
        [os.fspath(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environ,
    )

    def reap(_: int) -> int:
        return popen.wait()

    process = Process(name, popen.pid, os.pidfd_open(popen.pid), log, reap)
    started[:] = [earlier for earlier in started if not earlier.closed]
    started.append(process)
    return process
