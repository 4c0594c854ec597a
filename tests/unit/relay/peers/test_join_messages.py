"""Join messages: encoding, refusals, and malformed bytes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.errors import JoinRefused, RefusalCode
from arke_relay.peers.join_messages import pack_refusal
from support.handshake_nodes import NOW, HandshakeNode, next_message, refusal_code, refusal_of

ANN = HandshakeNode("192.168.56.101")


REFUSAL = JoinRefused(RefusalCode.TOO_MANY_PEERS, "this relay has too many peers")


def test_refusal_reaches_the_initiator_with_code_and_text(
    ann: HandshakeNode, bob: HandshakeNode
) -> None:
    refusal = refusal_of(ann.initiator(), pack_refusal(REFUSAL))
    assert refusal.by_peer
    assert refusal.code is RefusalCode.TOO_MANY_PEERS
    assert refusal.text == "this relay has too many peers"
    initiator = ann.initiator()
    next_message(initiator, next_message(bob.responder(ann), initiator.hello()))
    refusal = refusal_of(initiator, pack_refusal(REFUSAL))
    assert refusal.by_peer
    assert refusal.code is RefusalCode.TOO_MANY_PEERS


def test_refusal_is_a_code_and_a_text() -> None:
    assert msgpack.unpackb(pack_refusal(REFUSAL)) == [5, 16, "this relay has too many peers"]


def test_unknown_refusal_code_is_accepted(ann: HandshakeNode) -> None:
    refusal = refusal_of(ann.initiator(), msgpack.packb([5, 65_535, "a reason of the future"]))
    assert refusal.by_peer
    assert refusal.code is RefusalCode.UNKNOWN


@pytest.mark.parametrize("fields", [["text"], [1], [-1, ""], [65_536, ""], [True, ""], ["1", ""]])
def test_malformed_refusal_is_a_malformed_message(fields: list[Any], ann: HandshakeNode) -> None:
    message = msgpack.packb([5, *fields])
    assert refusal_code(ann.initiator(), message) is RefusalCode.UNEXPECTED_MESSAGE


def test_responder_accepts_no_refusal(ann: HandshakeNode, bob: HandshakeNode) -> None:
    code = refusal_code(bob.responder(ann), pack_refusal(REFUSAL))
    assert code is RefusalCode.UNEXPECTED_MESSAGE


def test_refusal_text_cannot_forge_log_lines(ann: HandshakeNode) -> None:
    forged = msgpack.packb([5, 1, "no\n12:00 admitted \x1b[2J"])
    assert refusal_of(ann.initiator(), forged).text == "no?12:00 admitted ?[2J"


def test_long_refusal_text_is_cut(ann: HandshakeNode) -> None:
    long = JoinRefused(RefusalCode.UNKNOWN, "ß" * 5000)
    assert refusal_of(ann.initiator(), pack_refusal(long)).text == "ß" * 200
    overlong = msgpack.packb([5, 1, "n" * 900])
    assert refusal_code(ann.initiator(), overlong) is RefusalCode.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("hello", [[1, 2, bytes(32)], [1, 2], [1, "2", None, []]])
def test_unsupported_version_is_refused(
    hello: list[Any], ann: HandshakeNode, bob: HandshakeNode
) -> None:
    code = refusal_code(bob.responder(ann), msgpack.packb(hello))
    assert code is RefusalCode.UNSUPPORTED_VERSION
    challenge = [2, *hello[1:], b"certificate"]
    code = refusal_code(ann.initiator(), msgpack.packb(challenge))
    assert code is RefusalCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    "hello",
    [
        [True, 1, bytes(32)],
        [1, True, bytes(32)],
        [1, 1.0, bytes(32)],
        [1, 1, bytes(31)],
        [1, 1, "0" * 32],
        [1, 1],
        [1, 1, bytes(32), None],
        [[1], 1, bytes(32)],
        {1: 1},
        [],
        1,
        None,
        "hello",
    ],
)
def test_malformed_hello_is_refused(hello: object, ann: HandshakeNode, bob: HandshakeNode) -> None:
    code = refusal_code(bob.responder(ann), msgpack.packb(hello))
    assert code is RefusalCode.MALFORMED_MESSAGE


def test_message_over_8_kib_is_refused(ann: HandshakeNode, bob: HandshakeNode) -> None:
    long = msgpack.packb([1, 1, bytes(32), *[bytes(2000)] * 5])
    assert refusal_code(bob.responder(ann), long) is RefusalCode.MALFORMED_MESSAGE


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary()
    | st.text()
    | st.sampled_from([1, 2, 3, 4, 5, bytes(32)]),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=3),
)
shaped = st.integers(0, 6).flatmap(
    lambda kind: st.lists(values, max_size=4).map(lambda fields: [kind, 1, bytes(32), *fields]),
)
hostile = (
    st.binary(max_size=9000)
    | (values | shaped).map(msgpack.packb)
    # nested headers, each of which announces a large value
    | st.sampled_from(
        [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\x9f", b"\xdf\xff\xff\xff\xff"]
    ).map(
        lambda header: header * 1600,
    )
)


@given(message=hostile)
def test_random_bytes_are_refused_in_every_state(message: bytes) -> None:
    bob = HandshakeNode("192.168.56.102")
    initiator, responder = ANN.initiator(), bob.responder(ANN)
    challenge = next_message(bob.responder(ANN), initiator.hello())
    next_message(responder, ANN.initiator().hello())
    refusal_of(responder, message)
    refusal_of(ANN.initiator(), message)
    next_message(initiator, challenge)
    refusal_of(initiator, message)
    try:
        bob.responder(ANN).receive(message, NOW)
    except JoinRefused:
        pass
    else:
        assert msgpack.unpackb(message)[:2] == [1, 1]  # a valid HELLO needs no key


@given(data=st.data())
def test_proof_with_a_changed_byte_is_refused_or_equivalent(data: st.DataObject) -> None:
    bob = HandshakeNode("192.168.56.102")
    initiator, responder = ANN.initiator(), bob.responder(ANN)
    proof = bytearray(next_message(initiator, next_message(responder, initiator.hello())))
    proof[data.draw(st.integers(0, len(proof) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        step = responder.receive(bytes(proof), NOW)
    except JoinRefused:
        return
    # Only the node info is not signed; the CURVE connection protects it.
    assert step.admitted is not None
    expected = (ANN.node, ANN.pair.public, ANN.lifetime)
    assert (step.admitted.node, step.admitted.curve_key, step.admitted.lifetime) == expected
