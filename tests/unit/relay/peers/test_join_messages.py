"""What is no message of a join, and what a message may not do."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.errors import JoinRefused
from arke_relay.peers.join_messages import refused
from support.handshake_nodes import NOW, HandshakeNode, next_message, refusal_reason

ANN = HandshakeNode("192.168.56.101")


@pytest.fixture
def ann() -> HandshakeNode:
    return HandshakeNode("192.168.56.101")


@pytest.fixture
def bob() -> HandshakeNode:
    return HandshakeNode("192.168.56.102", lifetime=60)


def test_a_refusal_reaches_the_initiator(ann: HandshakeNode, bob: HandshakeNode) -> None:
    assert refusal_reason(ann.initiator(), refused("table full")) == (
        "refused by the other relay: table full"
    )
    initiator = ann.initiator()
    next_message(initiator, next_message(bob.responder(ann), initiator.hello()))
    assert "full" in refusal_reason(initiator, refused("table full"))


def test_a_responder_takes_no_refusal(ann: HandshakeNode, bob: HandshakeNode) -> None:
    assert "instead of HELLO" in refusal_reason(bob.responder(ann), refused("no"))


def test_a_reason_cannot_write_lines_of_a_log(ann: HandshakeNode) -> None:
    forged = msgpack.packb([5, "no\n12:00 admitted \x1b[2J"])
    assert refusal_reason(ann.initiator(), forged).endswith(": no?12:00 admitted ?[2J")


def test_a_long_reason_is_cut(ann: HandshakeNode) -> None:
    reason = refusal_reason(ann.initiator(), refused("ß" * 5000))
    assert reason.endswith(": " + "ß" * 200)
    assert "instead of CHALLENGE" in refusal_reason(ann.initiator(), msgpack.packb([5, "n" * 900]))


@pytest.mark.parametrize("hello", [[1, 2, bytes(32)], [1, 2], [1, "2", None, []]])
def test_another_version_is_named(hello: list[Any], ann: HandshakeNode, bob: HandshakeNode) -> None:
    assert "another version" in refusal_reason(bob.responder(ann), msgpack.packb(hello))
    challenge = [2, *hello[1:], b"certificate"]
    assert "another version" in refusal_reason(ann.initiator(), msgpack.packb(challenge))


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
def test_a_malformed_hello_is_refused(
    hello: object, ann: HandshakeNode, bob: HandshakeNode
) -> None:
    assert "malformed" in refusal_reason(bob.responder(ann), msgpack.packb(hello))


def test_a_hello_of_8_kib_is_not_looked_at(ann: HandshakeNode, bob: HandshakeNode) -> None:
    long = msgpack.packb([1, 1, bytes(32), *[bytes(2000)] * 5])
    assert refusal_reason(bob.responder(ann), long) == "a malformed message"


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
    # nested headers, each of which asks for memory
    | st.sampled_from(
        [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\x9f", b"\xdf\xff\xff\xff\xff"]
    ).map(
        lambda header: header * 1600,
    )
)


@given(message=hostile)
def test_any_bytes_are_refused_in_every_state(message: bytes) -> None:
    bob = HandshakeNode("192.168.56.102")
    initiator, responder = ANN.initiator(), bob.responder(ANN)
    challenge = next_message(bob.responder(ANN), initiator.hello())
    next_message(responder, ANN.initiator().hello())
    refusal_reason(responder, message)
    refusal_reason(ANN.initiator(), message)
    next_message(initiator, challenge)
    refusal_reason(initiator, message)
    try:
        bob.responder(ANN).receive(message, NOW)
    except JoinRefused:
        pass
    else:
        assert msgpack.unpackb(message)[:2] == [1, 1]  # a HELLO, which anybody may say


@given(data=st.data())
def test_any_changed_byte_of_a_proof_is_refused_or_means_the_same(data: st.DataObject) -> None:
    bob = HandshakeNode("192.168.56.102")
    initiator, responder = ANN.initiator(), bob.responder(ANN)
    proof = bytearray(next_message(initiator, next_message(responder, initiator.hello())))
    proof[data.draw(st.integers(0, len(proof) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        step = responder.receive(bytes(proof), NOW)
    except JoinRefused:
        return
    # Only the introduction is not signed; the connection itself keeps it from being changed.
    assert step.admitted is not None
    expected = (ANN.node, ANN.pair.public, ANN.lifetime)
    assert (step.admitted.node, step.admitted.curve_key, step.admitted.lifetime) == expected
