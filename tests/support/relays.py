"""Relays on loopback addresses of this machine: real processes that need no network lab."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import arke
from arke.keygen import write_key
from lab import Process
from support.programs import program

LIMIT = 30.0
"""Seconds in which whatever is waited for must happen; a quiet box needs a fraction of one."""

_BLUNDER = re.compile(
    r"Traceback|never retrieved|never awaited|was destroyed|Exception in callback"
)
"""What Python writes where an exception, or a task, is nobody's."""


def start(name: str, command: Sequence[str | Path], **environ: str) -> Process:
    """Start a process of this machine that a test can signal, read and wait for."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 — closed with the process
    popen = subprocess.Popen(
        [os.fspath(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environ,
    )

    def reap(_: int) -> int:
        return popen.wait()

    return Process(name, popen.pid, os.pidfd_open(popen.pid), log, reap)


def free_port() -> int:
    """Return a port outside the range of those who bind port 0, or they might get it meanwhile."""
    bounds = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    lowest, highest = map(int, bounds.split())
    ports = [port for port in range(10000, 65536) if not lowest <= port <= highest]
    for port in random.sample(ports, min(100, len(ports))):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no port outside {lowest} to {highest} is free")


def _any_address() -> str:
    middle = f"{random.randint(1, 254)}.{random.randint(0, 254)}"
    return f"127.{middle}.{random.randint(2, 254)}"


class Relay:
    """A running relay. Programs attach at `port`, relays at `address` and `peer_port`."""

    def __init__(self, process: Process, port: int, address: str, peer_port: int) -> None:
        self.process = process
        self.port = port
        self.address = address
        self.peer_port = peer_port

    @property
    def join(self) -> str:
        """The argument of another relay's -join."""
        return f"{self.address}:{self.peer_port}"

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.machine_pid}/statm").read_text(encoding="ascii").split()
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")


class Relays:
    """Starts relays of one network, and ends them all with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Relay] = []
        self._key: Path | None = None
        self.network = f"test-{os.urandom(4).hex()}"

    @property
    def key(self) -> Path:
        if self._key is None:
            self._key = self.new_key()
        return self._key

    def new_key(self) -> Path:
        path = self._folder / f"id_rsa-{os.urandom(4).hex()}"
        write_key(path)
        return path

    def start(
        self,
        *flags: str | Path,
        net: str | None = None,
        keys: Sequence[Path] = (),
        address: str | None = None,
        port: int | None = None,
        join: Sequence[Relay] = (),
        mdns: bool = False,
        wait: bool = True,
    ) -> Relay:
        """Start a relay on an address of its own, and wait until its ports are open."""
        address = address or _any_address()
        port = port or free_port()
        words: list[str | Path] = [*program("relay"), "-net", net or self.network]
        for key in keys or [self.key]:
            words += ["-rsa", key]
        for other in join:
            words += ["-join", other.join]
        words += ["-bind", address, "-port", str(port), "-mdns", "on" if mdns else "off", *flags]
        relay = Relay(start(f"relay {address}", words), port, address, 55556)
        self._all.append(relay)
        if wait:
            relay.process.wait_for_line("relay started", LIMIT)
        return relay

    def pair(self) -> tuple[Relay, Relay]:
        """Two relays that are linked."""
        one = self.start()
        other = self.start(join=[one])
        for relay in (one, other):
            relay.process.wait_for_line("peer linked", LIMIT)
        return one, other

    def stop(self) -> None:
        """Stop every relay. Shows their logs, which pytest prints for a test that failed."""
        for relay in self._all:
            if relay.process.running:
                relay.process.cont()
                relay.process.terminate()
        for relay in self._all:
            try:
                relay.process.wait(LIMIT)
            except TimeoutError:
                relay.process.kill()
                relay.process.wait(LIMIT)
                raise
            finally:
                sys.stdout.write(f"--- {relay.process.name}\n{relay.process.tail()}\n")
                blunders = _BLUNDER.findall(relay.process.log)
                relay.process.close()
            assert not blunders, f"{relay.process.name}: what it logged was nobody's to raise"


async def members(mesh: arke.Mesh, cluster: str) -> int:
    """How many members of a cluster the relay of `mesh` knows."""
    known: dict[str, Any] = (await mesh.status())["clusters"].get(cluster, {})
    return int(known.get("here", 0) + known.get("elsewhere", 0))


def eventually(what: Callable[[], bool], limit: float = LIMIT) -> None:
    """Wait until something is true. Raises TimeoutError."""
    deadline = time.monotonic() + limit
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {limit} s: {what}")
        time.sleep(0.02)
