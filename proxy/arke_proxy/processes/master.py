"""The master process: owns the listening sockets, starts the workers and sums their counters.

The `proxy` command becomes the master by exec, so it keeps its process id. It serves no client and
imports as little as possible, because it lives as long as the proxy.

    python -P -m arke_proxy.processes.master CONFIG FLAGS…
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from itertools import chain

from arke_proxy.log import configure
from arke_proxy.observability.aggregate import Aggregate
from arke_proxy.processes import ipc
from arke_proxy.processes.supervisor import Supervisor
from arke_proxy.processes.worker_config import MasterConfig

_WORKER = "arke_proxy.processes.worker"
_CHUNK = 65536
_SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _WorkerChannel:
    """The master's side of the IPC with one worker."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = ipc.LineDecoder()
        self.closed = False  # the worker closed it, or sent an invalid message
        self.unsent = b""

    def send(self, message: ipc.Message) -> None:
        """Send a message, or drop it if the worker has not read earlier ones for too long."""
        if len(self.unsent) <= ipc.MAX_MESSAGE:
            self.unsent += ipc.encode(message)
            self.flush()

    def flush(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent = b""  # the worker has closed its end; SIGCHLD follows


class Master:
    """Starts workers, handles signals, and sums what the workers report."""

    def __init__(self, config: MasterConfig, flags: list[str]) -> None:
        self._config = config
        self._flags = flags
        self._channels: dict[int, _WorkerChannel] = {}  # by process id
        self._slots: dict[int, int] = {}  # by process id, of the workers that accept connections
        self._aggregate = Aggregate()
        self._supervisor = Supervisor(self, config.workers, config.greeting, config.grace)

    def run(self) -> int:
        """Run until all workers have exited; return the exit status."""
        wakeup_reader, wakeup_writer = socket.socketpair()
        for end in (wakeup_reader, wakeup_writer):
            end.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # the wakeup socket gets the signal's number
        signal.set_wakeup_fd(wakeup_writer.fileno(), warn_on_full_buffer=False)
        supervisor = self._supervisor
        supervisor.start(time.monotonic())
        while supervisor.status is None:
            poll = select.poll()
            poll.register(wakeup_reader, select.POLLIN)
            for channel in self._channels.values():
                if not channel.closed:
                    writable = select.POLLOUT if channel.unsent else 0
                    poll.register(channel.sock, select.POLLIN | writable)
            wait = supervisor.due - time.monotonic()
            events = dict(poll.poll(max(0, wait * 1000 + 1) if wait < 1e6 else None))
            for pid, channel in list(self._channels.items()):
                event = events.get(channel.sock.fileno(), 0)
                if event & select.POLLOUT:
                    channel.flush()
                if event & ~select.POLLOUT:
                    self._read(pid, channel)
            if wakeup_reader.fileno() in events:
                self._handle_signals(set(wakeup_reader.recv(_CHUNK)))
            supervisor.tick(time.monotonic())
        return supervisor.status

    # The supervisor's `ProcessControl`.

    def spawn(self) -> int:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        os.set_inheritable(theirs.fileno(), True)
        slot = min(range(self._config.workers), key=[*self._slots.values()].count)
        config = self._config.worker(theirs.fileno(), slot)
        python = sys.executable
        command = [python, "-P", "-m", _WORKER, config.to_json(), *self._flags]
        with theirs:
            pid = os.posix_spawn(python, command, os.environ)
        self._channels[pid] = _WorkerChannel(ours)
        self._slots[pid] = slot
        return pid

    def retire(self, pid: int) -> None:
        self._slots.pop(pid, None)
        self._channels[pid].send({"retire": True})

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    # Events.

    def _handle_signals(self, signals: set[int]) -> None:
        now = time.monotonic()
        if signal.SIGCHLD in signals:
            self._reap()
        if signal.SIGUSR1 in signals:
            for channel in self._channels.values():
                channel.send({"reopen": True})
        if signals & {signal.SIGTERM, signal.SIGINT}:
            # The workers close their copies too: from then on connections are refused.
            for descriptor in chain.from_iterable(self._config.listeners.values()):
                os.close(descriptor)
            self._config.listeners.clear()
            self._supervisor.stop(now)
        elif signal.SIGHUP in signals:
            self._supervisor.reload(now)

    def _reap(self) -> None:
        while self._channels:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            channel = self._channels.pop(pid, None)
            if channel is None:
                continue  # a child from before the exec, or an orphan if this is process 1
            self._read(pid, channel)  # its last report
            channel.sock.close()
            self._slots.pop(pid, None)
            self._aggregate.worker_exited(pid)
            self._supervisor.exited(pid, os.waitstatus_to_exitcode(status), time.monotonic())

    def _read(self, pid: int, channel: _WorkerChannel) -> None:
        while not channel.closed:
            try:
                data = channel.sock.recv(_CHUNK)
                messages = channel.decoder.feed(data)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                data, messages = b"", []
            channel.closed = not data
            for message in messages:
                self._handle_message(pid, channel, message)

    def _handle_message(self, pid: int, channel: _WorkerChannel, message: ipc.Message) -> None:
        match message:
            case {"ready": True}:
                self._supervisor.ready(pid, time.monotonic())
            case {"report": {"counters": dict(), "gauges": dict(), "backends": _} as report}:
                self._aggregate.report(pid, report)
            case {"get_totals": True}:
                channel.send({"totals": self._aggregate.totals()})


def main() -> int:
    config = MasterConfig.from_json(sys.argv[1])
    configure(config.log_level, config.log_format)
    return Master(config, sys.argv[2:]).run()


if __name__ == "__main__":
    sys.exit(main())
