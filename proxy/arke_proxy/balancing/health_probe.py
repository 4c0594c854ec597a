"""One active health check: send a GET, and read the status line of the answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, cast

from arke_proxy.backends.address import BackendAddress
from arke_proxy.connections.descriptors import NO_DESCRIPTORS

_TIMEOUT = 1.0  # seconds for the answer
_MAX_STATUS_LINE = 1024  # bytes

P = TypeVar("P")


class ProbeDialer(Protocol):
    """Opens connections to backends in the same way as requests do."""

    async def connect(
        self, address: BackendAddress, make: Callable[[socket.socket | None], P], /
    ) -> P:
        """Connect the asyncio protocol that `make` returns. Raises OSError."""

    def closed(self, sock: socket.socket, /) -> None:
        """Stop counting the connection towards the dialer's limit."""


class CheckFailed(Exception):
    """A check failed; the text completes "health check failed: …"."""

    def __init__(self, fault: str, *, reachable: bool = True) -> None:
        super().__init__(fault)
        self.reachable = reachable  # the proxy could connect


class CheckSkipped(Exception):
    """The proxy had no descriptor for a check, which says nothing about the backend."""


HealthProbe = Callable[[BackendAddress], Awaitable[None]]
"""Checks one backend. Raises CheckFailed, CheckSkipped."""


def http_probe(path: str, dialer: ProbeDialer) -> HealthProbe:
    """Return a check that sends `GET path` and passes on a status 2xx or 3xx."""

    async def probe(address: BackendAddress) -> None:
        try:
            client = await dialer.connect(
                address, lambda sock: _ProbeClient(path, address.authority, dialer, sock)
            )
        except OSError as error:
            if error.errno in NO_DESCRIPTORS:
                raise CheckSkipped from error
            raise CheckFailed("cannot connect", reachable=False) from error
        try:
            async with asyncio.timeout(_TIMEOUT):
                line = await client.status_line
        except TimeoutError:
            raise CheckFailed(f"no answer within {_TIMEOUT:g} s") from None
        finally:
            client.transport.abort()
        version, _, status = line.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise CheckFailed("the answer is not HTTP/1")
        if status[:1] not in (b"2", b"3"):
            raise CheckFailed(f"status {status[:3].decode('ascii', 'replace')}")

    return probe


class _ProbeClient(asyncio.Protocol):
    """Sends the GET when it is connected, and reads the status line."""

    def __init__(
        self, path: str, host: str, dialer: ProbeDialer, sock: socket.socket | None
    ) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        self._request = f"{head}User-Agent: arke-proxy-check\r\n\r\n".encode()
        self._received = b""
        self._dialer = dialer
        self._sock = sock  # None for a tunnel
        self.transport: asyncio.Transport
        self.status_line: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        """Empty if the connection ends without one, or it is too long."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.status_line.done():
            return
        self._received += data
        line, complete, _ = self._received.partition(b"\r\n")
        if complete or len(line) > _MAX_STATUS_LINE:
            self._finish(line if complete else b"")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._sock:
            self._dialer.closed(self._sock)
        self._finish(b"")

    def _finish(self, line: bytes) -> None:
        if not self.status_line.done():
            self.status_line.set_result(line)
