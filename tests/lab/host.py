"""One host of the lab."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lab.cabling import address
from lab.capture import Capture
from lab.errors import LabError
from lab.process import SHOWN, Process

if TYPE_CHECKING:
    from lab.lab import Lab


class Host:
    """A host. `address` is its address on the switch."""

    def __init__(self, lab: Lab, number: int) -> None:
        self._lab = lab
        self._number = number
        self.address = address(number)

    def __repr__(self) -> str:
        return f"<Host {self.address}>"

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: BinaryIO | None = None,
    ) -> Process:
        """Start a program; stdin is empty, stderr and stdout (unless given) go to its log.

        It gets this process's environment without ARKE_* variables, changed by `env`. Raises
        LabError if the program does not exist.
        """
        with Path(os.devnull).open("rb") as nothing:
            process = self._start(argv, env, cwd, stdin=nothing, stdout=stdout)
        self._lab.processes.append(process)
        return process

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        input: str = "",  # noqa: A002  as in subprocess.run
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        limit: float = 30.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, as `subprocess.run` would.

        Raises LabError for a non-zero exit (unless `check` is false), TimeoutError after `limit` s.
        """
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
            stdin.write(input.encode())
            stdin.seek(0)
            with closing(self._start(argv, env, cwd, stdin=stdin, stdout=stdout)) as process:
                try:
                    returncode = process.wait(limit)
                except TimeoutError:
                    process.kill()
                    raise
                errors = process.log
            stdout.seek(0)
            output = stdout.read().decode(errors="replace")
        if check and returncode:
            end = (output + errors)[-SHOWN:]
            raise LabError(f"{process.name}: exit status {returncode}\n{end}")
        return subprocess.CompletedProcess(list(argv), returncode, output, errors)

    def capture(self, interface: str = "eth1") -> AbstractContextManager[Capture]:
        """Record every frame on `interface` inside the context."""
        return Capture.on(self, interface)

    def _start(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None,
        cwd: Path | None,
        *,
        stdin: BinaryIO,
        stdout: BinaryIO | None,
    ) -> Process:
        words = [str(word) for word in argv]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ARKE_")}
        with ExitStack() as undo:
            log = undo.enter_context(tempfile.TemporaryFile())
            streams = [stdin.fileno(), (stdout or log).fileno(), log.fileno()]
            pid, handle = self._lab.spawn(
                self._number, words, {**inherited, **(env or {})}, cwd or Path.cwd(), streams
            )
            undo.pop_all()
        name = " ".join(word.strip().partition("\n")[0] for word in words)
        return Process(f"{name} on {self.address}", pid, handle, log, self._lab.reap)
