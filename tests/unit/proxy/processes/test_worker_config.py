from __future__ import annotations

import os

from arke_proxy.processes.worker_config import MasterConfig, WorkerConfig, new_secret, read_secret


def test_configs_round_trip_through_argv() -> None:
    config = MasterConfig(
        {"public": [3, 6], "admin": [4]}, 5, 2, 10.0, {"address": "\u2026"}, "info", "text"
    )
    assert MasterConfig.from_json(config.to_json()) == config
    worker = config.worker(7, 0)
    assert WorkerConfig.from_json(worker.to_json()) == worker
    assert WorkerConfig.from_json(worker.to_json()[:-1] + ', "unknown": 1}') == worker
    without_siblings = '{"ipc": 7, "listeners": {"public": 3}, "secret": 5}'
    assert WorkerConfig.from_json(without_siblings) == WorkerConfig(7, {"public": 3}, 5, {})


def test_each_worker_has_its_own_listening_socket() -> None:
    config = MasterConfig({"public": [3, 6], "admin": [4]}, 5, 2, 10.0, {}, "info", "text")
    assert config.worker(7, 0) == WorkerConfig(
        7, {"public": 3, "admin": 4}, 5, {"public": [6], "admin": []}
    )
    assert config.worker(8, 1) == WorkerConfig(
        8, {"public": 6, "admin": 4}, 5, {"public": [3], "admin": []}
    )


def test_secret_is_shared_by_descriptor() -> None:
    descriptor, other_descriptor = new_secret(), new_secret()
    secret = read_secret(descriptor)
    assert len(secret) == 32
    assert read_secret(descriptor) == secret
    assert read_secret(other_descriptor) != secret
    for each in (descriptor, other_descriptor):
        os.close(each)
