"""The lab as tests use it: the hosts, their cables, and the channel to the agent."""

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
_REPLY_LIMIT = 30.0  # seconds; the kernel needs milliseconds, unless the machine is busy
# A user namespace makes the caller root inside, so that any user can run the lab.
_UNSHARE = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]


class Lab:
    """A context manager. The network exists inside the context only.

    Raises LabUnavailable on entry if the machine does not allow namespaces.
    """

    def __init__(self, hosts: int = 3) -> None:
        self.hosts = tuple(Host(self, number) for number in range(hosts))
        self.processes: list[Process] = []

    def __enter__(self) -> Lab:
        with ExitStack() as undo:
            self._agent_log = undo.enter_context(tempfile.TemporaryFile())
            self._channel, far_end = Channel.pair()
            undo.callback(self._channel.close)
            with far_end:
                agent = _unshared("lab.agent", far_end.fileno(), len(self.hosts), self._agent_log)
            # On exit the channel closes first, which ends the agent.
            undo.callback(_wait_for_exit, agent)
            undo.callback(self._channel.close)
            self._receive_reply(LabUnavailable)
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
        """Unplug the host's cable from the switch."""
        self._request({"verb": "cable", "host": self.hosts.index(host), "plugged": False})

    def heal(self, host: Host) -> None:
        """Plug the cable in again."""
        self._request({"verb": "cable", "host": self.hosts.index(host), "plugged": True})

    def spawn(
        self, host: int, argv: list[str], env: dict[str, str], cwd: Path, fds: list[int]
    ) -> tuple[int, int]:
        """Start a program on a host; return its pid there and a pidfd. Used by `Host`."""
        where = {"host": host, "cwd": str(cwd)}
        answer, (handle,) = self._request({"verb": "start", "argv": argv, "env": env, **where}, fds)
        return answer["pid"], handle

    def reap(self, pid: int) -> int:
        """Return the exit status of a program that has ended."""
        answer, _ = self._request({"verb": "reap", "pid": pid})
        return int(answer["returncode"])

    def _request(
        self, request: dict[str, Any], fds: Sequence[int] = ()
    ) -> tuple[dict[str, Any], list[int]]:
        with suppress(BrokenPipeError):  # the reply has the cause
            self._channel.send(request, fds)
        return self._receive_reply(LabError)

    def _receive_reply(self, failure: type[LabError]) -> tuple[dict[str, Any], list[int]]:
        try:
            answer, fds = self._channel.receive(_REPLY_LIMIT)
        except EOFError:
            raise failure(f"the lab's agent ended: {_last_line(self._agent_log)}") from None
        if "error" in answer:
            raise failure(answer["error"])
        return answer, fds


def _unshared(module: str, channel: int, hosts: int, stderr: BinaryIO) -> subprocess.Popen[bytes]:
    unshare = shutil.which("unshare")
    if unshare is None:
        raise LabUnavailable("the command `unshare` is missing: install util-linux")
    return subprocess.Popen(
        [unshare, *_UNSHARE, sys.executable, "-m", module, str(channel), str(hosts)],
        stdin=subprocess.DEVNULL,
        stdout=stderr,
        stderr=stderr,
        pass_fds=[channel],
        cwd=_TESTS,
        # Ctrl-C interrupts the test only; the agent ends when the channel closes.
        start_new_session=True,
    )


def _wait_for_exit(agent: subprocess.Popen[bytes]) -> None:
    # Process 1, and unshare with it, ends only after all other processes of its namespace.
    try:
        agent.wait(_REPLY_LIMIT)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
        raise


def _last_line(file: BinaryIO) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
