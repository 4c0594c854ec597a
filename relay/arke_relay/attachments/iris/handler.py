"""The two directions of the translation."""

from __future__ import annotations

from collections.abc import Callable

from arke_relay.core.endpoints import Message

PacketHandler = Callable[[bytes, int, float], int]
"""Reads one packet after its first byte, handles it, and returns where the next packet begins.

The arguments are the received bytes, an offset into them, and the time of their arrival.
"""

Encoder = Callable[[Message], bytes]
"""Returns the packets that carry a message of the native protocol."""
