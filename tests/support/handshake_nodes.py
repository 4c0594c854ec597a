"""Relays for tests of joins, on both sides of the law."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import pytest

from arke_relay.errors import JoinRefused
from arke_relay.peers.certificate import Certificate, Role
from arke_relay.peers.introduction import Introduction
from arke_relay.peers.join_handshake import Admitted, Identity, Initiator, Responder
from arke_relay.peers.join_messages import refused
from arke_relay.peers.keys import CurvePair, NetworkKey
from support.network_keys import network_key

NOW = 1000.0
OLD, NEW, STRANGE = network_key("old"), network_key("new"), network_key("strange")


@dataclass
class HandshakeNode:
    """A relay with keys of its own, which can take either side of a join."""

    address: str
    keys: Sequence[NetworkKey] = (OLD,)
    network: str = "cluster"
    node: str = field(default_factory=lambda: os.urandom(8).hex())
    pair: CurvePair = field(default_factory=lambda: CurvePair.fresh(os.urandom))
    lifetime: int = 3600

    @property
    def identity(self) -> Identity:
        return Identity(self.network, self.node, self.pair.public, self.keys, self.lifetime)

    @property
    def introduction(self) -> Introduction:
        return Introduction(55556, 55557, self.address, "0.1.0", 1 << 24)

    def initiator(self) -> Initiator:
        return Initiator(self.identity, self.introduction, os.urandom, NOW)

    def responder(self, peer: HandshakeNode) -> Responder:
        """The side that answers on a connection which CURVE says is from `peer`."""
        return Responder(
            self.identity,
            self.introduction,
            os.urandom,
            NOW,
            peer_key=peer.pair.public,
        )


def next_message(side: Initiator | Responder, message: bytes, now: float = NOW) -> bytes:
    """What `side` sends when it receives `message`, and nothing is decided yet."""
    step = side.receive(message, now)
    assert step.admitted is None
    assert step.send is not None
    return step.send


def join(a: HandshakeNode, b: HandshakeNode) -> tuple[Admitted, Admitted]:
    """What b admits and what a admits, once a has joined b."""
    initiator, responder = a.initiator(), b.responder(a)
    proof = next_message(initiator, next_message(responder, initiator.hello()))
    step = responder.receive(proof, NOW)
    assert step.send is not None
    assert step.admitted is not None
    last = initiator.receive(step.send, NOW)
    assert last.send is None
    assert last.admitted is not None
    return step.admitted, last.admitted


def refusal_reason(side: Initiator | Responder, message: bytes, now: float = NOW) -> str:
    with pytest.raises(JoinRefused) as refusal_reason:
        side.receive(message, now)
    with pytest.raises(JoinRefused, match="after the end"):  # one life
        side.receive(message, now)
    reason = refusal_reason.value.reason
    assert reason.isprintable()
    assert len(refused(reason)) < 1024
    return reason


def challenge_from(
    relay: HandshakeNode, peer: HandshakeNode, hello: bytes, **changes: Any
) -> bytes:
    """A CHALLENGE that only a holder of the RSA key can make, with one part as he likes."""
    certificate = make_certificate(relay, peer, msgpack.unpackb(hello)[2], Role.RESPONDER)
    return bytes(msgpack.packb([2, 1, bytes(32), replace(certificate, **changes).seal(OLD)]))


def proof_from(
    relay: HandshakeNode,
    peer: HandshakeNode,
    challenge: bytes,
    signer: NetworkKey = OLD,
    **changes: Any,
) -> bytes:
    """A PROOF likewise."""
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
