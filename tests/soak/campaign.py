"""Run a soak: storms of faults, rolling restarts and clock jumps, then final checks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from lab import Lab
from soak.counts import BOUND_TO_THE_RELAY, Counts
from soak.executions import Executions
from soak.faults import Faults
from soak.findings import Findings
from soak.memory import table
from soak.messages import BROADCAST, EVENT, IDEMPOTENT, MULTIPART, ONCE, SHORT_TIMEOUT
from soak.schedule import HOUR, STEADY_HOST, FaultEvent, Kind, fault_events, storm
from soak.testbed import RunningProcess, Testbed
from support.lab_relays import status

SETTLE_LIMIT = 60.0
"""Seconds in which each operation of every caller succeeds once, without faults."""

DETACH_LIMIT = 30.0
"""Seconds in which a relay has removed all programs that have detached."""

_SAMPLE = 1.0  # seconds between two memory samples
_PROGRESS = 30.0
_POLL = 0.1
_CLOCK_LIMIT = 10.0  # seconds in which a caller reports the new time
_KINDS = (
    ONCE,
    IDEMPOTENT,
    MULTIPART,
    BROADCAST,
    EVENT,
    "tunnel opened",
    "tunnel read",
    "subscribed",
)


class Campaign:
    """One soak. Faults of Arke are added to `findings`; they are not raised."""

    def __init__(
        self, lab: Lab, folder: Path, seed: int, print_line: Callable[[str], None]
    ) -> None:
        self._seed = seed
        self._print = print_line
        self.findings = Findings(print_line)
        self.testbed = Testbed(lab, folder, seed, self.findings)
        self.fault_counts: Counter[Kind] = Counter()
        self._faults = Faults(lab, self.testbed)
        self._hosts = range(len(self.testbed.hosts))
        self._started_at = self._sampled_at = self._reported_at = time.monotonic()

    def begin(self) -> None:
        """Start the mesh and its load."""
        self.testbed.begin()
        self._wait_for(self._all_callers_report, SETTLE_LIMIT, "the callers report")
        self.settle()

    def soak(self, seconds: float, storm_seconds: float) -> None:
        """Run rounds for `seconds`, at least one."""
        ends = time.monotonic() + seconds
        number = 0
        while True:
            number += 1
            self.storm(Random(f"{self._seed}/{number}"), storm_seconds)
            self.roll([host for host in self._hosts if host != STEADY_HOST])
            self.jump_clocks()
            if time.monotonic() >= ends:
                return

    def storm(self, random: Random, seconds: float) -> None:
        """Start random faults for `seconds`, with each kind; then wait until all works again."""
        faults = storm(random, seconds, len(self._hosts))
        self._print("\n".join(["a storm:", *(f"  {fault}" for fault in faults)]))
        started = time.monotonic()
        for event in fault_events(faults):
            self.wait(started + event.at - time.monotonic())
            self._apply(event)
        self.testbed.wait_until_linked()
        self.settle()

    def _apply(self, event: FaultEvent) -> None:
        if event.starts:
            self.fault_counts[event.fault.kind] += 1
            self._faults.begin(event.fault)
        else:
            self._faults.end(event.fault)

    def roll(self, hosts: Collection[int]) -> None:
        """Restart one relay after another, as in an upgrade. No request may fail."""
        self._print(f"a rolling restart of {len(hosts)} relays")
        testbed = self.testbed
        with self.expect_no_failures("a rolling restart", allowed=BOUND_TO_THE_RELAY):
            for host in hosts:
                testbed.terminate(testbed.relays, host)
                testbed.wait(testbed.relays, host)
                testbed.start_relay(host)
                testbed.wait_until_linked()
                self._sample_and_report()

    def jump_clocks(self) -> None:
        """Set each host's clock an hour ahead, an hour back, and to the real time."""
        self._print("clocks jump")
        with self.expect_no_failures("jumping clocks"):
            for host in self._hosts:
                for jump in (HOUR, -HOUR, 0):
                    self.set_clock(host, jump)

    def set_clock(self, host: int, jump: int) -> None:
        """Set the host's clock, and wait until its caller sees the new time."""
        self.testbed.clocks[host].jump(jump)
        self._wait_for(lambda: self._clock_shows(host, jump), _CLOCK_LIMIT, "a clock jumped")

    @contextmanager
    def expect_no_failures(self, what: str, allowed: Collection[str] = ()) -> Iterator[None]:
        """Operations in the block must succeed, except those with a short time-out."""
        before = self.counts()
        yield
        self.settle()
        for failure, count in self.counts().failed_since(before, allowed=allowed).items():
            self.findings.add(f"{what} made {count} fail: {failure}")

    def settle(self) -> None:
        """Wait until all running operations have ended, and each kind has succeeded once."""
        now = time.monotonic()
        before = [self.testbed.report(host)["answered"] for host in self._hosts]

        def settled() -> bool:
            reports = [self.testbed.report(host) for host in self._hosts]
            return all(
                report["oldest"] > now
                and all(report["answered"].get(kind, 0) > old.get(kind, 0) for kind in _KINDS)
                for report, old in zip(reports, before, strict=True)
            )

        self._wait_for(settled, SETTLE_LIMIT, "operations of every caller succeed")

    def end(self) -> None:
        """Stop the load, then the relays; check counts, memory, and that the relays are empty."""
        testbed = self.testbed
        self._end_all(testbed.callers)
        self._end_all(testbed.members)
        for host in self._hosts:
            self._wait_for(partial(self._empty, host), DETACH_LIMIT, "the relays are empty")
        for host in self._hosts:
            relay = testbed.process(testbed.relays, host)
            testbed.terminate(testbed.relays, host)
            if int(relay.wait_for_line(r"relay draining requests=(\d+)", DETACH_LIMIT)[1]):
                self.findings.add(f"the relay of host {host} still has requests")
            testbed.wait(testbed.relays, host)
        self._check_counts()
        self._check_memory()

    def _end_all(self, running: Sequence[RunningProcess | None]) -> None:
        for host in self._hosts:
            self.testbed.terminate(running, host)
        for host in self._hosts:
            self.testbed.wait(running, host)

    def _empty(self, host: int) -> bool:
        document = status(self.testbed.hosts[host])
        # The only program is the one that asks for the status.
        return document["programs"] == 1 and not document["clusters"] and not document["topics"]

    def _check_counts(self) -> None:
        add = self.findings.add
        counts = self.counts()
        for text in counts.unaccounted():
            add(text)
        for kind, count in counts.hung.items():
            add(f"{count} hung: {kind}")
        for kind, count in counts.wrong.items():
            add(f"{count} wrong: {kind}")
        executions = Executions()
        for host in self._hosts:
            with self.testbed.journal(host).open(encoding="ascii") as lines:
                for line in executions.read(lines):
                    add(f"executed twice: {line}")
        for host in self._hosts:
            report = self.testbed.report(host)
            executed = executions.count.get(self.testbed.names[host], 0)
            if not report["ended"]:
                add(f"the caller of host {host} did not end")
            if not report["answered"][ONCE] <= executed <= report["started"][ONCE]:
                add(f"host {host} got {report['answered'][ONCE]} replies to {executed} executed")

    def _check_memory(self) -> None:
        for record in self.testbed.memory_records:
            if record.steady and record.flat is False:
                self.findings.add(f"the memory of the {record.name} is not flat")

    # Reports.

    def counts(self) -> Counts:
        """Return the current counts of all callers."""
        return Counts(self.testbed.report(host) for host in self._hosts)

    def summary(self) -> str:
        """Return the faults, the counts and the memory as text."""
        faults = ", ".join(f"{kind.text} {self.fault_counts[kind]}" for kind in Kind)
        return "\n".join(
            [
                f"faults: {faults}",
                f"slowest recovery: {self.testbed.slowest_recovery:.1f} s",
                *self.counts().table(),
                *table(self.testbed.memory_records),
                f"found: {self.findings.count}",
            ]
        )

    def _clock_shows(self, host: int, jump: int) -> bool:
        """Whether the host's caller sees the new wall clock and an unchanged monotonic clock."""
        report = self.testbed.report(host)
        ours = time.time() - time.monotonic()
        return abs(report["wall"] - report["monotonic"] - ours - jump) < 60

    def _all_callers_report(self) -> bool:
        return all(self.testbed.has_report(host) for host in self._hosts)

    # Waiting.

    def wait(self, seconds: float) -> None:
        """Wait while the load runs; sample memory and print progress meanwhile."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, _POLL))
            self._sample_and_report()

    def _wait_for(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        ends = time.monotonic() + limit
        while not condition():
            if time.monotonic() > ends:
                raise TimeoutError(f"timed out after {limit:g} s: {what}")
            self.wait(_POLL)

    def _sample_and_report(self) -> None:
        now = time.monotonic()
        if now - self._sampled_at >= _SAMPLE:
            self._sampled_at = now
            self.testbed.sample()
        if now - self._reported_at >= _PROGRESS:
            self._reported_at = now
            self._print(self._progress(now))

    def _progress(self, now: float) -> str:
        counts = self.counts()
        minutes = (now - self._started_at) / 60
        failed = counts.failed - Counter(
            {f"{SHORT_TIMEOUT} RequestTimeout": counts.started[SHORT_TIMEOUT]}
        )
        return (
            f"{minutes:6.1f} min: {counts.started.total():,} started, {counts.answered.total():,}"
            f" answered, {failed.total():,} failed, {counts.hung.total()} hung,"
            f" {counts.wrong.total()} wrong"
        )
