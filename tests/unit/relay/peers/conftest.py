"""Two relays for the join tests."""

from __future__ import annotations

import pytest

from support.handshake_nodes import HandshakeNode


@pytest.fixture
def ann() -> HandshakeNode:
    return HandshakeNode("192.168.56.101")


@pytest.fixture
def bob() -> HandshakeNode:
    return HandshakeNode("192.168.56.102", lifetime=60)
