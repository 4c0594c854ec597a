from __future__ import annotations

import signal

from arke_proxy.processes.supervisor import READY, Supervisor

GREETING = "here we are"


class Hands:
    """Remembers what was done, and counts processes from 1."""

    def __init__(self) -> None:
        self.spawned = 0
        self.retired: list[int] = []
        self.signals: list[tuple[int, signal.Signals]] = []
        self.said: list[str] = []

    def spawn(self) -> int:
        self.spawned += 1
        return self.spawned

    def retire(self, pid: int) -> None:
        self.retired.append(pid)

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.signals.append((pid, number))

    def say(self, level: str, sentence: str) -> None:
        self.said.append(sentence)


def serving(size: int) -> tuple[Supervisor, Hands]:
    hands = Hands()
    supervisor = Supervisor(hands, size, GREETING, grace=10.0)
    supervisor.start(0.0)
    for pid in range(1, size + 1):
        supervisor.ready(pid, 0.0)
    return supervisor, hands


def test_the_first_worker_tries_alone_and_the_greeting_waits_for_all() -> None:
    hands = Hands()
    supervisor = Supervisor(hands, 3, GREETING, grace=10.0)
    supervisor.start(0.0)
    assert hands.spawned == 1
    supervisor.ready(1, 0.0)
    assert hands.spawned == 3
    supervisor.ready(2, 0.0)
    assert hands.said == []
    supervisor.ready(3, 0.0)
    assert hands.said == [GREETING]


def test_a_first_worker_that_fails_gives_the_exit_status() -> None:
    hands = Hands()
    supervisor = Supervisor(hands, 3, GREETING, grace=10.0)
    supervisor.start(0.0)
    supervisor.exited(1, 2, 0.0)
    assert (supervisor.status, hands.said, hands.spawned) == (2, [], 1)


def test_the_first_generation_may_wait_for_its_relay() -> None:
    hands = Hands()
    supervisor = Supervisor(hands, 1, GREETING, grace=10.0)
    supervisor.start(0.0)
    supervisor.tick(1e6)
    assert supervisor.status is None


def test_the_old_retire_when_all_of_the_new_serve() -> None:
    supervisor, hands = serving(2)
    supervisor.reload(1.0)
    supervisor.ready(3, 2.0)
    assert hands.retired == []
    supervisor.ready(4, 2.0)
    assert hands.retired == [1, 2]
    supervisor.exited(1, 0, 3.0)
    assert hands.spawned == 4  # it is not replaced


def test_a_new_generation_that_is_late_is_killed_and_the_old_goes_on() -> None:
    supervisor, hands = serving(1)
    supervisor.reload(1.0)
    assert supervisor.due == 1.0 + READY
    supervisor.tick(1.0 + READY)
    assert hands.signals == [(2, signal.SIGKILL)]
    supervisor.exited(2, -9, 40.0)
    assert (hands.retired, hands.spawned, supervisor.status) == ([], 2, None)
    supervisor.reload(50.0)
    assert hands.spawned == 3


def test_reloads_during_a_reload_are_one_more() -> None:
    supervisor, hands = serving(1)
    for _ in range(3):
        supervisor.reload(1.0)
    assert hands.spawned == 2
    supervisor.ready(2, 2.0)
    assert hands.spawned == 3
    supervisor.ready(3, 3.0)
    assert (hands.retired, hands.spawned) == ([1, 2], 3)


def test_a_worker_that_keeps_ending_is_replaced_ever_later() -> None:
    supervisor, hands = serving(1)
    now, pauses = 0.0, []
    for pid in range(1, 12):
        supervisor.exited(pid, 1, now)
        pauses.append(round(supervisor.due - now, 1))
        now = supervisor.due
        supervisor.tick(now)
        assert hands.spawned == pid + 1
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 10.0
    supervisor.ready(12, now)
    supervisor.exited(12, -11, now + 3600)
    assert round(supervisor.due - now - 3600, 1) == 0.1
    assert "worker 12 was killed by SIGSEGV" in hands.said[-1]


def test_a_replacement_that_starts_during_a_takeover_is_not_kept() -> None:
    supervisor, hands = serving(1)
    supervisor.exited(1, -9, 20.0)
    supervisor.tick(21.0)  # 2 is to replace it
    supervisor.reload(21.0)
    supervisor.ready(3, 22.0)
    assert hands.signals == [(2, signal.SIGKILL)]
    supervisor.exited(2, -9, 22.0)
    assert hands.spawned == 3


def test_stopping_tells_everybody_and_kills_who_does_not_end() -> None:
    supervisor, hands = serving(1)
    supervisor.reload(1.0)
    supervisor.ready(2, 1.0)
    supervisor.reload(2.0)
    supervisor.stop(3.0)
    supervisor.stop(4.0)
    assert hands.signals == [(pid, signal.SIGTERM) for pid in (1, 2, 3)]
    supervisor.exited(1, 0, 4.0)
    supervisor.exited(3, -15, 4.0)
    assert supervisor.due == 3.0 + 10.0 + 5.0
    supervisor.tick(18.0)
    assert hands.signals[-1] == (2, signal.SIGKILL)
    supervisor.exited(2, -9, 18.0)
    assert supervisor.status == 0


def test_retired_workers_do_not_pile_up() -> None:
    supervisor, hands = serving(1)
    for pid in range(2, 19):
        supervisor.reload(0.0)
        supervisor.ready(pid, 0.0)
    assert hands.signals == [(1, signal.SIGTERM)]
