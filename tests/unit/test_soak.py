"""The schedule of the soak, and its checks: each of them can fail."""

from __future__ import annotations

import asyncio
from itertools import combinations
from random import Random

import pytest

import arke
from soak.counts import Counts
from soak.executions import Executions
from soak.memory import MIB, MIN_SAMPLES, MemoryRecord, table
from soak.messages import MessageHead, make_body, parse_head
from soak.programs.operations import MARGIN, Operations
from soak.programs.ordering import Ordering
from soak.schedule import STEADY_HOST, Kind, fault_events, storm

LIMIT = 10.0
SEEDS = range(50)


@pytest.mark.parametrize("seed", SEEDS)
def test_storm_has_every_kind_of_fault_and_never_restarts_the_steady_host(seed: int) -> None:
    faults = storm(Random(seed), 30, hosts=3)
    assert {fault.kind for fault in faults} == set(Kind)
    assert not [
        fault for fault in faults if fault.kind.ends_the_process and fault.host == STEADY_HOST
    ]
    assert faults == storm(Random(seed), 30, hosts=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_target_has_one_fault_at_a_time(seed: int) -> None:
    faults = storm(Random(seed), 60, hosts=3)
    for one, other in combinations(faults, 2):
        if (one.host, one.kind.target) == (other.host, other.kind.target):
            assert one.end < other.at
    events = list(fault_events(faults))
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert [event.fault for event in events if event.starts] == faults
    assert {event.fault for event in events if not event.starts} == set(faults)


def test_body_contains_its_head() -> None:
    head = MessageHead("once", "101", 1234)
    assert parse_head(make_body(head, 16)) == parse_head(make_body(head, 9999)) == head


def test_double_execution_is_found_in_one_journal_and_across_two() -> None:
    executions = Executions()
    assert list(executions.read(["101 7\n", "102 7\n", "101 70000\n", "101 7\n"])) == ["101 7"]
    assert list(executions.read(["101 8\n", "101 70000\n"])) == ["101 70000"]
    assert executions.count == {"101": 3, "102": 1}


def test_out_of_order_and_repeated_messages_are_found() -> None:
    ordering = Ordering()
    numbers = [1, 3, 3, 2, 4]
    found = [ordering.check(MessageHead("event", "101", number)) for number in numbers]
    assert found == [
        None,
        None,
        "event 3 of 101 arrived after 3",
        "event 2 of 101 arrived after 3",
        None,
    ]
    assert ordering.check(MessageHead("event", "102", 1)) is None


def test_outcomes_are_counted_by_kind_and_error_type(capsys: pytest.CaptureFixture[str]) -> None:
    operations = Operations()
    with operations.track("once", LIMIT) as answered:
        pass
    with operations.track("once", LIMIT) as lost:
        raise arke.MemberLost("it died")
    with operations.track("once", LIMIT):
        raise KeyError("no error of ours")
    with pytest.raises(asyncio.CancelledError), operations.track("once", LIMIT):
        raise asyncio.CancelledError
    assert (answered.done, lost.done) == (True, False)
    counts = Counts([operations.report()])
    assert counts.failed == {"once MemberLost": 1, "once KeyError": 1}
    assert counts.wrong == {"once": 1}
    assert "wrong: once: it raised KeyError" in capsys.readouterr().out
    assert list(counts.unaccounted()) == ["once: 4 started, 3 ended"]


async def test_hanging_operation_is_counted_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    operations = Operations()
    watch = asyncio.create_task(operations.watch())
    with operations.track("once", -MARGIN), operations.track("idempotent", LIMIT):
        async with asyncio.timeout(LIMIT):
            while not operations.report()["hung"]:
                await asyncio.sleep(0.01)
            with operations.track("event", -MARGIN):
                while not operations.report()["hung"]["event"]:
                    await asyncio.sleep(0.01)
    watch.cancel()
    assert operations.report()["hung"] == {"once": 1, "event": 1}
    assert "hung: once: still" in capsys.readouterr().out


def test_failed_since_ignores_short_timeouts_and_allowed_kinds() -> None:
    report = {"started": {}, "answered": {}, "hung": {}, "open": {}, "wrong": {}}
    before = Counts([report | {"failed": {"once MemberLost": 2}}])
    after = Counts(
        [
            report
            | {
                "failed": {
                    "once MemberLost": 3,
                    "short timeout RequestTimeout": 9,
                    "short timeout MemberLost": 1,
                    "tunnel read TunnelClosed": 4,
                }
            }
        ]
    )
    assert after.failed_since(before, allowed=["tunnel read"]) == {
        "once MemberLost": 1,
        "short timeout MemberLost": 1,
    }
    assert after.failed_since(before)["tunnel read TunnelClosed"] == 4


def record(*quarters: float) -> MemoryRecord:
    made = MemoryRecord("relay of host 0", steady=True)
    for value in quarters:
        made.samples.extend([int(value * MIB)] * MIN_SAMPLES)
    return made


def test_growing_memory_is_not_flat_but_one_peak_is() -> None:
    assert record(40, 60, 60, 61).flat is True
    assert record(60, 60, 90, 60).flat is True
    assert record(60, 60, 70, 80).flat is False
    assert "NOT FLAT" in "\n".join(table([record(60, 60, 70, 80)]))
    short = record()
    short.samples.extend([60 * MIB] * (MIN_SAMPLES - 1))
    assert short.flat is None
    assert table([short])[-1] == "  and 1 shorter records, none over 60.0 MiB"
