"""The two directions of the codec."""

from __future__ import annotations

from collections.abc import Callable

from arke_relay.core.endpoints import Message

Handler = Callable[[bytes, int, float], int]
"""Reads one packet behind its first octet, handles it once it is whole, and returns where the next
begins. The last argument is when it came."""

Encoder = Callable[[Message], bytes]
"""The packets that tell a program what a message of the native protocol says."""
