from __future__ import annotations

import errno

import pytest

from arke_proxy.connections.descriptors import connection_limits, describe_shortage


def test_clients_get_half_of_the_descriptors() -> None:
    assert connection_limits(80) == (24, 24)
    assert connection_limits(1024) == (496, 496)
    assert connection_limits(1024, others=40) == (476, 476)


@pytest.mark.parametrize(
    ("max_clients", "clients"), [(1, 1), (100, 100), (744, 744), (10_000, 744)]
)
def test_a_quarter_is_kept_for_backends(max_clients: int, clients: int) -> None:
    assert connection_limits(1024, max_clients) == (clients, 992 - clients)


@pytest.mark.parametrize("limit", [0, 32, 33, 36])
@pytest.mark.parametrize("max_clients", [None, 1, 1000])
def test_each_side_gets_at_least_one_descriptor(limit: int, max_clients: int | None) -> None:
    limits = connection_limits(limit, max_clients)
    assert min(limits) >= 1


def test_shortage_message_names_the_fix() -> None:
    process_limit = describe_shortage(OSError(errno.EMFILE, ""))
    assert process_limit.endswith("in use: raise LimitNOFILE (ulimit -n), or lower -max-clients")
    machine_limit = describe_shortage(OSError(errno.ENFILE, ""))
    assert machine_limit == "Too many open files in system: raise fs.file-max (sysctl)"
