"""The hosts with what runs on them: one life of each process after another."""

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
from soak.memory import Life
from soak.schedule import STEADY
from support.lab_relays import wait_for_members, wait_for_peers
from support.programs import program

HEALED = 60.0
"""Seconds in which all relays are linked again and know all members, after the last fault."""

LEAVING = 60.0
"""Seconds in which a process that was asked to end has ended: a relay's grace is half of it."""

TESTS = Path(__file__).parents[1]
_PAGE = 4096
_BAD = re.compile(
    r"^(wrong|hung): .*|^Traceback .*|^\S+ error .*|.*exception was never retrieved.*", re.MULTILINE
)


@dataclass
class Running:
    """A process in one of its lives."""

    process: Process
    life: Life

    def sample(self) -> None:
        """Look at its memory."""
        statm = Path(f"/proc/{self.process.machine_pid}/statm").read_text(encoding="ascii")
        self.life.samples.append(int(statm.split()[1]) * _PAGE)


class Stage:
    """`relays`, `members` and `callers` are those of each host; None between two lives."""

    def __init__(self, lab: Lab, folder: Path, seed: int, findings: Findings) -> None:
        self._lab = lab
        self._folder = folder
        self._seed = seed
        self._findings = findings
        self._key = folder / "id_rsa"
        self.hosts = lab.hosts
        self.names = [str(101 + number) for number in range(len(lab.hosts))]
        self.clocks = [Clock(folder / f"clock-{name}") for name in self.names]
        self.lives: list[Life] = []
        self.relays: list[Running | None] = [None] * len(lab.hosts)
        self.members: list[Running | None] = [None] * len(lab.hosts)
        self.callers: list[Running | None] = [None] * len(lab.hosts)
        self.slowest_healing = 0.0

    def begin(self) -> None:
        """Start everything, and wait until it has met."""
        self.hosts[0].run([*program("arke"), "keygen", self._key])
        for host in range(len(self.hosts)):
            self.start_relay(host)
            self.start_member(host)
        self.heal()
        for host in range(len(self.hosts)):
            self.start_caller(host)

    # One life after another.

    def start_relay(self, host: int) -> None:
        words = [*program("relay"), "-net", "cluster", "-rsa", self._key]
        self.relays[host] = self._start(host, "relay", words, steady=host == STEADY)

    def start_member(self, host: int) -> None:
        words = [sys.executable, "-m", "soak.programs.member", self.journal(host)]
        self.members[host] = self._start(host, "member", words, steady=host == STEADY)

    def start_caller(self, host: int) -> None:
        seed = f"{self._seed}/{host}"
        words = [sys.executable, "-m", "soak.programs.caller", self.names[host], seed]
        words.append(str(self._report(host)))
        self.callers[host] = self._start(host, "caller", words, steady=True)

    def kill(self, running: list[Running | None], host: int) -> None:
        """End a life at once."""
        self._check_alive(running, host)
        self.process(running, host).kill()
        self._bury(running, host, expected=-9)

    def terminate(self, running: Sequence[Running | None], host: int) -> None:
        """Ask a process to end."""
        self._check_alive(running, host)
        self.process(running, host).terminate()

    def wait(self, running: list[Running | None], host: int) -> None:
        """Wait until a process has ended that was asked to, and check that it ended well."""
        self._bury(running, host, expected=0)

    def process(self, running: Sequence[Running | None], host: int) -> Process:
        life = running[host]
        assert life, "it is between two lives"
        return life.process

    def wait_until_started(self, host: int) -> None:
        """Wait until the host's relay takes programs."""
        self.process(self.relays, host).wait_for_line("relay started", HEALED)

    def heal(self) -> None:
        """Wait until every relay is linked with every other, and knows every member."""
        began = time.monotonic()
        for host in range(len(self.hosts)):
            self.wait_until_started(host)
        for host in self.hosts:
            wait_for_peers(host, [other for other in self.hosts if other is not host], HEALED)
            wait_for_members(host, len(self.hosts), HEALED)
        self.slowest_healing = max(self.slowest_healing, time.monotonic() - began)

    def sample(self) -> None:
        """Look at everybody's memory."""
        for each in self.running():
            if each.process.running:
                each.sample()

    def running(self) -> Iterator[Running]:
        for each in (*self.relays, *self.members, *self.callers):
            if each:
                yield each

    # What the programs say.

    def check_words(self) -> None:
        """Look at what those that run have said so far."""
        for each in self.running():
            self._check_words(each)

    def _check_words(self, running: Running) -> None:
        for line in _BAD.finditer(running.process.log):
            self._findings.add(f"the {running.life.name} said: {line[0]}")

    def journal(self, host: int) -> Path:
        return self._folder / f"journal-{self.names[host]}"

    def reports(self, host: int) -> bool:
        """Whether the host's caller has begun to."""
        return self._report(host).exists()

    def report(self, host: int) -> dict[str, Any]:
        """The latest of the host's caller."""
        document: dict[str, Any] = json.loads(self._report(host).read_text(encoding="utf-8"))
        return document

    def _report(self, host: int) -> Path:
        return self._folder / f"report-{self.names[host]}"

    # Inside.

    def _start(self, host: int, what: str, words: list[str | Path], *, steady: bool) -> Running:
        environment = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(TESTS)}
        process = self.hosts[host].start(
            words, env=environment | self.clocks[host].environment, cwd=TESTS
        )
        life = Life(f"{what} of host {host}", steady=steady)
        self.lives.append(life)
        return Running(process, life)

    def _check_alive(self, running: Sequence[Running | None], host: int) -> None:
        life = running[host]
        assert life, "it is between two lives"
        if not life.process.running:
            self._findings.add(f"the {life.life.name} ended by itself\n{life.process.tail()}")

    def _bury(self, running: list[Running | None], host: int, *, expected: int) -> None:
        ended = running[host]
        assert ended, "it is between two lives"
        running[host] = None
        status = ended.process.wait(LEAVING)
        if status != expected:
            self._findings.add(f"the {ended.life.name} ended with {status}, not {expected}")
        self._check_words(ended)
        # A soak of hours has more lives than there are descriptors.
        self._lab.processes.remove(ended.process)
        ended.process.close()
