"""What the command hands to the master, and the master to each worker, as one word of argv."""

from __future__ import annotations

import json
from typing import NamedTuple

Descriptors = dict[str, int]
"""Name → number of the listening sockets: `public`, and `admin` if there is one."""


class Plan(NamedTuple):
    """For the master."""

    listeners: Descriptors
    workers: int
    grace: float  # seconds
    greeting: str  # logged when everybody serves

    def text(self) -> str:
        return json.dumps(self)

    @classmethod
    def read(cls, text: str) -> Plan:
        return cls(*json.loads(text))


class Seat(NamedTuple):
    """For a worker."""

    line: int  # the descriptor of its line to the master
    listeners: Descriptors

    def text(self) -> str:
        return json.dumps(self)

    @classmethod
    def read(cls, text: str) -> Seat:
        return cls(*json.loads(text))
