"""What the command hands to the master, and the master to each worker, as one word of argv."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

Descriptors = dict[str, int]
"""Name → number of a listening socket: `public`, and `tls` and `admin` if there are."""

Shared = dict[str, list[int]]
"""Name → numbers of the sockets on one port, among which the kernel shares connections out."""


class MasterConfig(NamedTuple):
    """For the master."""

    listeners: Shared  # as many as workers, or one that all of them accept from
    secret: int  # see `new_secret`
    workers: int
    grace: float  # seconds
    greeting: str  # logged when everybody serves

    def text(self) -> str:
        return json.dumps(self)

    @classmethod
    def read(cls, text: str) -> MasterConfig:
        return cls(*json.loads(text))

    def seat(self, line: int, place: int) -> WorkerConfig:
        """Return the seat of a worker; no two that serve should have one place, of `workers`."""
        own: Descriptors = {}
        siblings: Shared = {}
        for name, numbers in self.listeners.items():
            at = place % len(numbers)
            own[name] = numbers[at]
            siblings[name] = numbers[:at] + numbers[at + 1 :]
        return WorkerConfig(line, own, self.secret, siblings)


class WorkerConfig(NamedTuple):
    """For a worker."""

    line: int  # the descriptor of its line to the master
    listeners: Descriptors  # where it accepts
    secret: int  # see `read_secret`
    siblings: Shared  # where other workers do, which may need somebody to stand in for them

    def text(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def read(cls, text: str) -> WorkerConfig:
        """Take what is known: the master may be of an older or a newer version."""
        given = {"siblings": {}} | json.loads(text)
        return cls(**{name: given[name] for name in cls._fields})


_SECRET = 32  # octets


def new_secret() -> int:
    """Make a secret that all workers share for as long as the master lives; return its descriptor.

    It is in no file and no argument, where others could read it. A cookie sealed with it is good
    in every worker, and after a reload.
    """
    number = os.memfd_create("secret", os.MFD_CLOEXEC)
    os.write(number, os.urandom(_SECRET))
    return number


def read_secret(number: int) -> bytes:
    return os.pread(number, _SECRET, 0)
