"""A proxy with plain and TLS listeners whose access log and metrics a test reads."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Protocol

from support.admin_pages import metric_value
from support.backends import Script
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Proxy, new_deployment
from support.ports import free_port
from support.proxy_process import tls_port
from support.waiting import wait_until


class ObservedProxy:
    """A proxy with one backend, a plain and a TLS listener, an access log and metrics."""

    def __init__(self, proxy: Proxy, admin_port: int, folder: Path) -> None:
        self.process = proxy.process
        self._proxy = proxy
        self._tls_port = tls_port(proxy.process)
        self._admin_port = admin_port
        self._log = folder / "access.log"
        self._certificate = folder / "a.pem"
        self._connections: list[Connection] = []

    def connect(self) -> Connection:
        """Connect to the plain listener."""
        return self._close_at_end(self._proxy.connect())

    def connect_tls(self, *protocols: str) -> Connection:
        """Connect with TLS; `protocols` are offered with ALPN."""
        context = ssl.create_default_context(cafile=self._certificate)
        if protocols:
            context.set_alpn_protocols(protocols)
        return self._close_at_end(connect_tls(self._tls_port, context, "a.example"))

    def connect_without_handshake(self, data: bytes = b"") -> Connection:
        """Connect to the TLS listener and send `data`, which does not complete a handshake."""
        connection = self._close_at_end(self._proxy.connect(self._tls_port))
        connection.send(data)
        return connection

    def request(self) -> tuple[HTTPResponse, bytes]:
        """Send one request over a new connection to the plain listener."""
        return self._proxy.request()

    def metric(self, name: str) -> float:
        return metric_value(self._admin_port, name)

    def log_entries(self, count: int = 0) -> list[dict[str, Any]]:
        """Wait until the access log has `count` lines; return all of them, parsed."""
        wait_until(lambda: len(self._log.read_bytes().splitlines()) >= count)
        return [json.loads(line) for line in self._log.read_bytes().splitlines()]

    def close_connections(self) -> None:
        for connection in self._connections:
            connection.close()

    def _close_at_end(self, connection: Connection) -> Connection:
        self._connections.append(connection)
        return connection


class StartProxy(Protocol):
    """Starts a proxy with a backend that runs `script`."""

    def __call__(
        self, script: Script, *flags: str, descriptors: int | None = None
    ) -> ObservedProxy: ...


@contextmanager
def observed_proxies(folder: Path) -> Iterator[StartProxy]:
    """Yield a function that starts proxies; they stop at the end."""
    proxies: list[ObservedProxy] = []
    with new_deployment() as deployment:

        def start(script: Script, *flags: str, descriptors: int | None = None) -> ObservedProxy:
            admin_port = free_port()
            address = deployment.backend(script).address
            certificate = write_certificate(folder, "a.example", file="a")
            log = str(folder / "access.log")
            proxy = deployment.proxy(
                *("-choose", "static", "-backend", address),
                *("-tls-listen", "127.0.0.1:0", "-cert", certificate),
                *("-admin", f"127.0.0.1:{admin_port}"),
                *("-access-log", log, "-access-format", "json"),
                *flags,
                descriptors=descriptors,
            )
            proxies.append(ObservedProxy(proxy, admin_port, folder))
            return proxies[-1]

        yield start
        for proxy in proxies:
            proxy.close_connections()
