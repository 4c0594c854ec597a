"""Bodies of messages. Each starts with its kind, its caller and a number."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

CLUSTER = "cluster"
TOPIC = "topic"
PARTS = 20
"""Parts of a multipart reply."""

ONCE = "once"
IDEMPOTENT = "idempotent"
SHORT_TIMEOUT = "short timeout"
"""A request whose time-out is often too short."""
MULTIPART = "parts"
TUNNEL = "tunnel"
BROADCAST = "broadcast"
EVENT = "event"

_SIZES = (16, 200, 2_000, 100_000, 1_000_000)
_WEIGHTS = (40, 40, 15, 4, 1)


class MessageHead(NamedTuple):
    """The start of a body."""

    kind: str
    caller: str
    number: int


def random_size(random: Random) -> int:
    """Return the size of a body: mostly short, sometimes sent in chunks."""
    return random.choices(_SIZES, _WEIGHTS)[0]


def make_body(head: MessageHead, size: int) -> bytes:
    """Return a body of about `size` bytes that no other message has."""
    kind, caller, number = head
    pattern = b"%08d" % number
    return f"{kind} {caller} {number} ".encode() + pattern * (size // len(pattern))


def parse_head(body: bytes) -> MessageHead:
    kind, caller, number = body[:64].split(b" ", 3)[:3]
    return MessageHead(kind.decode(), caller.decode(), int(number))


def reply_to(body: bytes) -> bytes:
    return b"reply to " + body
