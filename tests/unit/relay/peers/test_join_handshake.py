"""Whole joins between relays, and every known attack on them."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import msgpack
import pytest

from arke_relay.errors import CertificateError, ConfigurationError, RefusalCode
from arke_relay.peers.certificate import Role
from arke_relay.peers.join_handshake import MAX_JOIN_SECONDS, AdmittedPeer
from arke_relay.peers.keys import NetworkKey
from support.handshake_nodes import (
    NEW,
    NOW,
    OLD,
    STRANGE,
    HandshakeNode,
    challenge_from,
    join,
    make_certificate,
    next_message,
    proof_from,
    refusal_code,
    refusal_of,
)


@pytest.fixture
def mallory() -> HandshakeNode:
    """An attacker who knows the network, its join key and every message, but not its RSA key."""
    return HandshakeNode("192.168.56.66", keys=(STRANGE,))


def test_two_relays_admit_each_other(ann: HandshakeNode, bob: HandshakeNode) -> None:
    of_ann, of_bob = join(ann, bob)
    assert of_ann == AdmittedPeer(ann.node, ann.pair.public, 3600, ann.info, OLD.fingerprint)
    assert of_bob == AdmittedPeer(bob.node, bob.pair.public, 60, bob.info, OLD.fingerprint)


@pytest.mark.parametrize("name", ["", "n" * 256, "ß" * 128, "\udcff"])
def test_invalid_network_name_is_rejected(name: str) -> None:
    with pytest.raises(ConfigurationError, match="-net must be 1 to 255 bytes"):
        _ = HandshakeNode("", network=name).identity
    with pytest.raises(CertificateError, match="invalid network"):
        make_certificate(
            HandshakeNode("", network=name), HandshakeNode(""), bytes(32), Role.INITIATOR
        )


def test_messages_fit_the_join_socket(ann: HandshakeNode, bob: HandshakeNode) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    hello = initiator.hello()
    challenge = next_message(responder, hello)
    proof = next_message(initiator, challenge)
    welcome = responder.receive(proof, NOW).send
    assert welcome is not None
    assert [msgpack.unpackb(m)[0] for m in (hello, challenge, proof, welcome)] == [1, 2, 3, 4]
    assert max(map(len, (hello, challenge, proof, welcome))) < 8 * 1024


# Key rotation: first every relay accepts both keys, then every relay signs with the new one.
@pytest.mark.parametrize("a", [(OLD, NEW), (NEW, OLD)])
@pytest.mark.parametrize("b", [(OLD, NEW), (NEW, OLD)])
def test_both_keys_admit_during_key_rotation(
    a: tuple[NetworkKey, ...],
    b: tuple[NetworkKey, ...],
    ann: HandshakeNode,
    bob: HandshakeNode,
) -> None:
    ann.keys, bob.keys = a, b
    of_ann, of_bob = join(ann, bob)
    assert of_ann.signed_by == a[0].fingerprint
    assert of_bob.signed_by == b[0].fingerprint


@pytest.mark.parametrize("one", [OLD, NEW])
def test_relay_with_one_key_joins_relays_that_sign_with_it(
    one: NetworkKey,
    ann: HandshakeNode,
    bob: HandshakeNode,
) -> None:
    ann.keys, bob.keys = (one,), (one, OLD if one is NEW else NEW)
    join(ann, bob)
    join(bob, ann)


def test_relay_without_the_new_key_refuses_it(ann: HandshakeNode, bob: HandshakeNode) -> None:
    ann.keys, bob.keys = (OLD,), (NEW, OLD)
    initiator = ann.initiator()
    challenge = next_message(bob.responder(ann), initiator.hello())
    assert refusal_code(initiator, challenge) is RefusalCode.UNTRUSTED_KEY


def test_initiator_with_only_the_join_key_is_refused(
    bob: HandshakeNode, mallory: HandshakeNode
) -> None:
    responder, initiator = bob.responder(mallory), mallory.initiator()
    challenge = next_message(responder, initiator.hello())
    assert refusal_code(initiator, challenge) is RefusalCode.UNTRUSTED_KEY
    proof = proof_from(mallory, bob, challenge, signer=STRANGE)
    assert refusal_code(responder, proof) is RefusalCode.UNTRUSTED_KEY


def test_responder_with_only_the_join_key_is_refused(
    ann: HandshakeNode, mallory: HandshakeNode
) -> None:
    initiator = ann.initiator()
    challenge = next_message(mallory.responder(ann), initiator.hello())
    assert refusal_code(initiator, challenge) is RefusalCode.UNTRUSTED_KEY


def test_man_in_the_middle_cannot_relay_the_responders_certificate(
    ann: HandshakeNode,
    bob: HandshakeNode,
    mallory: HandshakeNode,
) -> None:
    initiator = ann.initiator()
    challenge = next_message(bob.responder(mallory), initiator.hello())
    assert refusal_code(initiator, challenge) is RefusalCode.WRONG_VERIFIER


def test_man_in_the_middle_cannot_relay_the_initiators_certificate(
    ann: HandshakeNode,
    bob: HandshakeNode,
    mallory: HandshakeNode,
) -> None:
    initiator, honest, deceived = ann.initiator(), bob.responder(ann), bob.responder(mallory)
    challenge = msgpack.unpackb(next_message(honest, initiator.hello()))
    challenge[2] = msgpack.unpackb(next_message(deceived, mallory.initiator().hello()))[2]
    proof = next_message(
        initiator, msgpack.packb(challenge)
    )  # made for the other connection's nonce
    assert refusal_code(deceived, proof) is RefusalCode.WRONG_CURVE_KEY


def test_certificate_is_refused_by_other_relays(
    ann: HandshakeNode,
    bob: HandshakeNode,
    mallory: HandshakeNode,
) -> None:
    """A member of the network cannot use one relay's proof with another relay."""
    carol = HandshakeNode("192.168.56.103")
    initiator, at_carol = ann.initiator(), carol.responder(ann)
    nonce = msgpack.unpackb(next_message(at_carol, initiator.hello()))[2]
    challenge = msgpack.unpackb(next_message(bob.responder(ann), initiator.hello()))
    challenge[2] = nonce
    proof = next_message(initiator, msgpack.packb(challenge))
    assert refusal_code(at_carol, proof) is RefusalCode.WRONG_VERIFIER


