"""Joins (see `handshake`) over ZeroMQ, from both sides, each bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from arke_relay.errors import JoinRefused
from arke_relay.peers.join_handshake import Admitted, Initiator, Responder
from arke_relay.peers.join_messages import MESSAGE_BYTES, refused
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zmq_sockets import (
    JOIN_DOMAIN,
    Watched,
    curve_client,
    curve_server,
    drain,
    endpoint,
)

_LIMIT = 5.0
"""Seconds for a whole join, on either side."""

_RESPONDERS = 256
"""Joins that others have begun with us, at most."""

_HIGH_WATER = 16

_ENDINGS: dict[int, str] = {
    zmq.EVENT_DISCONNECTED: "the connection broke",
    zmq.EVENT_CLOSED: "nobody listens there",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it was refused",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "another network, or another key",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "another network, or another key",
}


@dataclass(slots=True)
class _Open:
    responder: Responder
    address: str
    timer: asyncio.TimerHandle


class JoinSocket:
    """Answers joins.

    `respond(curve key, address)` makes the responder of a new one; `admit(admitted, address)`
    enters its outcome, and may still raise JoinRefused; `refuse(address, reason)` is told of
    failures.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        clock: Callable[[], float],
        respond: Callable[[bytes, str], Responder],
        admit: Callable[[Admitted, str], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._respond = respond
        self._admit = admit
        self._refuse = refuse
        self._joins: dict[bytes, _Open] = {}
        self.socket = curve_server(context, zmq.ROUTER, keys, JOIN_DOMAIN, MESSAGE_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.sndhwm = _HIGH_WATER
        self.socket.rcvhwm = _HIGH_WATER
        self._watched = Watched(loop, self.socket, lambda: drain(self._take))

    def close(self) -> None:
        self._watched.close()
        for join in self._joins.values():
            join.timer.cancel()
        self.socket.close()

    def _take(self) -> None:
        frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        # Sending may consume the descriptor's edge for what came meanwhile.
        self._watched.look_soon()
        if len(frames) != 2:
            return
        route, message = frames[0].bytes, frames[1].bytes
        key = bytes.fromhex(str(frames[1].get("User-Id")))
        join = self._joins.get(route)
        if join is None:
            if len(self._joins) >= _RESPONDERS:
                self._refuse(str(frames[1].get("Peer-Address")), "too many joins are under way")
                return
            address = str(frames[1].get("Peer-Address")).removeprefix("::ffff:")
            timer = self._loop.call_later(_LIMIT, self._joins.pop, route, None)
            join = self._joins[route] = _Open(self._respond(key, address), address, timer)
        try:
            step = join.responder.receive(message, self._clock())
            if step.admitted is not None:
                self._admit(step.admitted, join.address)
                self._end(route)
        except JoinRefused as error:
            self._end(route)
            self._refuse(join.address, error.reason)
            self._send(route, refused(error.reason))
            return
        if step.send is not None:
            self._send(route, step.send)

    def _end(self, route: bytes) -> None:
        self._joins.pop(route).timer.cancel()

    def _send(self, route: bytes, message: bytes) -> None:
        try:
            self.socket.send_multipart((route, message), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # It left, or does not read: the initiator's own limit ends the join.
            if error.errno not in {zmq.EAGAIN, zmq.EHOSTUNREACH}:
                raise


class Join:
    """One dial. `admit` enters its outcome, or raises JoinRefused; `done` becomes either."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        join_key: bytes,
        initiator: Initiator,
        clock: Callable[[], float],
        admit: Callable[[Admitted], None],
    ) -> None:
        self._initiator = initiator
        self._clock = clock
        self._admit = admit
        self.done: asyncio.Future[Admitted] = loop.create_future()
        self._socket = curve_client(context, zmq.DEALER, keys, join_key, MESSAGE_BYTES)
        self._socket.sndhwm = _HIGH_WATER
        self._socket.rcvhwm = _HIGH_WATER
        self._monitor = self._socket.get_monitor_socket()
        self._watched = Watched(loop, self._socket, lambda: drain(self._take))
        self._watching = Watched(loop, self._monitor, lambda: drain(self._event))
        self._timer = loop.call_later(_LIMIT, self._fail, "no answer in time")

    def connect(self, host: str, port: int, source: str | None) -> None:
        try:
            self._socket.connect(endpoint(host, port, source))
        except zmq.ZMQError as error:
            self._fail(str(error))

    def look(self) -> None:
        """Take at once what has arrived."""
        self._watched.look()

    def close(self) -> None:
        """May be called again: the relay leaves while a join ends."""
        if self._socket.closed:
            return
        self._timer.cancel()
        self._watched.close()
        self._watching.close()
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        if not self.done.done():
            self.done.cancel()

    def _take(self) -> None:
        message = self._socket.recv(zmq.NOBLOCK)
        self._watched.look_soon()
        if self.done.done():
            return
        try:
            step = self._initiator.receive(message, self._clock())
            if step.admitted is not None:
                self._admit(step.admitted)
                self.done.set_result(step.admitted)
        except JoinRefused as error:
            self._fail(error.reason)
            return
        if step.send is not None:
            self._socket.send(step.send, zmq.NOBLOCK)

    def _event(self) -> None:
        event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._socket.send(self._initiator.hello(), zmq.NOBLOCK)
            self._watched.look_soon()
        elif event in _ENDINGS:
            self._fail(_ENDINGS[event])

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(JoinRefused(reason))
