"""The hosts and their processes: start, stop, watch, and read their reports."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Lab, Process
from soak.clocks import Clock
from soak.findings import Findings
from soak.memory import MemoryRecord
from soak.schedule import STEADY_HOST
from support.lab_relays import wait_for_members, wait_for_peers
from support.programs import program

LINK_LIMIT = 60.0
"""Seconds after the last fault in which all relays are linked and know all members."""

EXIT_LIMIT = 60.0
"""Seconds in which a process ends after SIGTERM; a relay's -grace is half of it."""

TESTS = Path(__file__).parents[1]
_PAGE = 4096
_BAD = re.compile(
    r"^(wrong|hung): .*|^Traceback .*|^\S+ error .*|.*exception was never retrieved.*", re.MULTILINE
)


@dataclass
class RunningProcess:
    """A process and its memory samples."""

    process: Process
    memory: MemoryRecord

    def sample(self) -> None:
        """Sample its memory."""
        statm = Path(f"/proc/{self.process.machine_pid}/statm").read_text(encoding="ascii")
        self.memory.samples.append(int(statm.split()[1]) * _PAGE)


class Testbed:
    """`relays`, `members` and `callers` are the processes of each host; None: not running."""

    def __init__(self, lab: Lab, folder: Path, seed: int, findings: Findings) -> None:
        self._lab = lab
        self._folder = folder
        self._seed = seed
        self._findings = findings
        self._key = folder / "id_rsa"
        self.hosts = lab.hosts
        self.names = [str(101 + number) for number in range(len(lab.hosts))]
        self.clocks = [Clock(folder / f"clock-{name}") for name in self.names]
        self.memory_records: list[MemoryRecord] = []
        self.relays: list[RunningProcess | None] = [None] * len(lab.hosts)
        self.members: list[RunningProcess | None] = [None] * len(lab.hosts)
        self.callers: list[RunningProcess | None] = [None] * len(lab.hosts)
        self.slowest_recovery = 0.0

    def begin(self) -> None:
        """Start all processes, and wait until the relays are linked."""
        self.hosts[0].run([*program("arke"), "keygen", self._key])
        for host in range(len(self.hosts)):
            self.start_relay(host)
            self.start_member(host)
        self.wait_until_linked()
        for host in range(len(self.hosts)):
            self.start_caller(host)

    # Start and stop processes.

    def start_relay(self, host: int) -> None:
        command = [*program("relay"), "-net", "cluster", "-rsa", self._key]
        self.relays[host] = self._start(host, "relay", command, steady=host == STEADY_HOST)

    def start_member(self, host: int) -> None:
        command = [sys.executable, "-m", "soak.programs.member", self.journal(host)]
        self.members[host] = self._start(host, "member", command, steady=host == STEADY_HOST)

    def start_caller(self, host: int) -> None:
        seed = f"{self._seed}/{host}"
        command = [sys.executable, "-m", "soak.programs.caller", self.names[host], seed]
        command.append(str(self._report(host)))
        self.callers[host] = self._start(host, "caller", command, steady=True)

    def kill(self, running: list[RunningProcess | None], host: int) -> None:
        """Kill a process."""
        self._check_alive(running, host)
        self.process(running, host).kill()
        self._collect_exit(running, host, expected=-9)

    def terminate(self, running: Sequence[RunningProcess | None], host: int) -> None:
        """Send SIGTERM to a process."""
        self._check_alive(running, host)
        self.process(running, host).terminate()

    def wait(self, running: list[RunningProcess | None], host: int) -> None:
        """Wait until a terminated process has ended; its exit status must be 0."""
        self._collect_exit(running, host, expected=0)

    def process(self, running: Sequence[RunningProcess | None], host: int) -> Process:
        entry = running[host]
        assert entry, "the process is not running"
        return entry.process

    def wait_until_started(self, host: int) -> None:
        """Wait until the host's relay accepts programs."""
        self.process(self.relays, host).wait_for_line("relay started", LINK_LIMIT)

    def wait_until_linked(self) -> None:
        """Wait until all relays are linked with each other and know all members."""
        started = time.monotonic()
        for host in range(len(self.hosts)):
            self.wait_until_started(host)
        for host in self.hosts:
            wait_for_peers(host, [other for other in self.hosts if other is not host], LINK_LIMIT)
            wait_for_members(host, len(self.hosts), LINK_LIMIT)
        self.slowest_recovery = max(self.slowest_recovery, time.monotonic() - started)

    def sample(self) -> None:
        """Sample the memory of all processes."""
        for each in self.running():
            if each.process.running:
                each.sample()

    def running(self) -> Iterator[RunningProcess]:
        for each in (*self.relays, *self.members, *self.callers):
            if each:
                yield each

    # Output and reports of programs.

    def check_output(self) -> None:
        """Search the output of all running processes for errors."""
        for each in self.running():
            self._check_output(each)

    def _check_output(self, running: RunningProcess) -> None:
        for line in _BAD.finditer(running.process.log):
            self._findings.add(f"the {running.memory.name} printed: {line[0]}")

    def journal(self, host: int) -> Path:
        return self._folder / f"journal-{self.names[host]}"

    def has_report(self, host: int) -> bool:
        """Whether the host's caller has written a report."""
        return self._report(host).exists()

    def report(self, host: int) -> dict[str, Any]:
        """Return the latest report of the host's caller."""
        document: dict[str, Any] = json.loads(self._report(host).read_text(encoding="utf-8"))
        return document

    def _report(self, host: int) -> Path:
        return self._folder / f"report-{self.names[host]}"

    # Helpers.

    def _start(
        self, host: int, what: str, command: list[str | Path], *, steady: bool
    ) -> RunningProcess:
        environment = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(TESTS)}
        process = self.hosts[host].start(
            command, env=environment | self.clocks[host].environment, cwd=TESTS
        )
        record = MemoryRecord(f"{what} of host {host}", steady=steady)
        self.memory_records.append(record)
        return RunningProcess(process, record)

    def _check_alive(self, running: Sequence[RunningProcess | None], host: int) -> None:
        entry = running[host]
        assert entry, "the process is not running"
        if not entry.process.running:
            self._findings.add(
                f"the {entry.memory.name} ended unexpectedly\n{entry.process.tail()}"
            )

    def _collect_exit(
        self, running: list[RunningProcess | None], host: int, *, expected: int
    ) -> None:
        ended = running[host]
        assert ended, "the process is not running"
        running[host] = None
        status = ended.process.wait(EXIT_LIMIT)
        if status != expected:
            self._findings.add(f"the {ended.memory.name} ended with {status}, not {expected}")
        self._check_output(ended)
        # A long soak has more processes than there are descriptors.
        self._lab.processes.remove(ended.process)
        ended.process.close()
