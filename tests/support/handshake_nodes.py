"""Relays for tests of joins, honest and hostile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import pytest

from arke_relay.errors import JoinRefused, RefusalCode
from arke_relay.peers.certificate import Certificate, Role
from arke_relay.peers.join_handshake import AdmittedPeer, Initiator, NodeIdentity, Responder
from arke_relay.peers.join_messages import pack_refusal
from arke_relay.peers.keys import CurvePair, NetworkKey
from arke_relay.peers.node_info import NodeInfo
from support.network_keys import network_key

NOW = 1000.0
OLD, NEW, STRANGE = network_key("old"), network_key("new"), network_key("strange")


@dataclass
class HandshakeNode:
    """A relay with its own keys, for either side of a join."""

    address: str
    keys: Sequence[NetworkKey] = (OLD,)
    network: str = "cluster"
    node: str = field(default_factory=lambda: os.urandom(8).hex())
    pair: CurvePair = field(default_factory=lambda: CurvePair.fresh(os.urandom))
    lifetime: int = 3600

    @property
    def identity(self) -> NodeIdentity:
        return NodeIdentity(self.network, self.node, self.pair.public, self.keys, self.lifetime)

    @property
    def info(self) -> NodeInfo:
        return NodeInfo(55556, 55557, self.address, "0.1.0", 1 << 24)

    def initiator(self) -> Initiator:
        return Initiator(self.identity, self.info, os.urandom, NOW)

    def responder(self, peer: HandshakeNode) -> Responder:
        """Return the responder for a connection that CURVE verified to be from `peer`."""
        return Responder(
            self.identity,
            self.info,
            os.urandom,
            NOW,
            peer_key=peer.pair.public,
        )


def next_message(side: Initiator | Responder, message: bytes, now: float = NOW) -> bytes:
    """Return what `side` sends in reply to `message`; nothing is decided yet."""
    step = side.receive(message, now)
    assert step.admitted is None
    assert step.send is not None
    return step.send


def join(a: HandshakeNode, b: HandshakeNode) -> tuple[AdmittedPeer, AdmittedPeer]:
    """Let `a` join `b`. Return what `b` admits and what `a` admits."""
    initiator, responder = a.initiator(), b.responder(a)
    proof = next_message(initiator, next_message(responder, initiator.hello()))
    step = responder.receive(proof, NOW)
    assert step.send is not None
    assert step.admitted is not None
    last = initiator.receive(step.send, NOW)
    assert last.send is None
    assert last.admitted is not None
    return step.admitted, last.admitted


def refusal_of(side: Initiator | Responder, message: bytes, now: float = NOW) -> JoinRefused:
    """Return how `side` refuses `message`. It must not accept any message afterwards."""
    with pytest.raises(JoinRefused) as caught:
        side.receive(message, now)
    with pytest.raises(JoinRefused, match="after the end") as again:
        side.receive(message, now)
    assert again.value.code is RefusalCode.UNEXPECTED_MESSAGE
    assert not again.value.by_peer
    assert caught.value.text.isprintable()
    assert len(pack_refusal(caught.value)) < 1024
    return caught.value


def refusal_code(side: Initiator | Responder, message: bytes, now: float = NOW) -> RefusalCode:
    """Return the code with which `side` itself refuses `message`."""
    refusal = refusal_of(side, message, now)
    assert not refusal.by_peer
    return refusal.code


def challenge_from(
    relay: HandshakeNode, peer: HandshakeNode, hello: bytes, **changes: Any
) -> bytes:
    """Return a signed CHALLENGE, with some fields of the certificate changed."""
    certificate = make_certificate(relay, peer, msgpack.unpackb(hello)[2], Role.RESPONDER)
    return bytes(msgpack.packb([2, 1, bytes(32), replace(certificate, **changes).seal(OLD)]))


def proof_from(
    relay: HandshakeNode,
    peer: HandshakeNode,
    challenge: bytes,
    signer: NetworkKey = OLD,
    **changes: Any,
) -> bytes:
    """Return a signed PROOF, with some fields of the certificate changed."""
    certificate = make_certificate(relay, peer, msgpack.unpackb(challenge)[2], Role.INITIATOR)
    sealed = replace(certificate, **changes).seal(signer)
    return bytes(msgpack.packb([3, sealed, [55556, 55557, "", "", 1]]))


def make_certificate(
    relay: HandshakeNode, peer: HandshakeNode, nonce: bytes, role: Role
) -> Certificate:
    return Certificate(
        network=relay.network,
        node=relay.node,
        curve_key=relay.pair.public,
        audience=peer.pair.public,
        nonce=nonce,
        role=role,
        lifetime=relay.lifetime,
    )
