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
from support.joining import (
    NEW,
    NOW,
    OLD,
    STRANGE,
    Relay,
    certified,
    challenge_of,
    first,
    join,
    proof_of,
    refusal,
)


@pytest.fixture
def ann() -> Relay:
    return Relay("192.168.56.101")


@pytest.fixture
def bob() -> Relay:
    return Relay("192.168.56.102", lifetime=60)


@pytest.fixture
def mallory() -> Relay:
    """Knows the network, its join key and every message, but not its RSA key."""
    return Relay("192.168.56.66", keys=(STRANGE,))


def test_two_relays_admit_each_other(ann: Relay, bob: Relay) -> None:
    of_ann, of_bob = join(ann, bob)
    assert of_ann == Admitted(ann.node, ann.pair.public, 3600, ann.introduction, OLD.fingerprint)
    assert of_bob == Admitted(bob.node, bob.pair.public, 60, bob.introduction, OLD.fingerprint)


@pytest.mark.parametrize("name", ["", "n" * 256, "ß" * 128, "\udcff"])
def test_a_network_needs_a_name_that_certificates_carry(name: str) -> None:
    with pytest.raises(ConfigurationError, match="choose another: -net NAME"):
        _ = Relay("", network=name).identity
    with pytest.raises(CertificateError, match="bad network"):
        certified(Relay("", network=name), Relay(""), bytes(32), Role.INITIATOR)


def test_messages_fit_the_join_socket(ann: Relay, bob: Relay) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    hello = initiator.hello()
    challenge = first(responder, hello)
    proof = first(initiator, challenge)
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
    ann: Relay,
    bob: Relay,
) -> None:
    ann.keys, bob.keys = a, b
    of_ann, of_bob = join(ann, bob)
    assert of_ann.signed_by == a[0].fingerprint
    assert of_bob.signed_by == b[0].fingerprint


@pytest.mark.parametrize("one", [OLD, NEW])
def test_a_relay_at_either_end_of_the_change_joins_those_that_sign_alike(
    one: NetworkKey,
    ann: Relay,
    bob: Relay,
) -> None:
    ann.keys, bob.keys = (one,), (one, OLD if one is NEW else NEW)
    join(ann, bob)
    join(bob, ann)


def test_a_relay_without_the_new_key_does_not_admit_it(ann: Relay, bob: Relay) -> None:
    ann.keys, bob.keys = (OLD,), (NEW, OLD)
    initiator = ann.initiator()
    challenge = first(bob.responder(ann), initiator.hello())
    assert "none of this relay's RSA keys" in refusal(initiator, challenge)


def test_the_join_key_alone_does_not_make_an_initiator(bob: Relay, mallory: Relay) -> None:
    responder, initiator = bob.responder(mallory), mallory.initiator()
    challenge = first(responder, initiator.hello())
    assert "none of this relay's RSA keys" in refusal(initiator, challenge)
    proof = proof_of(mallory, bob, challenge, signer=STRANGE)
    assert "none of this relay's RSA keys" in refusal(responder, proof)


def test_the_join_key_alone_does_not_make_a_responder(ann: Relay, mallory: Relay) -> None:
    initiator = ann.initiator()
    challenge = first(mallory.responder(ann), initiator.hello())
    assert "none of this relay's RSA keys" in refusal(initiator, challenge)


def test_a_man_between_cannot_pass_on_the_responders_certificate(
    ann: Relay,
    bob: Relay,
    mallory: Relay,
) -> None:
    initiator = ann.initiator()
    challenge = first(bob.responder(mallory), initiator.hello())
    assert "made for another relay" in refusal(initiator, challenge)


def test_a_man_between_cannot_pass_on_the_initiators_certificate(
    ann: Relay,
    bob: Relay,
    mallory: Relay,
) -> None:
    initiator, honest, deceived = ann.initiator(), bob.responder(ann), bob.responder(mallory)
    challenge = msgpack.unpackb(first(honest, initiator.hello()))
    challenge[2] = msgpack.unpackb(first(deceived, mallory.initiator().hello()))[2]
    proof = first(initiator, msgpack.packb(challenge))  # made for the nonce of the other connection
    assert "another relay's key" in refusal(deceived, proof)


def test_a_certificate_for_one_relay_is_none_for_another(
    ann: Relay,
    bob: Relay,
    mallory: Relay,
) -> None:
    """Even an insider cannot use one relay's proof at another."""
    carol = Relay("192.168.56.103")
    initiator, at_carol = ann.initiator(), carol.responder(ann)
    nonce = msgpack.unpackb(first(at_carol, initiator.hello()))[2]
    challenge = msgpack.unpackb(first(bob.responder(ann), initiator.hello()))
    challenge[2] = nonce
    proof = first(initiator, msgpack.packb(challenge))
    assert "made for another relay" in refusal(at_carol, proof)


