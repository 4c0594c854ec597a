from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.connect import connect
from arke_proxy.backends.connection import BackendConnection, describe
from arke_proxy.backends.dialer import Dialer
from arke_proxy.balancing.routes import Route, Routes
from arke_proxy.balancing.static_balancer import StaticBalancer
from arke_proxy.connections.hub import Hub, Times
from arke_proxy.http.forwarded import Form, Forwarding
from arke_proxy.observability.request_record import NullRecorder

HERE = BackendAddress("127.0.0.1", 80)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Idle(asyncio.Transport):
    """A connection of which the loop has heard nothing."""

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is written."""


async def idle(sock: socket.socket) -> BackendConnection:
    backend = BackendConnection(HERE, sock, await hub())
    backend.connection_made(Idle())
    return backend


async def hub() -> Hub:
    loop = asyncio.get_running_loop()
    times = Times(connect=0.2)
    routes = Routes(Route("web", StaticBalancer([])))
    dialer = Dialer(loop, None, times.connect, 10)
    return Hub(routes, times, loop, 1, NullRecorder(), dialer, Forwarding((), Form.X, bytes))


async def test_an_idle_connection_is_there(pair: tuple[socket.socket, socket.socket]) -> None:
    assert not (await idle(pair[0])).is_dead()


async def test_a_closed_one_is_gone_before_the_loop_knows(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    backend = await idle(pair[0])
    pair[1].close()
    assert backend.is_dead()


async def test_one_that_speaks_unasked_is_good_for_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    backend = await idle(pair[0])
    pair[1].send(b"x")
    assert backend.is_dead()


async def test_the_kernel_looks_after_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        backend = await connect(BackendAddress(*server.getsockname()), await hub())
        options = [
            backend._socket.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_USER_TIMEOUT,
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_NODELAY,
            )
        ]
        backend.close()
    assert options[:4] == [2000, 1, 1, 2]
    assert options[4] != 0


async def test_a_host_that_is_silent_is_given_up() -> None:
    # A listener whose queue is full: the kernel drops what else would connect.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        with socket.create_connection(address), pytest.raises(TimeoutError) as silent:
            await connect(BackendAddress(*address), await hub())
    assert describe(silent.value) == "is silent"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (None, "closed the connection before it had answered"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refuses connections"),
        (OSError(errno.ETIMEDOUT, "timed out"), "is silent"),
        (OSError(errno.EHOSTUNREACH, "-"), "cannot be talked to (No route to host)"),
        (OSError("odd"), "cannot be talked to (odd)"),
    ],
)
def test_what_is_said_about_a_backend(error: Exception | None, sentence: str) -> None:
    assert describe(error) == sentence
