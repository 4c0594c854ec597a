"""Ports and loopback addresses that no test in a parallel worker gets too.

Ports lie outside the ephemeral range, so that a connection or a listener on port 0 never takes one
between `free_port` and its use.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

BLOCK = 64
"""Ports in a block; each block belongs to one worker."""

_WORKERS = 16
"""Parallel workers at most."""


def free_port() -> int:
    """Return a port that is free on 127.0.0.1; each call returns another one."""
    return _next_free(_single_ports(), ["127.0.0.1"], [0])


def free_block(hosts: Sequence[str], offsets: Sequence[int]) -> int:
    """Return a port P such that P + each offset is free on each of the hosts."""
    assert max(offsets) < BLOCK
    return _next_free(_block_starts(), hosts, offsets)


def loopback_address() -> str:
    """Return a random loopback address of this worker."""
    second = 1 + _worker() + _WORKERS * random.randrange(15)
    return f"127.{second}.{random.randint(0, 254)}.{random.randint(2, 254)}"


def _next_free(ports: Iterator[int], hosts: Sequence[str], offsets: Sequence[int]) -> int:
    for port in itertools.islice(ports, 200):
        if all(_is_free(host, port + offset) for host in hosts for offset in offsets):
            return port
    raise AssertionError("200 ports in a row are in use")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind((host, port))
        return True
    return False


@cache
def _single_ports() -> Iterator[int]:
    """Cycle through the ports of every other block of this worker."""
    ports = [start + n for start in _blocks()[::2] for n in range(BLOCK)]
    return _cycle_from_anywhere(ports)


@cache
def _block_starts() -> Iterator[int]:
    return _cycle_from_anywhere(_blocks()[1::2])


def _cycle_from_anywhere(ports: list[int]) -> Iterator[int]:
    """Cycle through ports from a random one on: other test runs on this machine do so too."""
    first = random.randrange(len(ports))
    return itertools.cycle(ports[first:] + ports[:first])


def _blocks() -> list[int]:
    bounds = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    lowest, highest = map(int, bounds.split())
    starts = [
        start
        for start in range(10048, 65536 - BLOCK, BLOCK)
        if start + BLOCK <= lowest or start > highest
    ]
    return starts[_worker() % _WORKERS :: _WORKERS]


def _worker() -> int:
    """Return the number of this pytest-xdist worker; 0 in a run without workers."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
