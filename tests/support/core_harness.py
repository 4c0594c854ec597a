"""One relay's core with recorders for parties: what the tests of requests and casts stand on."""

from __future__ import annotations

from random import Random

from arke.wire.messages import Op, PeerOp
from arke_relay.core.endpoints import Message, Party, Peer, Program
from arke_relay.core.message_core import Exchange
from arke_relay.core.requests import Call
from support.recording_sink import RecordingSink

CALL, PEER_CALL = Op.DELIVER_REQUEST.value, PeerOp.REQUEST.value
REPLY, FAULT = Op.REPLY.value, Op.FAULT.value
REFUSED, FAILED = Op.REFUSED.value, Op.FAILED.value
STOP, DROP_CALL = Op.REQUEST_CANCELLED.value, PeerOp.CANCEL.value


class CoreHarness:
    """A relay `me` whose peers have told what they serve, unless `settled` is False."""

    def __init__(self, *, settled: bool = True, seed: int = 0) -> None:
        self.now = 1000.0
        self.exchange = Exchange("me", Random(seed).random)
        self.router = self.exchange.router
        self.counters = self.exchange.counters
        self.router.settled = settled

    def client(self) -> Program:
        return self.exchange.attach("client", RecordingSink())

    def member(self, cluster: str = "c", room: int | None = None) -> Program:
        program = self.exchange.attach("member", RecordingSink(room))
        self.exchange.register(program, cluster, {}, self.now)
        return program

    def peer(self, node: str, *members: int, cluster: str = "c") -> Peer:
        peer = self.exchange.link(node, RecordingSink(), "10.9.8.7")
        for member in members:
            self.exchange.directory.join(cluster, peer, member, {})
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
        self._request(program, number, cluster, body, timeout, idempotent, program.sender)

    def peer_request(
        self, peer: Peer, number: int, cluster: str = "c", *, timeout: float = 5.0
    ) -> None:
        self._request(peer, number, cluster, b"body", timeout, False, f"{peer.node}/7")

    def _request(
        self,
        origin: Party,
        number: int,
        cluster: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        sender: str,
    ) -> None:
        now = self.now
        headers = None if origin.is_peer else {"h": "v"}
        call = Call(origin, number, cluster, body, now, now + timeout, idempotent, sender, headers)
        self.router.request(call, now)

    def advance_clock(self, seconds: float) -> None:
        self.now += seconds
        self.router.expire(self.now)

    def leftovers(self) -> list[object]:
        """What is in any table though no call is open."""
        parties = [*self.exchange.programs.values(), *self.exchange.peers.values()]
        return [
            *self.router._open.values(),
            *self.router._parked.values(),
            *(call for party in parties for call in party.calls.values()),
            *(party for party in parties if party.held),
            *(
                candidate
                for cluster in self.exchange.directory.clusters.values()
                for candidate in cluster.candidates.values()
                if candidate.outstanding
            ),
        ]


def sink_of(party: Party) -> RecordingSink:
    assert isinstance(party.outlet, RecordingSink)
    return party.outlet


def sent_to(party: Party) -> list[Message]:
    return sink_of(party).take()


def request_id_of(party: Party) -> int:
    """The id of the one call the party was just handed."""
    ((op, call_id, *_),) = sent_to(party)
    assert op == (PEER_CALL if party.is_peer else CALL)
    return int(call_id)
