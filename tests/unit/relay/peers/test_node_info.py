from __future__ import annotations

from typing import Any

import msgpack
import pytest

from arke_relay.errors import RefusalCode
from arke_relay.peers.node_info import NodeInfo
from support.handshake_nodes import HandshakeNode, next_message, refusal_code

INVALID = [
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


@pytest.mark.parametrize("info", INVALID)
def test_invalid_node_info_is_refused_by_both_sides(
    info: list[Any],
) -> None:
    ann, bob = HandshakeNode("192.168.56.101"), HandshakeNode("192.168.56.102")
    initiator, responder = ann.initiator(), bob.responder(ann)
    proof = msgpack.unpackb(next_message(initiator, next_message(responder, initiator.hello())))
    bad = msgpack.packb([3, proof[1], info])
    assert refusal_code(responder, bad) is RefusalCode.MALFORMED_NODE_INFO
    welcome = msgpack.packb([4, info])
    assert refusal_code(initiator, welcome) is RefusalCode.MALFORMED_NODE_INFO


@pytest.mark.parametrize("address", ["", "192.168.56.1", "::1", "fe80::1%eth1", "0.0.0.0"])
def test_valid_observed_address(address: str) -> None:
    assert NodeInfo(1, 65_535, address, "", 1).observed_address == address
