"""The lab as a test holds it: the hosts, their cables, and the line to the agent."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from lab.channel import Channel
from lab.errors import LabError, LabUnavailable
from lab.host import Host
from lab.process import Process

_TESTS = Path(__file__).parents[1]
_ANSWER = 30.0  # seconds for what the kernel does in milliseconds, on a box that is busy
# The caller becomes root of a user namespace of its own, whoever it is outside, so that one way
# serves everybody.
_UNSHARE = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]


class Lab:
    """Use it as a context: the network exists inside, and nothing of it is left outside.

    Raises LabUnavailable on entry where the machine has no namespaces for us.
    """

    def __init__(self, hosts: int = 3) -> None:
        self.hosts = tuple(Host(self, number) for number in range(hosts))
        self.processes: list[Process] = []

    def __enter__(self) -> Lab:
        with ExitStack() as undo:
            self._complaints = undo.enter_context(tempfile.TemporaryFile())
            self._channel, far_end = Channel.pair()
            undo.callback(self._channel.close)
            with far_end:
                agent = _unshared("lab.agent", far_end.fileno(), len(self.hosts), self._complaints)
            # Closing the line comes first on the way out: it is what ends the agent.
            undo.callback(_bury, agent)
            undo.callback(self._channel.close)
            self._answer(LabUnavailable)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._undo:
            for process in self.processes:
                self._undo.callback(process.close)

    def cut(self, host: Host) -> None:
        """Pull the host's cable out of the switch."""
        self._ask({"verb": "cable", "host": self.hosts.index(host), "plugged": False})

    def heal(self, host: Host) -> None:
        """Put the cable back."""
        self._ask({"verb": "cable", "host": self.hosts.index(host), "plugged": True})

    def spawn(
        self, host: int, argv: list[str], env: dict[str, str], cwd: Path, fds: list[int]
    ) -> tuple[int, int]:
        """Start a program on a host; return its pid there and a pidfd. `Host` is the way in."""
        where = {"host": host, "cwd": str(cwd)}
        answer, (handle,) = self._ask({"verb": "start", "argv": argv, "env": env, **where}, fds)
        return answer["pid"], handle

    def reap(self, pid: int) -> int:
        """Return the exit status of a program that has ended."""
        answer, _ = self._ask({"verb": "reap", "pid": pid})
        return int(answer["returncode"])

    def _ask(
        self, request: dict[str, Any], fds: Sequence[int] = ()
    ) -> tuple[dict[str, Any], list[int]]:
        with suppress(BrokenPipeError):  # the answer will be why
            self._channel.send(request, fds)
        return self._answer(LabError)

    def _answer(self, failure: type[LabError]) -> tuple[dict[str, Any], list[int]]:
        try:
            answer, fds = self._channel.receive(_ANSWER)
        except EOFError:
            raise failure(f"the lab's agent ended: {_last_line(self._complaints)}") from None
        if "error" in answer:
            raise failure(answer["error"])
        return answer, fds


def _unshared(module: str, line: int, hosts: int, stderr: BinaryIO) -> subprocess.Popen[bytes]:
    unshare = shutil.which("unshare")
    if unshare is None:
        raise LabUnavailable("the command `unshare` is missing: install util-linux")
    return subprocess.Popen(
        [unshare, *_UNSHARE, sys.executable, "-m", module, str(line), str(hosts)],
        stdin=subprocess.DEVNULL,
        stdout=stderr,
        stderr=stderr,
        pass_fds=[line],
        cwd=_TESTS,
        # Ctrl-C is for the test; the agent hears of it by the end of the line.
        start_new_session=True,
    )


def _bury(agent: subprocess.Popen[bytes]) -> None:
    # The kernel lets process 1 go, and unshare with it, only when all others are dead.
    try:
        agent.wait(_ANSWER)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
        raise


def _last_line(file: BinaryIO) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no word"
