"""Backends whose members publish their addresses, and a proxy that watches the cluster."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse

from lab import Process
from support.backends import GET, Backend, Script
from support.connection import Connection
from support.proxy_harness import AddressService
from support.proxy_process import start_proxy
from support.relays import Relay
from support.waiting import LIMIT


class Deployment:
    """Proxies, and backends with their members, that stop at the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._stopped: set[Callable[[], None]] = set()

    def backend(self, script: Script, host: str = "127.0.0.1", port: int = 0) -> Backend:
        backend = Backend(script, host, port)
        self._stack.callback(backend.stop)
        return backend

    def member(self, relay: Relay, cluster: str = "web", **metadata: str) -> AddressService:
        member = AddressService(cluster, relay.port, metadata=metadata)
        member.join()
        self._stack.callback(self._stop_once, member)
        return member

    def publish(
        self, relay: Relay, script: Script, cluster: str = "web"
    ) -> tuple[Backend, AddressService]:
        backend = self.backend(script)
        return backend, self.member(relay, cluster, http=backend.address)

    def stop_member(self, member: AddressService) -> None:
        """Detach a member before the end of the test."""
        self._stop_once(member)
        self._stopped.add(member.leave)

    def _stop_once(self, member: AddressService) -> None:
        if member.leave not in self._stopped:
            member.leave()

    def proxy(
        self, *flags: str, descriptors: int | None = None, error_details: bool = True
    ) -> Proxy:
        proxy = Proxy(*start_proxy(*flags, descriptors=descriptors, error_details=error_details))
        self._stack.callback(proxy.stop)
        return proxy


class Proxy:
    """A running proxy."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    def connect(self, port: int | None = None) -> Connection:
        """Connect to the proxy's main port, or to another of its ports."""
        return Connection(socket.create_connection(("127.0.0.1", port or self.port), LIMIT))

    def request(self, request: bytes = GET) -> tuple[HTTPResponse, bytes]:
        """Send one request over a connection of its own."""
        connection = self.connect()
        try:
            connection.send(request)
            return connection.read_response()
        finally:
            connection.close()

    def body(self, request: bytes = GET) -> str:
        return self.request(request)[1].decode()

    def bodies(self, count: int = 30) -> set[str]:
        return {self.body() for _ in range(count)}

    def stop(self) -> None:
        if self.process.running:
            self.process.terminate()
        self.process.wait(LIMIT)
        assert "Traceback" not in self.process.log
        self.process.close()


@contextmanager
def new_deployment() -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(stack)
