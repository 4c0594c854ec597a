from __future__ import annotations

import errno
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain

import pytest

from arke_proxy.processes.socket_binding import bind_sockets
from support.ports import free_port
from support.waiting import LIMIT


def reachable(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex((host, port)) == 0


def test_empty_host_binds_every_address() -> None:
    (sock,) = bind_sockets("", 0)
    with sock:
        port = sock.getsockname()[1]
        assert reachable("127.0.0.1", port)
        assert reachable("127.0.0.9", port)
        assert sock.family is socket.AF_INET or reachable("::1", port)


def test_host_binds_that_address_only() -> None:
    port = free_port()  # not from the system: another test's socket may have that one on 127.0.0.1
    (sock,) = bind_sockets("127.0.0.9", port)
    with sock:
        assert reachable("127.0.0.9", port)
        assert not reachable("127.0.0.1", port)


@pytest.mark.parametrize("count", [1, 3])
def test_bound_port_cannot_be_bound_again(count: int) -> None:
    sockets = bind_sockets("127.0.0.9", 0, count)
    address = sockets[0].getsockname()
    assert [sock.getsockname() for sock in sockets] == [address] * count
    for other_count in (1, 3):
        with pytest.raises(OSError, match="in use") as raised:
            bind_sockets(*address, other_count)
        assert raised.value.errno == errno.EADDRINUSE
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("count", [1, 3])
def test_concurrent_binds_of_one_port_succeed_once(count: int) -> None:
    def bind(barrier: threading.Barrier) -> list[socket.socket]:
        barrier.wait(LIMIT)
        with suppress(OSError):
            return bind_sockets("127.0.0.9", port, count)
        return []

    with ThreadPoolExecutor(2) as pool:
        for _ in range(200):
            port = free_port()
            results = list(pool.map(bind, [threading.Barrier(2)] * 2))
            assert sorted(map(len, results)) in ([0, 0], [0, count])
            for sock in chain(*results):
                sock.close()