def test_replayed_proof_is_refused(ann: HandshakeNode, bob: HandshakeNode) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    hello = initiator.hello()
    proof = next_message(initiator, next_message(responder, hello))
    assert responder.receive(proof, NOW).admitted is not None
    assert refusal_code(responder, proof) is RefusalCode.UNEXPECTED_MESSAGE
    again = bob.responder(ann)
    next_message(again, hello)
    assert refusal_code(again, proof) is RefusalCode.WRONG_NONCE


def test_replayed_challenge_is_refused(ann: HandshakeNode, bob: HandshakeNode) -> None:
    challenge = next_message(bob.responder(ann), ann.initiator().hello())
    assert refusal_code(ann.initiator(), challenge) is RefusalCode.WRONG_NONCE


def test_second_hello_is_refused(ann: HandshakeNode, bob: HandshakeNode) -> None:
    responder, hello = bob.responder(ann), ann.initiator().hello()
    next_message(responder, hello)
    assert refusal_code(responder, hello) is RefusalCode.UNEXPECTED_MESSAGE


def test_no_second_proof_after_a_failed_one(ann: HandshakeNode, bob: HandshakeNode) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    proof = next_message(initiator, next_message(responder, initiator.hello()))
    refusal_code(responder, proof[:-1])
    assert refusal_code(responder, proof) is RefusalCode.UNEXPECTED_MESSAGE


def test_reflected_message_is_refused(ann: HandshakeNode, bob: HandshakeNode) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    assert refusal_code(initiator, initiator.hello()) is RefusalCode.UNEXPECTED_MESSAGE
    challenge = next_message(responder, ann.initiator().hello())
    assert refusal_code(responder, challenge) is RefusalCode.UNEXPECTED_MESSAGE


def test_responders_certificate_is_refused_as_proof(ann: HandshakeNode, bob: HandshakeNode) -> None:
    """Two joins in opposite directions: a relay gets its own certificate back as a proof."""
    responder = bob.responder(ann)
    nonce = msgpack.unpackb(next_message(responder, ann.initiator().hello()))[2]
    crossed = next_message(ann.responder(bob), msgpack.packb([1, 1, nonce]))
    proof = msgpack.packb([3, msgpack.unpackb(crossed)[3], [1, 1, "", ""]])
    assert refusal_code(responder, proof) is RefusalCode.WRONG_ROLE


