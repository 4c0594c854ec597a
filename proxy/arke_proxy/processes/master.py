"""The first process of a proxy: it owns the listening sockets, and watches the workers.

It is started by `exec` from the command, in the same process, and imports next to nothing: it is
there as long as the proxy is, and serves nobody.

    python -P -m arke_proxy.processes.master PLAN FLAGS…
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from itertools import chain

from arke_proxy.observability.aggregate import Aggregate
from arke_proxy.processes import ipc as channel
from arke_proxy.processes.supervisor import Supervisor
from arke_proxy.processes.worker_config import MasterConfig

_WORKER = "arke_proxy.processes.worker"
_CHUNK = 65536
_SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _Line:
    """The master's end of the line to one worker."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lines = channel.LineDecoder()
        self.ended = False  # nothing comes any more
        self.unsent = b""

    def send(self, message: channel.Message) -> None:
        """Send now, or later while the worker does not read; if it never does, not at all."""
        if len(self.unsent) <= channel.MOST:
            self.unsent += channel.line(message)
            self.flush()

    def flush(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent = b""  # the worker has gone; its exit tells the rest


class Master:
    """Starts workers, passes on signals, and adds up what the workers count."""

    def __init__(self, plan: MasterConfig, words: list[str]) -> None:
        self._plan = plan
        self._words = words
        self._lines: dict[int, _Line] = {}
        self._places: dict[int, int] = {}  # of the workers that accept
        self._totals = Aggregate()
        self._supervisor = Supervisor(self, plan.workers, plan.greeting, plan.grace)

    def run(self) -> int:
        """Return the exit status when everything is over."""
        woken, waker = socket.socketpair()
        for end in (woken, waker):
            end.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # what counts is the octet in `woken`
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        supervisor = self._supervisor
        supervisor.start(time.monotonic())
        while supervisor.status is None:
            poll = select.poll()
            poll.register(woken, select.POLLIN)
            for line in self._lines.values():
                if not line.ended:
                    poll.register(line.sock, select.POLLIN | (select.POLLOUT if line.unsent else 0))
            pause = supervisor.due - time.monotonic()
            happened = dict(poll.poll(max(0, pause * 1000 + 1) if pause < 1e6 else None))
            for pid, line in list(self._lines.items()):
                events = happened.get(line.sock.fileno(), 0)
                if events & select.POLLOUT:
                    line.flush()
                if events & ~select.POLLOUT:
                    self._hear(pid, line)
            if woken.fileno() in happened:
                self._heed(set(woken.recv(_CHUNK)))
            supervisor.tick(time.monotonic())
        return supervisor.status

    # For the supervisor.

    def spawn(self) -> int:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        os.set_inheritable(theirs.fileno(), True)
        place = min(range(self._plan.workers), key=[*self._places.values()].count)
        seat = self._plan.seat(theirs.fileno(), place)
        python = sys.executable
        words = [python, "-P", "-m", _WORKER, seat.text(), *self._words]
        with theirs:
            pid = os.posix_spawn(python, words, os.environ)
        self._lines[pid] = _Line(ours)
        self._places[pid] = place
        return pid

    def retire(self, pid: int) -> None:
        self._places.pop(pid, None)
        self._lines[pid].send({"retire": True})

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def say(self, level: str, sentence: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"{stamp},{int(now % 1 * 1000):03} {level} {sentence}\n"
        with contextlib.suppress(OSError):  # where nobody reads the log, the proxy goes on
            os.write(2, line.encode())

    # From outside.

    def _heed(self, signals: set[int]) -> None:
        now = time.monotonic()
        if signal.SIGCHLD in signals:
            self._reap()
        if signal.SIGUSR1 in signals:
            for line in self._lines.values():
                line.send({"reopen": True})
        if signals & {signal.SIGTERM, signal.SIGINT}:
            for number in chain.from_iterable(self._plan.listeners.values()):
                os.close(number)  # the workers close theirs: nobody comes any more
            self._plan.listeners.clear()
            self._supervisor.stop(now)
        elif signal.SIGHUP in signals:
            self._supervisor.reload(now)

    def _reap(self) -> None:
        while self._lines:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            line = self._lines.pop(pid, None)
            if line is None:
                continue  # a child from before the exec, or an orphan where this is process 1
            self._hear(pid, line)  # its last words
            line.sock.close()
            self._places.pop(pid, None)
            self._totals.left(pid)
            self._supervisor.exited(pid, os.waitstatus_to_exitcode(status), time.monotonic())

    def _hear(self, pid: int, line: _Line) -> None:
        while not line.ended:
            try:
                data = line.sock.recv(_CHUNK)
                messages = line.lines.feed(data)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                data, messages = b"", []
            line.ended = not data
            for message in messages:
                self._act(pid, line, message)

    def _act(self, pid: int, line: _Line, message: channel.Message) -> None:
        match message:
            case {"ready": True}:
                self._supervisor.ready(pid, time.monotonic())
            case {"report": {"counters": dict(), "gauges": dict(), "backends": _} as report}:
                self._totals.report(pid, report)
            case {"ask": True}:
                line.send({"totals": self._totals.sum()})


if __name__ == "__main__":
    sys.exit(Master(MasterConfig.read(sys.argv[1]), sys.argv[2:]).run())
