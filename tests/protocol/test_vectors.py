"""Play each vector of docs/protocol.md against the relay's codecs."""

from __future__ import annotations

import pytest

from arke.wire.messages import MAGIC, VERSION, Op, PeerOp
from support.in_process_relay import InProcessRelay, unpacked
from support.raw_program import packed
from support.vectors import Vector, conversations


def _play(relay: InProcessRelay, conversation: list[Vector]) -> None:
    for vector in conversation:
        assert unpacked(vector.data) == vector.messages
        assert packed(*vector.messages) == vector.data, "not the shortest encoding"
        if vector.from_relay and vector.endpoint == "P":
            received = relay.received_by_peer()
        elif vector.from_relay:
            received = relay.received(vector.endpoint)
        elif vector.endpoint == "P":
            relay.send_as_peer(vector.data)
            continue
        else:
            relay.send(vector.endpoint, vector.data)
            continue
        assert unpacked(received) == vector.messages
        assert received == vector.data


async def test_program_protocol_matches_its_vectors() -> None:
    conversation, _ = conversations()
    relay = InProcessRelay()
    for who in "AB":
        relay.attach(who)
    _play(relay, conversation)
    assert not relay.received("A") + relay.received("B"), "the relay sent more than the vectors"
    assert relay.closed == {"A", "B"}


async def test_peer_protocol_matches_its_vectors() -> None:
    _, conversation = conversations()
    relay = InProcessRelay()
    for who, name in (("A", "caller"), ("B", "service")):
        relay.attach(who)
        relay.send(who, packed((Op.HELLO, MAGIC, VERSION, name)))
    relay.send("B", packed((Op.REGISTER, "greeter", {"zone": "a"}), (Op.SUBSCRIBE, "news")))
    for who in "AB":
        assert unpacked(relay.received(who))[0][0] == Op.WELCOME
    relay.admit_peer()
    _play(relay, conversation)
    assert relay.peers == set(), "the peer has sent CLOSE"
    assert not relay.received("A") + relay.received("B") + relay.received_by_peer()


@pytest.mark.parametrize("which", [0, 1], ids=["program", "peer"])
def test_every_operation_has_a_vector(which: int) -> None:
    shown = {message[0] for vector in conversations()[which] for message in vector.messages}
    missing = set(PeerOp if which else Op) - shown
    # These four have no vector: an address change, a drain, and the ends of a watch and a topic.
    without_vector = {Op.NODE_ADDRESS, Op.DRAINING, Op.UNWATCH, Op.UNSUBSCRIBE}
    assert missing == (set() if which else without_vector)
