"""Start Arke's proxy with its own relay and member."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import BenchError
from benchmarks.processes import module_command, running
from benchmarks.relays import network
from benchmarks.web_servers import COMMAND_TIMEOUT, StartProxy

_LISTENING_WITH_TLS = re.compile(r"proxy listening .* tls=127\.0\.0\.1:(\d+)")
LISTENING = re.compile(r"proxy listening address=127\.0\.0\.1:(\d+)")


def arke_proxy(choose: str) -> StartProxy:
    """Return a proxy with `-choose ask` or `-choose watch`."""

    @contextlib.contextmanager
    def proxy(to: int, certificate: Path | None) -> Iterator[int]:
        with (
            tempfile.TemporaryDirectory() as scratch,
            network() as relays,
            relays.relay("127.0.0.2", "-mdns", "off") as relay,
        ):
            relay.ready()
            folder = Path(scratch)
            member = module_command("benchmarks.web_member", str(relay.port), f"127.0.0.1:{to}")
            command = module_command("arke_proxy.main", "-cluster", "web", "-port", str(relay.port))
            command += ["-choose", choose]
            command += ["-listen", "127.0.0.1:0"]
            listening = LISTENING
            if certificate:
                command += ["-tls-listen", "127.0.0.1:0", "-cert", str(certificate)]
                listening = _LISTENING_WITH_TLS
            with running(member, folder / "member"):
                wait_for_line(folder / "member", re.compile("ready"))
                log = folder / "proxy"
                with running(command, log):
                    yield int(wait_for_line(log, listening)[1])

    return proxy


def wait_for_line(
    log: Path, line: re.Pattern[str], limit: float = COMMAND_TIMEOUT
) -> re.Match[str]:
    """Wait until a line of the log matches. Raises `BenchError` on timeout."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if log.exists() and (match := line.search(log.read_text(errors="replace"))):
            return match
        time.sleep(0.01)
    raise BenchError(f"{log.name} did not start")
