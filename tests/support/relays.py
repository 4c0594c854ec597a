"""Relays on loopback addresses of this machine: real processes that need no network lab."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import Process
from support.network_keys import write_key_file
from support.ports import free_port, loopback_address
from support.processes import start_process
from support.programs import program
from support.waiting import LIMIT

_UNHANDLED = re.compile(
    r"Traceback|never retrieved|never awaited|was destroyed|Exception in callback"
)
"""What Python writes when nothing handles an exception or awaits a task."""


class Relay:
    """A running relay. Programs attach at `port`, peers link at `address` and `peer_port`."""

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
    """Starts relays of one network with a random name, and stops them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Relay] = []
        self._keys = 0
        self._key: Path | None = None
        self.network = f"test-{os.urandom(4).hex()}"

    @property
    def key(self) -> Path:
        if self._key is None:
            self._key = self.new_key()
        return self._key

    def new_key(self) -> Path:
        """Write a key that differs from the others of this network."""
        path = self._folder / f"id_rsa-{os.urandom(4).hex()}"
        write_key_file(path, self._keys)
        self._keys += 1
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
        address = address or loopback_address()
        port = port or free_port()
        words: list[str | Path] = [*program("relay"), "-net", net or self.network]
        for key in keys or [self.key]:
            words += ["-rsa", key]
        for other in join:
            words += ["-join", other.join]
        words += ["-bind", address, "-port", str(port), "-mdns", "on" if mdns else "off", *flags]
        relay = Relay(start_process(f"relay {address}", words), port, address, 55556)
        self._all.append(relay)
        if wait:
            relay.process.wait_for_line("relay started", LIMIT)
        return relay

    def start_pair(self) -> tuple[Relay, Relay]:
        """Start two relays that are linked."""
        one = self.start(wait=False)
        other = self.start(join=[one])
        for relay in (one, other):
            relay.process.wait_for_line("peer linked", LIMIT)
        return one, other

    def stop(self) -> None:
        """Stop every relay. Fails if one logged an exception that nothing handled."""
        for relay in self._all:
            if relay.process.running:
                relay.process.cont()
                relay.process.terminate()
        for relay in self._all:
            process = relay.process
            try:
                process.wait(LIMIT)
            except TimeoutError:
                process.kill()
                process.wait(LIMIT)
                raise
            finally:
                log = process.log
                process.close()
            assert not _UNHANDLED.search(log), f"{process.name} logged an exception:\n{log}"


@contextmanager
def network(folder: Path) -> Iterator[Relays]:
    """Relays of one network, which are stopped after the block."""
    relays = Relays(folder)
    try:
        yield relays
    finally:
        relays.stop()
