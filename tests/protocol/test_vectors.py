"""docs/protocol.md says the truth: every vector of it, against the relay's own codecs."""

from __future__ import annotations

import pytest

from arke.wire.messages import MAGIC, VERSION, Op, PeerOp
from support.in_process_relay import InProcessRelay, packed, unpacked
from support.vectors import Vector, blocks


def _played(stage: InProcessRelay, conversation: list[Vector]) -> None:
    for vector in conversation:
        assert unpacked(vector.octets) == vector.said
        assert packed(*vector.said) == vector.octets, "not the shortest encoding"
        if vector.heard and vector.who == "P":
            heard = stage.received_by_peer()
        elif vector.heard:
            heard = stage.received(vector.who)
        elif vector.who == "P":
            stage.send_as_peer(vector.octets)
            continue
        else:
            stage.send(vector.who, vector.octets)
            continue
        assert unpacked(heard) == vector.said
        assert heard == vector.octets


async def test_programs_and_their_relay_speak_as_the_document_says() -> None:
    conversation, _ = blocks()
    stage = InProcessRelay()
    for who in "AB":
        stage.attach(who)
    _played(stage, conversation)
    assert not stage.received("A") + stage.received("B"), "more was said than the document tells"
    assert stage.closed == {"A", "B"}


async def test_relays_speak_as_the_document_says() -> None:
    _, conversation = blocks()
    stage = InProcessRelay()
    for who, name in (("A", "caller"), ("B", "service")):
        stage.attach(who)
        stage.send(who, packed((Op.HELLO, MAGIC, VERSION, name)))
    stage.send("B", packed((Op.REGISTER, "greeter", {"zone": "a"}), (Op.SUBSCRIBE, "news")))
    for who in "AB":
        assert unpacked(stage.received(who))[0][0] == Op.WELCOME
    stage.admit_peer()
    _played(stage, conversation)
    assert stage.peers == set(), "it took its leave"
    assert not stage.received("A") + stage.received("B") + stage.received_by_peer()


@pytest.mark.parametrize("which", [0, 1], ids=["program", "peer"])
def test_every_operation_has_a_vector(which: int) -> None:
    shown = {message[0] for vector in blocks()[which] for message in vector.said}
    missing = set(PeerOp if which else Op) - shown
    # Said when the relay's address changes, or when it leaves; and these end a watch, and a topic.
    unshown = {Op.NODE_ADDRESS, Op.DRAINING, Op.UNWATCH, Op.UNSUBSCRIBE}
    assert missing == (set() if which else unshown)
