from __future__ import annotations

import os

from arke_proxy.processes.worker_config import MasterConfig, WorkerConfig, new_secret, read_secret


def test_plans_and_seats_pass_through_argv() -> None:
    plan = MasterConfig({"public": [3, 6], "admin": [4]}, 5, 2, 10.0, "here \u2026 we are")
    assert MasterConfig.read(plan.text()) == plan
    seat = plan.seat(7, 0)
    assert WorkerConfig.read(seat.text()) == seat
    assert WorkerConfig.read(seat.text()[:-1] + ', "later": 1}') == seat
    earlier = '{"line": 7, "listeners": {"public": 3}, "secret": 5}'
    assert WorkerConfig.read(earlier) == WorkerConfig(7, {"public": 3}, 5, {})


def test_each_worker_has_a_socket_of_its_own_where_there_are_several() -> None:
    plan = MasterConfig({"public": [3, 6], "admin": [4]}, 5, 2, 10.0, "")
    assert plan.seat(7, 0) == WorkerConfig(
        7, {"public": 3, "admin": 4}, 5, {"public": [6], "admin": []}
    )
    assert plan.seat(8, 1) == WorkerConfig(
        8, {"public": 6, "admin": 4}, 5, {"public": [3], "admin": []}
    )


def test_all_who_hold_the_descriptor_read_the_same_secret() -> None:
    number, other = new_secret(), new_secret()
    secret = read_secret(number)
    assert len(secret) == 32
    assert read_secret(number) == secret
    assert read_secret(other) != secret
    for one in (number, other):
        os.close(one)
