from __future__ import annotations

import errno
import socket

import pytest

from arke_proxy.operations.listeners import bind, shared


def reachable(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex((host, port)) == 0


def test_no_host_is_every_address() -> None:
    with bind("", 0) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        assert reachable("127.0.0.1", port)
        assert reachable("127.0.0.9", port)
        assert sock.family is socket.AF_INET or reachable("::1", port)


def test_a_host_is_that_address_alone() -> None:
    with bind("127.0.0.9", 0) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        assert reachable("127.0.0.9", port)
        assert not reachable("127.0.0.1", port)


def test_a_port_is_taken_before_anyone_listens() -> None:
    with bind("127.0.0.9", 0) as first:
        assert not reachable("127.0.0.9", first.getsockname()[1])
        first.listen()
        with pytest.raises(OSError, match="in use") as taken:
            bind(*first.getsockname())
    assert taken.value.errno == errno.EADDRINUSE


def test_a_shared_port_is_taken_for_everybody_else() -> None:
    first, *others = shared(bind("127.0.0.9", 0), 3)
    assert len(others) == 2
    for sock in (first, *others):
        assert sock.getsockname() == first.getsockname()
        sock.listen()
    with pytest.raises(OSError, match="in use"):
        bind(*first.getsockname())
    for sock in (first, *others):
        sock.close()
