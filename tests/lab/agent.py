"""The lab's first process: it builds the network, then starts processes on the hosts.

It is process 1 of the lab's PID namespace. It ends when its channel to the test closes, also after
a crash of the test. Then the kernel kills every process of the lab, and the network disappears with
the last one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

from lab.cabling import Cabling
from lab.channel import Channel


class Agent:
    def __init__(self, channel: Channel, cabling: Cabling) -> None:
        self._channel = channel
        self._cabling = cabling
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        """Handle requests until the other side closes the channel."""
        verbs: dict[str, Callable[..., None]] = {
            "start": self._start,
            "reap": self._reap,
            "cable": self._cable,
        }
        while True:
            try:
                request, fds = self._channel.receive()
            except EOFError:
                return
            try:
                verbs[request.pop("verb")](fds, **request)
            except OSError as error:
                self._channel.send({"error": str(error)})
            finally:
                for fd in fds:
                    os.close(fd)

    def _start(
        self, fds: list[int], host: int, argv: list[str], env: dict[str, str], cwd: str
    ) -> None:
        self._cabling.enter(host)
        stdin, stdout, stderr = fds
        child = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd)
        self._children[child.pid] = child
        handle = os.pidfd_open(child.pid)
        self._channel.send({"pid": child.pid}, [handle])
        os.close(handle)

    def _reap(self, _fds: list[int], pid: int) -> None:
        self._channel.send({"returncode": self._children.pop(pid).wait()})

    def _cable(self, _fds: list[int], host: int, plugged: bool) -> None:
        self._cabling.set_cable(host, plugged=plugged)
        self._channel.send({})


def main() -> None:
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        cabling = Cabling(hosts=int(sys.argv[2]))
    except OSError as error:
        channel.send({"error": str(error)})
        return
    channel.send({})
    Agent(channel, cabling).serve()


if __name__ == "__main__":
    main()
