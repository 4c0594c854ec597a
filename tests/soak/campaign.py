"""Leads through it all: storms of faults, rolling restarts, jumping clocks; then looks closely."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from lab import Lab
from soak.faults import Faults
from soak.findings import Findings
from soak.memory import table
from soak.once import Once
from soak.questions import BROADCAST, EVENT, HASTY, IDEMPOTENT, ONCE, PARTED
from soak.schedule import HOUR, STEADY, Kind, Turn, storm, turns
from soak.stage import Running, Stage
from soak.tallies import BOUND_TO_A_RELAY, Tally
from support.lab_relays import status

SETTLED = 60.0
"""Seconds in which every caller has had an answer of each kind, where nothing is broken."""

EMPTY = 30.0
"""Seconds in which a relay has forgotten all programs, once they left."""

_SAMPLE = 1.0  # seconds between two looks at memory
_PROGRESS = 30.0
_LOOK = 0.1
_MOVED = 10.0  # seconds in which a caller reports what its clock shows
_KINDS = (ONCE, IDEMPOTENT, PARTED, BROADCAST, EVENT, "tunnel opened", "tunnel read", "subscribed")


class Campaign:
    """One soak. `findings` are what must not be; nothing is raised for them."""

    def __init__(self, lab: Lab, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self._seed = seed
        self._say = say
        self.findings = Findings(say)
        self.stage = Stage(lab, folder, seed, self.findings)
        self.inflicted: Counter[Kind] = Counter()
        self._faults = Faults(lab, self.stage)
        self._hosts = range(len(self.stage.hosts))
        self._began = self._sampled = self._said = time.monotonic()

    def begin(self) -> None:
        """Start the mesh and its load."""
        self.stage.begin()
        self._wait_for(self._all_report, SETTLED, "the callers report")
        self.settle()

    def soak(self, seconds: float, storm_seconds: float) -> None:
        """One round after another until `seconds` have passed, and one at least."""
        ends = time.monotonic() + seconds
        number = 0
        while True:
            number += 1
            self.storm(Random(f"{self._seed}/{number}"), storm_seconds)
            self.roll([host for host in self._hosts if host != STEADY])
            self.jump_clocks()
            if time.monotonic() >= ends:
                return

    def storm(self, random: Random, seconds: float) -> None:
        """Break things for so long, with each kind of fault; then wait until all is well."""
        faults = storm(random, seconds, len(self._hosts))
        self._say("\n".join(["a storm:", *(f"  {fault}" for fault in faults)]))
        began = time.monotonic()
        for turn in turns(faults):
            self.wait(began + turn.at - time.monotonic())
            self._take(turn)
        self.stage.heal()
        self.settle()

    def _take(self, turn: Turn) -> None:
        if turn.begins:
            self.inflicted[turn.fault.kind] += 1
            self._faults.begin(turn.fault)
        else:
            self._faults.end(turn.fault)

    def roll(self, hosts: Collection[int]) -> None:
        """Restart one relay after another as an upgrade would. No request may fail."""
        self._say(f"a rolling restart of {len(hosts)} relays")
        stage = self.stage
        with self.nothing_fails("a rolling restart", spared=BOUND_TO_A_RELAY):
            for host in hosts:
                stage.terminate(stage.relays, host)
                stage.wait(stage.relays, host)
                stage.start_relay(host)
                stage.heal()
                self._attend()

    def jump_clocks(self) -> None:
        """Let each host's clock jump an hour ahead, to an hour behind, and back."""
        self._say("clocks jump")
        with self.nothing_fails("jumping clocks"):
            for host in self._hosts:
                for jump in (HOUR, -HOUR, 0):
                    self.set_clock(host, jump)

    def set_clock(self, host: int, jump: int) -> None:
        """Let the host's clock jump, and wait until its caller sees it."""
        self.stage.clocks[host].jump(jump)
        self._wait_for(lambda: self._shows(host, jump), _MOVED, "a clock jumped")

    @contextmanager
    def nothing_fails(self, what: str, spared: Collection[str] = ()) -> Iterator[None]:
        """All calls that begin in the block get answers, save those that have too little time."""
        before = self.tally()
        yield
        self.settle()
        for failure, count in self.tally().failed_since(before, spared=spared).items():
            self.findings.add(f"{what} made {count} fail: {failure}")

    def settle(self) -> None:
        """Wait until all that is under way now has ended, and all kinds of calls get answers."""
        now = time.monotonic()
        before = [self.stage.report(host)["answered"] for host in self._hosts]

        def settled() -> bool:
            reports = [self.stage.report(host) for host in self._hosts]
            return all(
                report["oldest"] > now
                and all(report["answered"].get(kind, 0) > old.get(kind, 0) for kind in _KINDS)
                for report, old in zip(reports, before, strict=True)
            )

        self._wait_for(settled, SETTLED, "every caller gets answers")

    def end(self) -> None:
        """End the load, then the relays; look for what was left behind."""
        stage = self.stage
        self._end_all(stage.callers)
        self._end_all(stage.members)
        for host in self._hosts:
            self._wait_for(partial(self._empty, host), EMPTY, "the relays are empty")
        for host in self._hosts:
            relay = stage.process(stage.relays, host)
            stage.terminate(stage.relays, host)
            if int(relay.wait_for_line(r"relay draining requests=(\d+)", EMPTY)[1]):
                self.findings.add(f"the relay of host {host} holds calls that nobody makes")
            stage.wait(stage.relays, host)
        self._check_counts()
        self._check_memory()

    def _end_all(self, running: Sequence[Running | None]) -> None:
        for host in self._hosts:
            self.stage.terminate(running, host)
        for host in self._hosts:
            self.stage.wait(running, host)

    def _empty(self, host: int) -> bool:
        document = status(self.stage.hosts[host])
        # One program is there: the one that asks.
        return document["programs"] == 1 and not document["clusters"] and not document["topics"]

    def _check_counts(self) -> None:
        add = self.findings.add
        tally = self.tally()
        for text in tally.unaccounted():
            add(text)
        for kind, count in tally.hung.items():
            add(f"{count} hung: {kind}")
        for kind, count in tally.wrong.items():
            add(f"{count} wrong: {kind}")
        once = Once()
        for host in self._hosts:
            with self.stage.journal(host).open(encoding="ascii") as lines:
                for line in once.read(lines):
                    add(f"executed twice: {line}")
        for host in self._hosts:
            report = self.stage.report(host)
            executed = once.count.get(self.stage.names[host], 0)
            if not report["ended"]:
                add(f"the caller of host {host} did not end")
            if not report["answered"][ONCE] <= executed <= report["started"][ONCE]:
                add(f"host {host} got {report['answered'][ONCE]} answers to {executed} executed")

    def _check_memory(self) -> None:
        for life in self.stage.lives:
            if life.steady and life.flat is False:
                self.findings.add(f"the memory of the {life.name} is not flat")

    # What is seen.

    def tally(self) -> Tally:
        """What all callers count at this moment."""
        return Tally(self.stage.report(host) for host in self._hosts)

    def summary(self) -> str:
        """The counts and the memory."""
        faults = ", ".join(f"{kind.text} {self.inflicted[kind]}" for kind in Kind)
        return "\n".join(
            [
                f"faults: {faults}",
                f"slowest healing: {self.stage.slowest_healing:.1f} s",
                *self.tally().table(),
                *table(self.stage.lives),
                f"found: {self.findings.count}",
            ]
        )

    def _shows(self, host: int, jump: int) -> bool:
        """Whether the host's caller sees its wall clock there, and its monotonic one as it was."""
        report = self.stage.report(host)
        ours = time.time() - time.monotonic()
        return abs(report["wall"] - report["monotonic"] - ours - jump) < 60

    def _all_report(self) -> bool:
        return all(self.stage.reports(host) for host in self._hosts)

    # Time passes.

    def wait(self, seconds: float) -> None:
        """Let the load go on for so long, and look after it."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK))
            self._attend()

    def _wait_for(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        ends = time.monotonic() + limit
        while not condition():
            if time.monotonic() > ends:
                raise TimeoutError(f"it was not so within {limit:g} s that {what}")
            self.wait(_LOOK)

    def _attend(self) -> None:
        now = time.monotonic()
        if now - self._sampled >= _SAMPLE:
            self._sampled = now
            self.stage.sample()
        if now - self._said >= _PROGRESS:
            self._said = now
            self._say(self._progress(now))

    def _progress(self, now: float) -> str:
        tally = self.tally()
        minutes = (now - self._began) / 60
        failed = tally.failed - Counter({f"{HASTY} RequestTimeout": tally.started[HASTY]})
        return (
            f"{minutes:6.1f} min: {tally.started.total():,} started, {tally.answered.total():,}"
            f" answered, {failed.total():,} failed, {tally.hung.total()} hung,"
            f" {tally.wrong.total()} wrong"
        )
