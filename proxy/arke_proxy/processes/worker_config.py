"""The configuration of the master and of a worker, passed as JSON in one command-line argument."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

Descriptors = dict[str, int]
"""Descriptor of a listening socket, by name: `public`, and `tls` and `admin` if configured."""

DescriptorGroups = dict[str, list[int]]
"""Descriptors of the sockets on one port, by name; the kernel spreads connections over them."""


class MasterConfig(NamedTuple):
    """The master's configuration."""

    listeners: DescriptorGroups  # one socket for each worker, or one that all workers share
    secret: int  # descriptor, see `new_secret`
    workers: int
    grace: float  # seconds
    greeting: dict[str, str]  # fields of the event that is logged when all workers are ready
    log_level: str
    log_format: str

    def to_json(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> MasterConfig:
        return cls(*json.loads(text))

    def worker(self, ipc: int, slot: int) -> WorkerConfig:
        """Return the configuration of a worker. Each running worker has a slot below `workers`."""
        own: Descriptors = {}
        siblings: DescriptorGroups = {}
        for name, group in self.listeners.items():
            index = slot % len(group)
            own[name] = group[index]
            siblings[name] = group[:index] + group[index + 1 :]
        return WorkerConfig(ipc, own, self.secret, siblings)


class WorkerConfig(NamedTuple):
    """A worker's configuration."""

    ipc: int  # descriptor of its socket to the master
    listeners: Descriptors  # where it accepts
    secret: int  # descriptor, see `read_secret`
    siblings: DescriptorGroups  # of the other workers; this one accepts what they leave waiting

    def to_json(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> WorkerConfig:
        """Parse; ignore unknown fields, because the master may run another version."""
        fields = {"siblings": {}} | json.loads(text)
        return cls(**{name: fields[name] for name in cls._fields})


_SECRET_SIZE = 32  # bytes


def new_secret() -> int:
    """Create the secret that encrypts sticky cookies; return its descriptor.

    It lives in memory for as long as the master, in no file and no argument that others could read.
    So cookies are valid in every worker and after a reload.
    """
    descriptor = os.memfd_create("secret", os.MFD_CLOEXEC)
    os.write(descriptor, os.urandom(_SECRET_SIZE))
    return descriptor


def read_secret(descriptor: int) -> bytes:
    return os.pread(descriptor, _SECRET_SIZE, 0)
