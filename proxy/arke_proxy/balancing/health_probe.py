"""One check of a backend: a GET, and the first line of what comes of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, cast

from arke_proxy.backends.address import BackendAddress
from arke_proxy.connections.descriptors import NONE_LEFT

_LIMIT = 1.0  # seconds for an answer
_LONGEST_LINE = 1024  # bytes of a status line

P = TypeVar("P")


class ProbeDialer(Protocol):
    """Opens connections to backends, the way that requests get there."""

    async def connect(
        self, address: BackendAddress, make: Callable[[socket.socket | None], P], /
    ) -> P:
        """Open one for the protocol of the loop's that `make` makes. Raises OSError."""

    def closed(self, sock: socket.socket, /) -> None:
        """Learn that one has ended."""


class CheckFailed(Exception):
    """A check that failed; the text completes "its check …"."""

    def __init__(self, fault: str, *, reachable: bool = True) -> None:
        super().__init__(fault)
        self.reachable = reachable


class CheckSkipped(Exception):
    """A check that found no descriptor, and so found out nothing."""


Probe = Callable[[BackendAddress], Awaitable[None]]
"""Checks one backend. Raises Unwell, NotAsked."""


def http_probe(path: str, dials: ProbeDialer) -> Probe:
    """Make a check that GETs `path` and takes any answer 2xx or 3xx for well."""

    async def probe(address: BackendAddress) -> None:
        try:
            question = await dials.connect(
                address, lambda sock: _Question(path, address.authority, dials, sock)
            )
        except OSError as error:
            if error.errno in NONE_LEFT:
                raise CheckSkipped from error
            raise CheckFailed("cannot connect", reachable=False) from error
        try:
            async with asyncio.timeout(_LIMIT):
                line = await question.line
        except TimeoutError:
            raise CheckFailed(f"was not answered within {_LIMIT:g} s") from None
        finally:
            question.transport.abort()
        version, _, status = line.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise CheckFailed("was not answered in HTTP")
        if status[:1] not in (b"2", b"3"):
            raise CheckFailed(f"was answered {status[:3].decode('ascii', 'replace')}")

    return probe


class _Question(asyncio.Protocol):
    """Asks as soon as it is connected."""

    def __init__(
        self, path: str, host: str, dials: ProbeDialer, sock: socket.socket | None
    ) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        self._asked = f"{head}User-Agent: arke-proxy-check\r\n\r\n".encode()
        self._held = b""
        self._dials = dials
        self._sock = sock  # None at the end of a tunnel
        self.transport: asyncio.Transport
        self.line: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        """The first of the answer; empty if none comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        if self.line.done():
            return
        self._held += data
        line, whole, _ = self._held.partition(b"\r\n")
        if whole or len(line) > _LONGEST_LINE:
            self._answered(line if whole else b"")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._sock:
            self._dials.closed(self._sock)
        self._answered(b"")

    def _answered(self, line: bytes) -> None:
        if not self.line.done():
            self.line.set_result(line)
