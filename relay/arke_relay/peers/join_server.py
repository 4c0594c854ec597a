"""Join server: answers incoming joins on the join socket, each within a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zmq

from arke_relay.errors import JoinRefused, RefusalCode
from arke_relay.peers.join_handshake import AdmittedPeer, Responder
from arke_relay.peers.join_messages import MAX_MESSAGE_BYTES, pack_refusal
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zmq_sockets import JOIN_DOMAIN, SocketWatcher, curve_server, drain

JOIN_TIMEOUT = 5.0
"""Seconds after which either side gives up. The handshake limits the age of a proof itself."""

JOIN_HIGH_WATER = 16
"""Frames that libzmq queues for a join connection."""

_MAX_INCOMING = 256


class IncomingJoinHandler(Protocol):
    """Decides about incoming joins."""

    def respond(self, peer_key: bytes, address: str) -> Responder:
        """Return the responder for a new join. `peer_key` is the initiator's CURVE key."""

    def admit_incoming(self, peer: AdmittedPeer, address: str) -> None:
        """Admit the peer after its join. Raises JoinRefused."""

    def incoming_refused(self, address: str, refusal: JoinRefused) -> None:
        """An incoming join failed."""


@dataclass(slots=True)
class _IncomingJoin:
    responder: Responder
    address: str
    timer: asyncio.TimerHandle


class JoinServer:
    """Runs one Responder for each connection to the join socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        clock: Callable[[], float],
        handler: IncomingJoinHandler,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._handler = handler
        self._joins: dict[bytes, _IncomingJoin] = {}
        self.socket = curve_server(context, zmq.ROUTER, keys, JOIN_DOMAIN, MAX_MESSAGE_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.sndhwm = JOIN_HIGH_WATER
        self.socket.rcvhwm = JOIN_HIGH_WATER
        self._watcher = SocketWatcher(loop, self.socket, lambda: drain(self._receive))

    def close(self) -> None:
        self._watcher.close()
        for join in self._joins.values():
            join.timer.cancel()
        self.socket.close()

    def _receive(self) -> None:
        frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        # The reply sent below may consume the descriptor's signal for new messages: check again.
        self._watcher.check_soon()
        if len(frames) != 2:
            return
        route, message = frames[0].bytes, frames[1].bytes
        join = self._joins.get(route)
        if join is None:
            address = str(frames[1].get("Peer-Address")).removeprefix("::ffff:")
            if len(self._joins) >= _MAX_INCOMING:
                refusal = JoinRefused(
                    RefusalCode.TOO_MANY_JOINS, "too many joins are in progress; retry later"
                )
                self._handler.incoming_refused(address, refusal)
                return
            key = bytes.fromhex(str(frames[1].get("User-Id")))
            timer = self._loop.call_later(JOIN_TIMEOUT, self._joins.pop, route, None)
            responder = self._handler.respond(key, address)
            join = self._joins[route] = _IncomingJoin(responder, address, timer)
        try:
            step = join.responder.receive(message, self._clock())
            if step.admitted is not None:
                self._handler.admit_incoming(step.admitted, join.address)
                self._finish(route)
        except JoinRefused as refusal:
            self._finish(route)
            self._handler.incoming_refused(join.address, refusal)
            self._send(route, pack_refusal(refusal))
            return
        if step.send is not None:
            self._send(route, step.send)

    def _finish(self, route: bytes) -> None:
        self._joins.pop(route).timer.cancel()

    def _send(self, route: bytes, message: bytes) -> None:
        try:
            self.socket.send_multipart((route, message), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # The initiator disconnected or does not read: its own timeout ends the join.
            if error.errno not in {zmq.EAGAIN, zmq.EHOSTUNREACH}:
                raise
