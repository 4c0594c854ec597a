from __future__ import annotations

import errno
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain

import pytest

from arke_proxy.processes.sockets import listen
from support.ports import free_port
from support.waiting import LIMIT


def reachable(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex((host, port)) == 0


def test_no_host_is_every_address() -> None:
    (sock,) = listen("", 0)
    with sock:
        port = sock.getsockname()[1]
        assert reachable("127.0.0.1", port)
        assert reachable("127.0.0.9", port)
        assert sock.family is socket.AF_INET or reachable("::1", port)


def test_a_host_is_that_address_alone() -> None:
    (sock,) = listen("127.0.0.9", 0)
    with sock:
        port = sock.getsockname()[1]
        assert reachable("127.0.0.9", port)
        assert not reachable("127.0.0.1", port)


@pytest.mark.parametrize("count", [1, 3])
def test_a_port_is_taken_for_everybody_else(count: int) -> None:
    sockets = listen("127.0.0.9", 0, count)
    where = sockets[0].getsockname()
    assert [sock.getsockname() for sock in sockets] == [where] * count
    for number in (1, 3):
        with pytest.raises(OSError, match="in use") as taken:
            listen(*where, number)
        assert taken.value.errno == errno.EADDRINUSE
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("count", [1, 3])
def test_of_two_who_come_at_once_one_has_the_port(count: int) -> None:
    def take(barrier: threading.Barrier) -> list[socket.socket]:
        barrier.wait(LIMIT)
        with suppress(OSError):
            return listen("127.0.0.9", port, count)
        return []

    with ThreadPoolExecutor(2) as pool:
        for _ in range(200):
            port = free_port()
            taken = list(pool.map(take, [threading.Barrier(2)] * 2))
            assert sorted(map(len, taken)) in ([0, 0], [0, count])
            for sock in chain(*taken):
                sock.close()
