from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.connection import BackendConnection, BackendEnvironment, describe
from arke_proxy.backends.connector import BackendConnector
from arke_proxy.backends.dialer import Dialer
from arke_proxy.backends.pool import Pool
from arke_proxy.connections.write_batch import WriteBatch

ADDRESS = BackendAddress("127.0.0.1", 80)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connected sockets: the proxy's end and the backend's end."""
    proxy_end, backend_end = socket.socketpair()
    proxy_end.setblocking(False)
    with proxy_end, backend_end:
        yield proxy_end, backend_end


class IdleTransport(asyncio.Transport):
    """A transport that reports no events, so that only the socket shows a close."""

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ignore the limits."""


async def idle_connection(sock: socket.socket) -> BackendConnection:
    backend = BackendConnection(ADDRESS, sock, environment())
    backend.connection_made(IdleTransport())
    return backend


def environment() -> BackendEnvironment:
    loop = asyncio.get_running_loop()
    return BackendEnvironment(
        pool=Pool(1, 4.0),
        dialer=Dialer(loop, None, 0.2, 10),
        write_batch=WriteBatch(loop),
    )


def connector() -> BackendConnector:
    loop = asyncio.get_running_loop()
    dialer = Dialer(loop, None, 0.2, 10)
    return BackendConnector(dialer, loop, WriteBatch(loop), idle_seconds=4.0)


async def test_idle_connection_is_not_dead(pair: tuple[socket.socket, socket.socket]) -> None:
    assert not (await idle_connection(pair[0])).is_dead()


async def test_closed_connection_is_dead_before_event_loop_reports_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    backend = await idle_connection(pair[0])
    pair[1].close()
    assert backend.is_dead()


async def test_connection_with_unexpected_data_is_dead(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    backend = await idle_connection(pair[0])
    pair[1].send(b"x")
    assert backend.is_dead()


async def test_keepalive_and_user_timeout_are_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        backend = await connector().connect(BackendAddress(*server.getsockname()))
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


async def test_connecting_to_a_silent_host_times_out() -> None:
    # The accept queue is full: the kernel drops further connection attempts.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        with socket.create_connection(address), pytest.raises(TimeoutError) as raised:
            await connector().connect(BackendAddress(*address))
    assert describe(raised.value) == "timed out"


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (None, "closed the connection before it answered"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refused the connection"),
        (OSError(errno.ETIMEDOUT, "timed out"), "timed out"),
        (OSError(errno.EHOSTUNREACH, "-"), "failed (No route to host)"),
        (OSError("odd"), "failed (odd)"),
    ],
)
def test_describe_connection_error(error: Exception | None, description: str) -> None:
    assert describe(error) == description
