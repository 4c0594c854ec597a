"""What callers ask and members answer: each body says whose it is, and which one."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

CLUSTER = "cluster"
TOPIC = "topic"
PARTS = 20
"""What an answer in parts has of them."""

ONCE = "once"
IDEMPOTENT = "idempotent"
HASTY = "hasty"
"""A request whose time is mostly too short."""
PARTED = "parts"
TUNNEL = "tunnel"
BROADCAST = "broadcast"
EVENT = "event"

_SIZES = (16, 200, 2_000, 100_000, 1_000_000)
_WEIGHTS = (40, 40, 15, 4, 1)


class Question(NamedTuple):
    """The beginning of a body."""

    kind: str
    caller: str
    number: int


def a_size(random: Random) -> int:
    """How long a body is: mostly short, sometimes one that travels in chunks."""
    return random.choices(_SIZES, _WEIGHTS)[0]


def body_of(question: Question, size: int) -> bytes:
    """About `size` octets, which no other question has."""
    kind, caller, number = question
    pattern = b"%08d" % number
    return f"{kind} {caller} {number} ".encode() + pattern * (size // len(pattern))


def question_of(body: bytes) -> Question:
    kind, caller, number = body[:64].split(b" ", 3)[:3]
    return Question(kind.decode(), caller.decode(), int(number))


def answer_to(body: bytes) -> bytes:
    return b"answer to " + body
