"""Backends whose members publish where they serve, and a proxy that watches them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse

from lab import Process
from support.http_rig import Backend, Cluster, Connection, Script, start_any_proxy
from support.relays import LIMIT, Relay

GET = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"


def says(body: str, status: str = "200 OK") -> Script:
    """A script that gives this answer to every request, in one piece: it never dies between two."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def script(connection: Connection) -> None:
        while connection.head():
            connection.send(answer)

    return script


class Site:
    """Proxies, and backends with their members, that end with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._gone: set[Callable[[], None]] = set()

    def backend(self, script: Script, host: str = "127.0.0.1", port: int = 0) -> Backend:
        backend = Backend(script, host, port)
        self._stack.callback(backend.end)
        return backend

    def member(self, relay: Relay, cluster: str = "web", **metadata: str) -> Cluster:
        member = Cluster(cluster, relay.port, metadata=metadata)
        member.join()
        self._stack.callback(self._leave, member)
        return member

    def publish(
        self, relay: Relay, script: Script, cluster: str = "web"
    ) -> tuple[Backend, Cluster]:
        backend = self.backend(script)
        return backend, self.member(relay, cluster, http=backend.address)

    def leave(self, member: Cluster) -> None:
        """Let a member leave before the end of the test."""
        self._leave(member)
        self._gone.add(member.leave)

    def _leave(self, member: Cluster) -> None:
        if member.leave not in self._gone:
            member.leave()

    def proxy(self, *flags: str, descriptors: int | None = None) -> Proxy:
        proxy = Proxy(*start_any_proxy(*flags, descriptors=descriptors))
        self._stack.callback(proxy.end)
        return proxy


class Proxy:
    """A running proxy."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    def connect(self, port: int | None = None) -> Connection:
        """Connect to where it listens, or to another port of its own."""
        return Connection(socket.create_connection(("127.0.0.1", port or self.port), LIMIT))

    def exchange(self, request: bytes = GET) -> tuple[HTTPResponse, bytes]:
        """Send one request over a connection of its own."""
        connection = self.connect()
        try:
            connection.send(request)
            return connection.response()
        finally:
            connection.close()

    def body(self, request: bytes = GET) -> str:
        return self.exchange(request)[1].decode()

    def bodies(self, count: int = 30) -> set[str]:
        return {self.body() for _ in range(count)}

    def end(self) -> None:
        if self.process.running:
            self.process.terminate()
        self.process.wait(LIMIT)
        assert "Traceback" not in self.process.log
        self.process.close()


@contextmanager
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack)
