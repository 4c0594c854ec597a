"""Connection failures are reported with their cause."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest
import zmq

from arke_relay.errors import ConnectionFailure
from arke_relay.peers import connection_monitor
from arke_relay.peers.connection_monitor import ConnectionMonitor
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zmq_sockets import JOIN_DOMAIN, curve_client, curve_server, endpoint
from support.waiting import LIMIT

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
async def context() -> AsyncIterator[Context]:
    made: Context = zmq.Context()
    yield made
    made.destroy(linger=0)


async def failure_of(context: Context, where: str) -> ConnectionFailure:
    """Connect to an endpoint and return why it failed."""
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[ConnectionFailure] = loop.create_future()

    def report(failure: ConnectionFailure) -> None:
        if not failed.done():
            failed.set_result(failure)

    keys = CurvePair.fresh(os.urandom)
    client = curve_client(context, zmq.DEALER, keys, CurvePair.fresh(os.urandom).public, 8192)
    monitor = ConnectionMonitor(loop, client, lambda: None, report)
    client.connect(where)
    try:
        async with asyncio.timeout(LIMIT):
            return await failed
    finally:
        monitor.close()
        client.close()


async def test_closed_port_is_connection_refused(context: Context) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = endpoint("127.0.0.1", bound.getsockname()[1])
        assert await failure_of(context, where) is ConnectionFailure.CONNECTION_REFUSED


async def test_unroutable_address_is_no_route(context: Context) -> None:
    # The kernel does not connect from loopback to an address outside.
    where = endpoint("192.0.2.1", 9, "127.0.0.1")
    assert await failure_of(context, where) is ConnectionFailure.NO_ROUTE


async def test_silent_address_is_timed_out(context: Context) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:  # fill the backlog: the kernel drops further SYN packets
            client.setblocking(False)
            client.connect_ex(address)
        where = endpoint("127.0.0.1", address[1])
        assert await failure_of(context, where) is ConnectionFailure.TIMED_OUT
        for client in waiting:
            client.close()


async def test_other_server_key_is_wrong_network_or_key(context: Context) -> None:
    keys = CurvePair.fresh(os.urandom)
    with curve_server(context, zmq.ROUTER, keys, JOIN_DOMAIN, 8192) as server:
        port = server.bind_to_random_port("tcp://127.0.0.1")
        failure = await failure_of(context, endpoint("127.0.0.1", port))
    assert failure is ConnectionFailure.WRONG_NETWORK_OR_KEY


def test_every_monitored_failure_has_a_cause() -> None:
    events = set(connection_monitor._FAILURES)
    events |= {zmq.EVENT_CONNECT_DELAYED, zmq.EVENT_CLOSED, zmq.EVENT_HANDSHAKE_SUCCEEDED}
    assert sum(events) == connection_monitor._EVENTS
