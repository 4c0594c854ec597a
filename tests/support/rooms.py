"""One relay core with recorders for endpoints: the fixture of the request and broadcast tests."""

from __future__ import annotations

from random import Random

from arke.wire.messages import Op, PeerOp
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program
from arke_relay.core.message_core import MessageCore
from arke_relay.core.routed_request import RoutedRequest
from support.sinks import Recorder

CALL, PEER_CALL = Op.DELIVER_REQUEST.value, PeerOp.REQUEST.value
REPLY, FAULT = Op.REPLY.value, Op.FAULT.value
REFUSED, FAILED = Op.REFUSED.value, Op.FAILED.value
STOP, DROP_CALL = Op.REQUEST_CANCELLED.value, PeerOp.CANCEL.value


class Room:
    """A relay `me` whose peers have told what they serve, unless `settled` is False."""

    def __init__(self, *, settled: bool = True, seed: int = 0) -> None:
        self.now = 1000.0
        self.core = MessageCore("me", Random(seed).random)
        self.router = self.core.router
        self.counters = self.core.counters
        self.router.settled = settled

    def client(self) -> Program:
        return self.core.attach("client", Recorder())

    def member(self, cluster: str = "c", room: int | None = None) -> Program:
        program = self.core.attach("member", Recorder(room))
        self.core.register(program, cluster, {}, self.now)
        return program

    def peer(self, node: str, *members: int, cluster: str = "c") -> Peer:
        peer = self.core.link(node, Recorder(), "10.9.8.7")
        for member in members:
            self.core.directory.join(cluster, peer, member, {})
        self.router.arrived(cluster, self.now)
        return peer

    def request(
        self,
        program: Program,
        number: int,
        cluster: str = "c",
        *,
        body: bytes = b"body",
        timeout: float = 5.0,
        idempotent: bool = False,
    ) -> None:
        self._ask(program, number, cluster, body, timeout, idempotent, program.sender)

    def peer_call(
        self, peer: Peer, number: int, cluster: str = "c", *, timeout: float = 5.0
    ) -> None:
        self._ask(peer, number, cluster, b"body", timeout, False, f"{peer.node}/7")

    def _ask(
        self,
        origin: Endpoint,
        number: int,
        cluster: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        sender: str,
    ) -> None:
        now = self.now
        headers = None if origin.is_peer else {"h": "v"}
        call = RoutedRequest(
            origin, number, cluster, body, now, now + timeout, idempotent, sender, headers
        )
        self.router.request(call, now)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.router.expire(self.now)

    def left_over(self) -> list[object]:
        """What is in any table though no call is open."""
        endpoints = [*self.core.programs.values(), *self.core.peers.values()]
        return [
            *self.router._assigned.values(),
            *self.router._waiting.values(),
            *(call for endpoint in endpoints for call in endpoint.requests.values()),
            *(endpoint for endpoint in endpoints if endpoint.held_bytes),
            *(
                candidate
                for cluster in self.core.directory.clusters.values()
                for candidate in cluster.candidates.values()
                if candidate.outstanding
            ),
        ]


def recorder(endpoint: Endpoint) -> Recorder:
    assert isinstance(endpoint.sink, Recorder)
    return endpoint.sink


def taken(endpoint: Endpoint) -> list[Message]:
    return recorder(endpoint).take()


def call_of(endpoint: Endpoint) -> int:
    """The id of the one call the endpoint was just handed."""
    ((op, request_id, *_),) = taken(endpoint)
    assert op == (PEER_CALL if endpoint.is_peer else CALL)
    return int(request_id)
