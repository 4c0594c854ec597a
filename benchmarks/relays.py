"""Start relays on 127.0.0.2 and up, with a new key, a new network name and free ports."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import BenchError
from benchmarks.processes import module_command, run_to_end, running

COMMAND_TIMEOUT = 10.0
KEYFILE = "id_rsa"


@dataclass(frozen=True, slots=True)
class Relay:
    """A running relay: the port for programs, and the address for other relays."""

    process: subprocess.Popen[bytes]
    port: int
    seed: str

    def ready(self) -> None:
        """Return once programs can attach."""
        give_up = time.monotonic() + COMMAND_TIMEOUT
        while time.monotonic() < give_up and self.process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port), COMMAND_TIMEOUT).close()
                return
            time.sleep(0.01)
        raise BenchError("the relay did not start")

    def resident(self) -> float:
        """Return its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))


@dataclass(frozen=True, slots=True)
class Network:
    """A name and a key that only the relays of one run share."""

    name: str
    folder: Path

    @contextlib.contextmanager
    def relay(self, address: str, *arguments: str) -> Iterator[Relay]:
        """Run a relay bound to `address` for the duration of the block; it may not be ready yet."""
        port, peer_port = free_ports("127.0.0.1", 1), free_ports(address, 2)
        log = self.folder / f"{address}.log"
        command = module_command(
            "arke_relay.main", "-net", self.name, "-rsa", str(self.folder / KEYFILE)
        )
        command += ["-bind", address, "-port", str(port), "-peer-port", str(peer_port), *arguments]
        with running(command, log) as process:
            yield Relay(process, port, f"{address}:{peer_port}")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a network for the duration of the block."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run_to_end(
            module_command("arke.cli.main", "keygen", str(folder / KEYFILE)), COMMAND_TIMEOUT
        )
        yield Network(f"bench-{secrets.token_hex(4)}", folder)


@contextlib.contextmanager
def two_relays() -> Iterator[tuple[Relay, Relay]]:
    """Make a network of a near and a far relay, for the duration of the block."""
    with (
        network() as relays,
        relays.relay("127.0.0.2", "-mdns", "off") as far,
        relays.relay("127.0.0.3", "-mdns", "off", "-join", far.seed) as near,
    ):
        for relay in (far, near):
            relay.ready()
        yield near, far


def free_ports(address: str, number: int) -> int:
    """Return the first of `number` consecutive free ports at `address`."""
    while True:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            first = held.enter_context(socket.create_server((address, 0)))
            port: int = first.getsockname()[1]
            for following in range(port + 1, port + number):
                held.enter_context(socket.create_server((address, following)))
            return port
