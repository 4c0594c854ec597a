from __future__ import annotations

from typing import Any

import msgpack
import pytest

from arke_relay.peers.introduction import Introduction
from support.handshake_nodes import HandshakeNode, next_message, refusal_reason

BAD_INTRODUCTIONS = [
    [],
    [1, 1, "", ""],
    [1, 1, "", "", 1, ""],
    [0, 1, "", "", 1],
    [1, 65_536, "", "", 1],
    [True, 1, "", "", 1],
    [1, 1.0, "", "", 1],
    [1, 1, None, "", 1],
    [1, 1, "example.org", "", 1],
    [1, 1, "192.168.56.1 ", "", 1],
    [1, 1, "fe80::1%\n", "", 1],
    [1, 1, "", "v" * 65, 1],
    [1, 1, "", "1\n2", 1],
    [1, 1, "", b"1", 1],
    [1, 1, "", "", 0],
    [1, 1, "", "", 2**63],
    [1, 1, "", "", 1.5],
]


@pytest.mark.parametrize("introduction", BAD_INTRODUCTIONS)
def test_a_bad_introduction_is_refused_on_both_sides(
    introduction: list[Any],
) -> None:
    ann, bob = HandshakeNode("192.168.56.101"), HandshakeNode("192.168.56.102")
    initiator, responder = ann.initiator(), bob.responder(ann)
    proof = msgpack.unpackb(next_message(initiator, next_message(responder, initiator.hello())))
    bad = msgpack.packb([3, proof[1], introduction])
    assert refusal_reason(responder, bad) == "a malformed introduction"
    assert refusal_reason(initiator, msgpack.packb([4, introduction])) == "a malformed introduction"


@pytest.mark.parametrize("reached", ["", "192.168.56.1", "::1", "fe80::1%eth1", "0.0.0.0"])
def test_addresses_are_addresses(reached: str) -> None:
    assert Introduction(1, 65_535, reached, "", 1).reached == reached
