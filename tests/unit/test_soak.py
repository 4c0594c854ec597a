"""What decides over a soak, in itself: its schedule, and that each of its checks can fail."""

from __future__ import annotations

import asyncio
from itertools import combinations
from random import Random

import pytest

import arke
from soak.memory import ENOUGH, MIB, Life, table
from soak.once import Once
from soak.programs.operations import MARGIN, Operations
from soak.programs.ordering import Ordering
from soak.questions import Question, body_of, question_of
from soak.schedule import STEADY, Kind, storm, turns
from soak.tallies import Tally

LIMIT = 10.0
SEEDS = range(50)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_has_every_kind_and_spares_the_steady_host(seed: int) -> None:
    faults = storm(Random(seed), 30, hosts=3)
    assert {fault.kind for fault in faults} == set(Kind)
    assert not [fault for fault in faults if fault.kind.ends_a_life and fault.host == STEADY]
    assert faults == storm(Random(seed), 30, hosts=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_thing_has_one_fault_at_a_time(seed: int) -> None:
    faults = storm(Random(seed), 60, hosts=3)
    for one, other in combinations(faults, 2):
        if (one.host, one.kind.thing) == (other.host, other.kind.thing):
            assert one.over < other.at
    moments = list(turns(faults))
    assert [turn.at for turn in moments] == sorted(turn.at for turn in moments)
    assert [turn.fault for turn in moments if turn.begins] == faults
    assert {turn.fault for turn in moments if not turn.begins} == set(faults)


def test_a_body_says_which_question_it_is() -> None:
    question = Question("once", "101", 1234)
    assert question_of(body_of(question, 16)) == question_of(body_of(question, 9999)) == question


def test_what_was_executed_twice_is_found_in_one_journal_and_across_two() -> None:
    once = Once()
    assert list(once.read(["101 7\n", "102 7\n", "101 70000\n", "101 7\n"])) == ["101 7"]
    assert list(once.read(["101 8\n", "101 70000\n"])) == ["101 70000"]
    assert once.count == {"101": 3, "102": 1}


def test_disorder_and_repetition_are_found() -> None:
    ordering = Ordering()
    numbers = [1, 3, 3, 2, 4]
    found = [ordering.hear(Question("event", "101", number)) for number in numbers]
    assert found == [
        None,
        None,
        "event 3 of 101 came behind 3",
        "event 2 of 101 came behind 3",
        None,
    ]
    assert ordering.hear(Question("event", "102", 1)) is None


def test_each_outcome_is_counted_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    operations = Operations()
    with operations.one("once", LIMIT) as answered:
        pass
    with operations.one("once", LIMIT) as lost:
        raise arke.MemberLost("it died")
    with operations.one("once", LIMIT):
        raise KeyError("no error of ours")
    with pytest.raises(asyncio.CancelledError), operations.one("once", LIMIT):
        raise asyncio.CancelledError
    assert (answered.done, lost.done) == (True, False)
    tally = Tally([operations.report()])
    assert tally.failed == {"once MemberLost": 1, "once KeyError": 1}
    assert tally.wrong == {"once": 1}
    assert "wrong: once: it raised KeyError" in capsys.readouterr().out
    assert list(tally.unaccounted()) == ["once: 4 started, 3 ended"]


async def test_what_does_not_end_is_hung_and_counted_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    operations = Operations()
    watch = asyncio.create_task(operations.watch())
    with operations.one("once", -MARGIN), operations.one("idempotent", LIMIT):
        async with asyncio.timeout(LIMIT):
            while not operations.report()["hung"]:
                await asyncio.sleep(0.01)
            with operations.one("event", -MARGIN):
                while not operations.report()["hung"]["event"]:
                    await asyncio.sleep(0.01)
    watch.cancel()
    assert operations.report()["hung"] == {"once": 1, "event": 1}
    assert "hung: once: it still" in capsys.readouterr().out


def test_only_what_may_not_fail_is_held_against_a_quiet_time() -> None:
    report = {"started": {}, "answered": {}, "hung": {}, "open": {}, "wrong": {}}
    before = Tally([report | {"failed": {"once MemberLost": 2}}])
    after = Tally(
        [
            report
            | {
                "failed": {
                    "once MemberLost": 3,
                    "hasty RequestTimeout": 9,
                    "hasty MemberLost": 1,
                    "tunnel read TunnelClosed": 4,
                }
            }
        ]
    )
    assert after.failed_since(before, spared=["tunnel read"]) == {
        "once MemberLost": 1,
        "hasty MemberLost": 1,
    }
    assert after.failed_since(before)["tunnel read TunnelClosed"] == 4


def life(*quarters: float) -> Life:
    made = Life("relay of host 0", steady=True)
    for value in quarters:
        made.samples.extend([int(value * MIB)] * ENOUGH)
    return made


def test_memory_that_grows_is_not_flat_and_one_burst_is() -> None:
    assert life(40, 60, 60, 61).flat is True
    assert life(60, 60, 90, 60).flat is True
    assert life(60, 60, 70, 80).flat is False
    assert "NOT FLAT" in "\n".join(table([life(60, 60, 70, 80)]))
    short = life()
    short.samples.extend([60 * MIB] * (ENOUGH - 1))
    assert short.flat is None
    assert table([short])[-1] == "  and 1 shorter lives, none over 60.0 MiB"