def test_a_replayed_proof_meets_another_nonce(ann: Relay, bob: Relay) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    hello = initiator.hello()
    proof = first(initiator, first(responder, hello))
    assert responder.receive(proof, NOW).admitted is not None
    assert "after the end" in refusal(responder, proof)
    again = bob.responder(ann)
    first(again, hello)
    assert "made for another join" in refusal(again, proof)


def test_a_replayed_challenge_meets_another_nonce(ann: Relay, bob: Relay) -> None:
    challenge = first(bob.responder(ann), ann.initiator().hello())
    assert "made for another join" in refusal(ann.initiator(), challenge)


def test_one_hello_one_challenge(ann: Relay, bob: Relay) -> None:
    responder, hello = bob.responder(ann), ann.initiator().hello()
    first(responder, hello)
    assert "instead of PROOF" in refusal(responder, hello)


def test_a_failed_proof_spends_the_nonce(ann: Relay, bob: Relay) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    proof = first(initiator, first(responder, initiator.hello()))
    refusal(responder, proof[:-1])
    assert "after the end" in refusal(responder, proof)


def test_a_message_sent_back_to_its_sender_is_refused(ann: Relay, bob: Relay) -> None:
    initiator, responder = ann.initiator(), bob.responder(ann)
    assert "instead of CHALLENGE" in refusal(initiator, initiator.hello())
    challenge = first(responder, ann.initiator().hello())
    assert "instead of PROOF" in refusal(responder, challenge)


def test_a_challenge_is_no_proof(ann: Relay, bob: Relay) -> None:
    """Two joins crossed: the certificate that one side made, given back to it as proof."""
    responder = bob.responder(ann)
    nonce = msgpack.unpackb(first(responder, ann.initiator().hello()))[2]
    crossed = first(ann.responder(bob), msgpack.packb([1, 1, nonce]))
    proof = msgpack.packb([3, msgpack.unpackb(crossed)[3], [1, 1, "", ""]])
    assert "wrong role" in refusal(responder, proof)


def test_another_network_of_the_same_key_is_another(ann: Relay, bob: Relay) -> None:
    bob.network = "cluster2"
    initiator = ann.initiator()
    challenge = first(bob.responder(ann), initiator.hello())
    assert "another network" in refusal(initiator, challenge)


def test_a_relay_that_reaches_itself_knows(ann: Relay) -> None:
    assert refusal(ann.responder(ann), ann.initiator().hello()) == "this is me"


ANN = Relay("192.168.56.101")
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
def test_an_initiator_looks_at_every_part(changes: dict[str, Any], reason: str, bob: Relay) -> None:
    initiator = ANN.initiator()
    good = challenge_of(bob, ANN, initiator.hello())
    assert msgpack.unpackb(first(initiator, good))[0] == 3
    initiator = ANN.initiator()
    assert refusal(initiator, challenge_of(bob, ANN, initiator.hello(), **changes)) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *WRONG,
        ({"role": Role.RESPONDER}, "a certificate of the wrong role"),
        ({"curve_key": bytes(32)}, "a certificate of another relay's key"),
    ],
)
def test_a_responder_looks_at_every_part(changes: dict[str, Any], reason: str, bob: Relay) -> None:
    responder = ANN.responder(bob)
    good = proof_of(bob, ANN, first(responder, bob.initiator().hello()))
    assert responder.receive(good, NOW).admitted is not None
    responder = ANN.responder(bob)
    challenge = first(responder, bob.initiator().hello())
    assert refusal(responder, proof_of(bob, ANN, challenge, **changes)) == reason


@pytest.mark.parametrize("lifetime", [0, -1, 86_401, 10**9])
def test_no_lifetime_beyond_a_day_is_taken(lifetime: int, ann: Relay, bob: Relay) -> None:
    responder = bob.responder(ann)
    challenge = first(responder, ann.initiator().hello())
    good = certified(ann, bob, msgpack.unpackb(challenge)[2], Role.INITIATOR)
    encoded = msgpack.packb([*astuple(good)[:-1], lifetime])
    sealed = msgpack.packb([encoded, OLD.sign(b"arke 1 node certificate\0" + encoded)])
    proof = msgpack.packb([3, sealed, [55556, 55557, "", "", 1]])
    assert refusal(responder, proof) == "a certificate with a bad lifetime"


@pytest.mark.parametrize("late", [LONGEST_JOIN + 0.001, 86_400.0, -1.0, float("nan")])
def test_a_join_has_an_end(late: float, ann: Relay, bob: Relay) -> None:
    responder = bob.responder(ann)
    assert "took over 10 seconds" in refusal(responder, ann.initiator().hello(), NOW + late)
    initiator, responder = ann.initiator(), bob.responder(ann)
    challenge = first(responder, initiator.hello(), NOW + LONGEST_JOIN)
    proof = first(initiator, challenge, NOW + LONGEST_JOIN)
    assert "took over 10 seconds" in refusal(responder, proof, NOW + late)