def test_other_network_with_the_same_key_is_refused(ann: HandshakeNode, bob: HandshakeNode) -> None:
    bob.network = "cluster2"
    initiator = ann.initiator()
    challenge = next_message(bob.responder(ann), initiator.hello())
    assert refusal_code(initiator, challenge) is RefusalCode.WRONG_NETWORK


def test_relay_detects_that_it_is_connected_to_itself(ann: HandshakeNode) -> None:
    refused = refusal_code(ann.responder(ann), ann.initiator().hello())
    assert refused is RefusalCode.CONNECTED_TO_SELF


ANN = HandshakeNode("192.168.56.101")
WRONG = [
    ({"network": "cluster2"}, RefusalCode.WRONG_NETWORK),
    ({"audience": bytes(32)}, RefusalCode.WRONG_VERIFIER),
    ({"nonce": bytes(32)}, RefusalCode.WRONG_NONCE),
    ({"node": ANN.node}, RefusalCode.CONNECTED_TO_SELF),
    ({"curve_key": ANN.pair.public}, RefusalCode.CONNECTED_TO_SELF),
]


@pytest.mark.parametrize(
    ("changes", "code"),
    [*WRONG, ({"role": Role.INITIATOR}, RefusalCode.WRONG_ROLE)],
)
def test_initiator_checks_every_field_of_the_certificate(
    changes: dict[str, Any], code: RefusalCode, bob: HandshakeNode
) -> None:
    initiator = ANN.initiator()
    good = challenge_from(bob, ANN, initiator.hello())
    assert msgpack.unpackb(next_message(initiator, good))[0] == 3
    initiator = ANN.initiator()
    assert refusal_code(initiator, challenge_from(bob, ANN, initiator.hello(), **changes)) is code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        *WRONG,
        ({"role": Role.RESPONDER}, RefusalCode.WRONG_ROLE),
        ({"curve_key": bytes(32)}, RefusalCode.WRONG_CURVE_KEY),
    ],
)
def test_responder_checks_every_field_of_the_certificate(
    changes: dict[str, Any], code: RefusalCode, bob: HandshakeNode
) -> None:
    responder = ANN.responder(bob)
    good = proof_from(bob, ANN, next_message(responder, bob.initiator().hello()))
    assert responder.receive(good, NOW).admitted is not None
    responder = ANN.responder(bob)
    challenge = next_message(responder, bob.initiator().hello())
    assert refusal_code(responder, proof_from(bob, ANN, challenge, **changes)) is code


@pytest.mark.parametrize("lifetime", [0, -1, 86_401, 10**9])
def test_lifetime_beyond_a_day_is_refused(
    lifetime: int, ann: HandshakeNode, bob: HandshakeNode
) -> None:
    responder = bob.responder(ann)
    challenge = next_message(responder, ann.initiator().hello())
    good = make_certificate(ann, bob, msgpack.unpackb(challenge)[2], Role.INITIATOR)
    encoded = msgpack.packb([*astuple(good)[:-1], lifetime])
    sealed = msgpack.packb([encoded, OLD.sign(b"arke 1 node certificate\0" + encoded)])
    proof = msgpack.packb([3, sealed, [55556, 55557, "", "", 1]])
    refused = refusal_of(responder, proof)
    assert refused.code is RefusalCode.MALFORMED_CERTIFICATE
    assert "invalid lifetime" in refused.text


@pytest.mark.parametrize("late", [MAX_JOIN_SECONDS + 0.001, 86_400.0, -1.0, float("nan")])
def test_join_times_out(late: float, ann: HandshakeNode, bob: HandshakeNode) -> None:
    responder = bob.responder(ann)
    assert (
        refusal_code(responder, ann.initiator().hello(), NOW + late) is RefusalCode.JOIN_TIMED_OUT
    )
    initiator, responder = ann.initiator(), bob.responder(ann)
    challenge = next_message(responder, initiator.hello(), NOW + MAX_JOIN_SECONDS)
    proof = next_message(initiator, challenge, NOW + MAX_JOIN_SECONDS)
    assert refusal_code(responder, proof, NOW + late) is RefusalCode.JOIN_TIMED_OUT
