"""Whole joins between relays, and every way that is known to join without the right."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import msgpack
import pytest

from arke_relay.errors import CertificateError, ConfigurationError
from arke_relay.peers.certificate import Role
from arke_relay.peers.join_handshake import LONGEST_JOIN, Admitted
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
    refusal_reason,
)


@pytest.fixture
def ann() -> HandshakeNode:
    return HandshakeNode("192.168.56.101")


@pytest.fixture
def bob() -> HandshakeNode:
    return HandshakeNode("192.168.56.102", lifetime=60)


@pytest.fixture
def mallory() -> HandshakeNode:
    """Knows the network, its join key and every message, but not its RSA key."""
    return HandshakeNode("192.168.56.66", keys=(STRANGE,))


def test_two_relays_admit_each_other(ann: HandshakeNode, bob: HandshakeNode) -> None:
    of_ann, of_bob = join(ann, bob)
    assert of_ann == Admitted(ann.node, ann.pair.public, 3600, ann.introduction, OLD.fingerprint)
    assert of_bob == Admitted(bob.node, bob.pair.public, 60, bob.introduction, OLD.fingerprint)


@pytest.mark.parametrize("name", ["", "n" * 256, "ß" * 128, "\udcff"])
def test_a_network_needs_a_name_that_certificates_carry(name: str) -> None:
    with pytest.raises(ConfigurationError, match="choose another: -net NAME"):
        _ = HandshakeNode("", network=name).identity
    with pytest.raises(CertificateError, match="bad network"):
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


# Changing the RSA key: first everyone takes both, then everyone signs with the new one.
@pytest.mark.parametrize("a", [(OLD, NEW), (NEW, OLD)])
@pytest.mark.parametrize("b", [(OLD, NEW), (NEW, OLD)])
def test_both_keys_admit_while_the_network_changes_its_key(
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
def test_a_relay_at_either_end_of_the_change_joins_those_that_sign_alike(
    one: NetworkKey,
    ann: HandshakeNode,
    bob: HandshakeNode,
) -> None:
    ann.keys, bob.keys = (one,), (one, OLD if one is NEW else NEW)
    join(ann, bob)
    join(bob, ann)


def test_a_relay_without_the_new_key_does_not_admit_it(
    ann: HandshakeNode, bob: HandshakeNode
) -> None:
    ann.keys, bob.keys = (OLD,), (NEW, OLD)
    initiator = ann.initiator()
    challenge = next_message(bob.responder(ann), initiator.hello())
    assert "none of this relay's RSA keys" in refusal_reason(initiator, challenge)


def test_the_join_key_alone_does_not_make_an_initiator(
    bob: HandshakeNode, mallory: HandshakeNode
) -> None:
    responder, initiator = bob.responder(mallory), mallory.initiator()
    challenge = next_message(responder, initiator.hello())
    assert "none of this relay's RSA keys" in refusal_reason(initiator, challenge)
    proof = proof_from(mallory, bob, challenge, signer=STRANGE)
    assert "none of this relay's RSA keys" in refusal_reason(responder, proof)


def test_the_join_key_alone_does_not_make_a_responder(
    ann: HandshakeNode, mallory: HandshakeNode
) -> None:
    initiator = ann.initiator()
    challenge = next_message(mallory.responder(ann), initiator.hello())
    assert "none of this relay's RSA keys" in refusal_reason(initiator, challenge)


def test_a_man_between_cannot_pass_on_the_responders_certificate(
    ann: HandshakeNode,
    bob: HandshakeNode,
    mallory: HandshakeNode,
) -> None:
    initiator = ann.initiator()
    challenge = next_message(bob.responder(mallory), initiator.hello())
    assert "made for another relay" in refusal_reason(initiator, challenge)


def test_a_man_between_cannot_pass_on_the_initiators_certificate(
    ann: HandshakeNode,
    bob: HandshakeNode,
    mallory: HandshakeNode,
) -> None:
    initiator, honest, deceived = ann.initiator(), bob.responder(ann), bob.responder(mallory)
    challenge = msgpack.unpackb(next_message(honest, initiator.hello()))
    challenge[2] = msgpack.unpackb(next_message(deceived, mallory.initiator().hello()))[2]
    proof = next_message(
        initiator, msgpack.packb(challenge)
    )  # made for the nonce of the other connection
    assert "another relay's key" in refusal_reason(deceived, proof)


def test_a_certificate_for_one_relay_is_none_for_another(
    ann: HandshakeNode,
    bob: HandshakeNode,
    mallory: HandshakeNode,
) -> None:
    """Even an insider cannot use one relay's proof at another."""
    carol = HandshakeNode("192.168.56.103")
    initiator, at_carol = ann.initiator(), carol.responder(ann)
    nonce = msgpack.unpackb(next_message(at_carol, initiator.hello()))[2]
    challenge = msgpack.unpackb(next_message(bob.responder(ann), initiator.hello()))
    challenge[2] = nonce
    proof = next_message(initiator, msgpack.packb(challenge))
    assert "made for another relay" in refusal_reason(at_carol, proof)


def test_a_replayed_proof_meets_another_nonce(ann: HandshakeNode, bob: HandshakeNode) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    hello = initiator.hello()
    proof = next_message(initiator, next_message(responder, hello))
    assert responder.receive(proof, NOW).admitted is not None
    assert "after the end" in refusal_reason(responder, proof)
    again = bob.responder(ann)
    next_message(again, hello)
    assert "made for another join" in refusal_reason(again, proof)


