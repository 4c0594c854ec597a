"""Connect a ZeroMQ client, and return whether its CURVE handshake succeeds."""

from __future__ import annotations

import asyncio

import zmq
from zmq.utils.monitor import parse_monitor_message

from support.waiting import LIMIT

_REFUSED = {
    zmq.EVENT_DISCONNECTED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
}


async def handshake_succeeds(sock: zmq.Socket[bytes], endpoint: str) -> bool:
    """Connect to an endpoint; return whether the handshake succeeds."""
    with sock.get_monitor_socket() as monitor:
        sock.connect(endpoint)
        async with asyncio.timeout(LIMIT):
            while (outcome := _outcome(monitor)) is None:
                await asyncio.sleep(0.005)
        sock.disable_monitor()
    return outcome


def _outcome(monitor: zmq.Socket[bytes]) -> bool | None:
    while True:
        try:
            event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))["event"]
        except zmq.Again:
            return None
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return True
        if event in _REFUSED:
            return False
