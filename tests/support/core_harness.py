"""One relay core with recorders for endpoints: the fixture of the request and broadcast tests."""

from __future__ import annotations

from random import Random

from arke.wire.messages import Op, PeerOp
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program
from arke_relay.core.message_core import MessageCore
from arke_relay.core.routed_request import RoutedRequest
from support.recording_sink import RecordingSink

DELIVER_REQUEST, PEER_REQUEST = Op.DELIVER_REQUEST.value, PeerOp.REQUEST.value
REPLY, FAULT = Op.REPLY.value, Op.FAULT.value
REFUSED, FAILED = Op.REFUSED.value, Op.FAILED.value
REQUEST_CANCELLED, PEER_CANCEL = Op.REQUEST_CANCELLED.value, PeerOp.CANCEL.value


class CoreHarness:
    """A relay `me`. Its directory is complete, unless `settled` is False."""

    def __init__(self, *, settled: bool = True, seed: int = 0) -> None:
        self.now = 1000.0
        self.core = MessageCore("me", Random(seed).random)
        self.router = self.core.router
        self.counters = self.core.counters
        self.router.settled = settled

    def caller(self) -> Program:
        return self.core.programs.attach("caller", RecordingSink())

    def member(self, cluster: str = "c", room: int | None = None) -> Program:
        program = self.core.programs.attach("member", RecordingSink(room))
        self.core.programs.register(program, cluster, {}, self.now)
        return program

    def peer(self, node: str, *members: int, cluster: str = "c") -> Peer:
        peer = self.core.peers.link(node, RecordingSink(), "10.9.8.7")
        for member in members:
            self.core.directory.join(cluster, peer, member, {})
        self.router.member_joined(cluster, self.now)
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
        self._request(program, number, cluster, body, timeout, idempotent, program.sender)

    def peer_request(
        self, peer: Peer, number: int, cluster: str = "c", *, timeout: float = 5.0
    ) -> None:
        self._request(peer, number, cluster, b"body", timeout, False, f"{peer.node}/7")

    def _request(
        self,
        origin: Endpoint,
        number: int,
        cluster: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        sender: str,
    ) -> None:
        headers = None if origin.is_peer else {"h": "v"}
        deadline = self.now + timeout
        request = RoutedRequest(origin, number, cluster, body, deadline, sender, headers)
        request.idempotent = idempotent
        self.router.request(request, self.now)

    def advance_clock(self, seconds: float) -> None:
        self.now += seconds
        self.router.expire(self.now)

    def leftovers(self) -> list[object]:
        """Return the entries of all tables. An entry without an open request is a leak."""
        endpoints = [*self.core.programs.by_number.values(), *self.core.peers.by_node.values()]
        return [
            *self.router._assigned.values(),
            *self.router._waiting.values(),
            *(request for endpoint in endpoints for request in endpoint.requests.values()),
            *(endpoint for endpoint in endpoints if endpoint.held_bytes),
            *(
                candidate
                for cluster in self.core.directory.clusters.values()
                for candidate in cluster.candidates.values()
                if candidate.outstanding
            ),
        ]


def sink_of(endpoint: Endpoint) -> RecordingSink:
    assert isinstance(endpoint.sink, RecordingSink)
    return endpoint.sink


def sent_to(endpoint: Endpoint) -> list[Message]:
    return sink_of(endpoint).take()


def request_id_of(endpoint: Endpoint) -> int:
    """The id of the one request that was just sent to the endpoint."""
    ((op, request_id, *_),) = sent_to(endpoint)
    assert op == (PEER_REQUEST if endpoint.is_peer else DELIVER_REQUEST)
    return int(request_id)
