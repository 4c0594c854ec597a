from __future__ import annotations

import logging
import signal
from typing import Any

import pytest

from arke_proxy.processes.supervisor import START_TIMEOUT, Supervisor

START_FIELDS = {"address": "127.0.0.1:8080"}


class FakeWorkerControl:
    """Records the supervisor's calls. The process ids of spawned workers are 1, 2, 3, …"""

    def __init__(self) -> None:
        self.spawned = 0
        self.retired: list[int] = []
        self.signals: list[tuple[int, signal.Signals]] = []

    def spawn(self) -> int:
        self.spawned += 1
        return self.spawned

    def retire(self, pid: int) -> None:
        self.retired.append(pid)

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.signals.append((pid, number))


@pytest.fixture(autouse=True)
def _log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="arke_proxy")


def fields(event: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = event.__dict__["fields"]
    return fields


def running_supervisor(workers: int) -> tuple[Supervisor, FakeWorkerControl]:
    control = FakeWorkerControl()
    supervisor = Supervisor(control, workers, START_FIELDS, grace=10.0)
    supervisor.start(0.0)
    for pid in range(1, workers + 1):
        supervisor.ready(pid, 0.0)
    return supervisor, control


def test_first_worker_starts_alone_and_start_is_logged_when_all_are_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    control = FakeWorkerControl()
    supervisor = Supervisor(control, 3, START_FIELDS, grace=10.0)
    supervisor.start(0.0)
    assert control.spawned == 1
    supervisor.ready(1, 0.0)
    assert control.spawned == 3
    supervisor.ready(2, 0.0)
    assert caplog.messages == []
    supervisor.ready(3, 0.0)
    (event,) = caplog.records
    assert (event.message, fields(event)) == ("proxy listening", START_FIELDS)


def test_failed_first_worker_sets_exit_status(caplog: pytest.LogCaptureFixture) -> None:
    control = FakeWorkerControl()
    supervisor = Supervisor(control, 3, START_FIELDS, grace=10.0)
    supervisor.start(0.0)
    supervisor.exited(1, 2, 0.0)
    assert (supervisor.status, caplog.messages, control.spawned) == (2, [], 1)


def test_first_generation_has_no_start_timeout() -> None:
    control = FakeWorkerControl()
    supervisor = Supervisor(control, 1, START_FIELDS, grace=10.0)
    supervisor.start(0.0)
    supervisor.tick(1e6)
    assert supervisor.status is None


def test_reload_retires_old_workers_when_all_new_ones_are_ready() -> None:
    supervisor, control = running_supervisor(2)
    supervisor.reload(1.0)
    supervisor.ready(3, 2.0)
    assert control.retired == []
    supervisor.ready(4, 2.0)
    assert control.retired == [1, 2]
    supervisor.exited(1, 0, 3.0)
    assert control.spawned == 4  # a retired worker is not restarted


def test_new_workers_that_are_not_ready_in_time_are_killed_and_old_ones_continue() -> None:
    supervisor, control = running_supervisor(1)
    supervisor.reload(1.0)
    assert supervisor.due == 1.0 + START_TIMEOUT
    supervisor.tick(1.0 + START_TIMEOUT)
    assert control.signals == [(2, signal.SIGKILL)]
    supervisor.exited(2, -9, 40.0)
    assert (control.retired, control.spawned, supervisor.status) == ([], 2, None)
    supervisor.reload(50.0)
    assert control.spawned == 3


def test_reloads_during_a_reload_are_merged() -> None:
    supervisor, control = running_supervisor(1)
    for _ in range(3):
        supervisor.reload(1.0)
    assert control.spawned == 2
    supervisor.ready(2, 2.0)
    assert control.spawned == 3
    supervisor.ready(3, 3.0)
    assert (control.retired, control.spawned) == ([1, 2], 3)


def test_restarts_back_off_exponentially(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, control = running_supervisor(1)
    now, delays = 0.0, []
    for pid in range(1, 12):
        supervisor.exited(pid, 1, now)
        delays.append(round(supervisor.due - now, 1))
        now = supervisor.due
        supervisor.tick(now)
        assert control.spawned == pid + 1
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 10.0
    supervisor.ready(12, now)
    supervisor.exited(12, -11, now + 3600)
    assert round(supervisor.due - now - 3600, 1) == 0.1
    assert fields(caplog.records[-1]) == {
        "worker": 12,
        "reason": "was killed by SIGSEGV",
        "seconds": 0.1,
    }


def test_restarting_old_worker_is_killed_when_new_workers_take_over() -> None:
    supervisor, control = running_supervisor(1)
    supervisor.exited(1, -9, 20.0)
    supervisor.tick(21.0)  # starts worker 2 in place of worker 1
    supervisor.reload(21.0)
    supervisor.ready(3, 22.0)
    assert control.signals == [(2, signal.SIGKILL)]
    supervisor.exited(2, -9, 22.0)
    assert control.spawned == 3


def test_stop_terminates_all_workers_and_kills_those_still_running_after_grace() -> None:
    supervisor, control = running_supervisor(1)
    supervisor.reload(1.0)
    supervisor.ready(2, 1.0)
    supervisor.reload(2.0)
    supervisor.stop(3.0)
    supervisor.stop(4.0)
    assert control.signals == [(pid, signal.SIGTERM) for pid in (1, 2, 3)]
    supervisor.exited(1, 0, 4.0)
    supervisor.exited(3, -15, 4.0)
    assert supervisor.due == 3.0 + 10.0 + 5.0
    supervisor.tick(18.0)
    assert control.signals[-1] == (2, signal.SIGKILL)
    supervisor.exited(2, -9, 18.0)
    assert supervisor.status == 0


def test_number_of_retired_workers_is_limited() -> None:
    supervisor, control = running_supervisor(1)
    for pid in range(2, 19):
        supervisor.reload(0.0)
        supervisor.ready(pid, 0.0)
    assert control.signals == [(1, signal.SIGTERM)]