def test_a_replayed_challenge_meets_another_nonce(ann: HandshakeNode, bob: HandshakeNode) -> None:
    challenge = next_message(bob.responder(ann), ann.initiator().hello())
    assert "made for another join" in refusal_reason(ann.initiator(), challenge)


def test_one_hello_one_challenge(ann: HandshakeNode, bob: HandshakeNode) -> None:
    responder, hello = bob.responder(ann), ann.initiator().hello()
    next_message(responder, hello)
    assert "instead of PROOF" in refusal_reason(responder, hello)


def test_a_failed_proof_spends_the_nonce(ann: HandshakeNode, bob: HandshakeNode) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    proof = next_message(initiator, next_message(responder, initiator.hello()))
    refusal_reason(responder, proof[:-1])
    assert "after the end" in refusal_reason(responder, proof)


def test_a_message_sent_back_to_its_sender_is_refused(
    ann: HandshakeNode, bob: HandshakeNode
) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    assert "instead of CHALLENGE" in refusal_reason(initiator, initiator.hello())
    challenge = next_message(responder, ann.initiator().hello())
    assert "instead of PROOF" in refusal_reason(responder, challenge)


def test_a_challenge_is_no_proof(ann: HandshakeNode, bob: HandshakeNode) -> None:
    """Two joins crossed: the certificate that one side made, given back to it as proof."""
    responder = bob.responder(ann)
    nonce = msgpack.unpackb(next_message(responder, ann.initiator().hello()))[2]
    crossed = next_message(ann.responder(bob), msgpack.packb([1, 1, nonce]))
    proof = msgpack.packb([3, msgpack.unpackb(crossed)[3], [1, 1, "", ""]])
    assert "wrong role" in refusal_reason(responder, proof)


def test_another_network_of_the_same_key_is_another(ann: HandshakeNode, bob: HandshakeNode) -> None:
    bob.network = "cluster2"
    initiator = ann.initiator()
    challenge = next_message(bob.responder(ann), initiator.hello())
    assert "another network" in refusal_reason(initiator, challenge)


def test_a_relay_that_reaches_itself_knows(ann: HandshakeNode) -> None:
    assert refusal_reason(ann.responder(ann), ann.initiator().hello()) == "this is me"


ANN = HandshakeNode("192.168.56.101")
WRONG = [
    ({"network": "cluster2"}, "a certificate of another network"),
    ({"audience": bytes(32)}, "a certificate made for another relay"),
    ({"nonce": bytes(32)}, "a certificate made for another join"),
    ({"node": ANN.node}, "this is me"),
    ({"curve_key": ANN.pair.public}, "this is me"),
]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [*WRONG, ({"role": Role.INITIATOR}, "a certificate of the wrong role")],
)
def test_an_initiator_looks_at_every_part(
    changes: dict[str, Any], reason: str, bob: HandshakeNode
) -> None:
    initiator = ANN.initiator()
    good = challenge_from(bob, ANN, initiator.hello())
    assert msgpack.unpackb(next_message(initiator, good))[0] == 3
    initiator = ANN.initiator()
    assert (
        refusal_reason(initiator, challenge_from(bob, ANN, initiator.hello(), **changes)) == reason
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *WRONG,
        ({"role": Role.RESPONDER}, "a certificate of the wrong role"),
        ({"curve_key": bytes(32)}, "a certificate of another relay's key"),
    ],
)
def test_a_responder_looks_at_every_part(
    changes: dict[str, Any], reason: str, bob: HandshakeNode
) -> None:
    responder = ANN.responder(bob)
    good = proof_from(bob, ANN, next_message(responder, bob.initiator().hello()))
    assert responder.receive(good, NOW).admitted is not None
    responder = ANN.responder(bob)
    challenge = next_message(responder, bob.initiator().hello())
    assert refusal_reason(responder, proof_from(bob, ANN, challenge, **changes)) == reason


@pytest.mark.parametrize("lifetime", [0, -1, 86_401, 10**9])
def test_no_lifetime_beyond_a_day_is_taken(
    lifetime: int, ann: HandshakeNode, bob: HandshakeNode
) -> None:
    responder = bob.responder(ann)
    challenge = next_message(responder, ann.initiator().hello())
    good = make_certificate(ann, bob, msgpack.unpackb(challenge)[2], Role.INITIATOR)
    encoded = msgpack.packb([*astuple(good)[:-1], lifetime])
    sealed = msgpack.packb([encoded, OLD.sign(b"arke 1 node certificate\0" + encoded)])
    proof = msgpack.packb([3, sealed, [55556, 55557, "", "", 1]])
    assert refusal_reason(responder, proof) == "a certificate with a bad lifetime"


@pytest.mark.parametrize("late", [LONGEST_JOIN + 0.001, 86_400.0, -1.0, float("nan")])
def test_a_join_has_an_end(late: float, ann: HandshakeNode, bob: HandshakeNode) -> None:
    responder = bob.responder(ann)
    assert "took over 10 seconds" in refusal_reason(responder, ann.initiator().hello(), NOW + late)
    initiator, responder = ann.initiator(), bob.responder(ann)
    challenge = next_message(responder, initiator.hello(), NOW + LONGEST_JOIN)
    proof = next_message(initiator, challenge, NOW + LONGEST_JOIN)
    assert "took over 10 seconds" in refusal_reason(responder, proof, NOW + late)
