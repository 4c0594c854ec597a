"""A proxy with scripted backends, and a cluster whose member replies with their addresses."""

from __future__ import annotations

import asyncio
import itertools
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path

import arke
from support.backends import Backend, Script
from support.connection import Connection, connect_tls
from support.proxy_process import resident_bytes, start_cluster_proxy, tls_port, worker_pids
from support.relays import Relay, Relays
from support.waiting import LIMIT, wait_until


class AddressService:
    """One member that replies with the `answers` in turn; it raises an answer that is an exception.

    Whenever they are set the first one is next.

    The member never sends the answer "".
    """

    def __init__(
        self,
        name: str,
        port: int,
        limits: arke.Limits | None = None,
        metadata: Mapping[str, str] | None = None,
        http: str | None = None,
        drain: float = 1.0,
    ) -> None:
        self.name = name
        self._next_answers: Iterator[str | Exception] = iter(())
        self.requests = 0
        self._answered = -math.inf  # time of the last reply
        self._port = port
        self._limits = limits
        self._metadata = metadata
        self._http = http
        self._drain = drain
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._registered = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _set_answers(self, answers: Sequence[str | Exception]) -> None:
        self._next_answers = itertools.cycle(answers)

    answers = property(None, _set_answers)

    def join(self) -> None:
        self._thread.start()
        assert self._registered.wait(LIMIT)

    def wait_for_prefetch(self) -> None:
        """Wait until the proxy has no prefetched backends and requests no more.

        The one takes 50 ms, the other up to 100.
        """
        wait_until(lambda: time.monotonic() - self._answered > 0.11)

    def leave(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        service = arke.Service(
            self.name,
            port=self._port,
            limits=self._limits,
            metadata=self._metadata,
            http=self._http,
            drain=self._drain,
        )

        @service.on_request
        async def answer(request: arke.Request) -> bytes:
            assert request.body == b"ip"
            self.requests += 1
            self._answered = time.monotonic()
            chosen = next(self._next_answers)
            if isinstance(chosen, Exception):
                raise chosen
            if not chosen:
                await asyncio.Event().wait()
            return chosen.encode()

        async with service:
            self._registered.set()
            await self._stop.wait()


class ProxyHarness:
    """A running proxy, its cluster, and what a test sets up around them."""

    def __init__(self, relay: Relay, cluster: AddressService, *flags: str) -> None:
        self.relay = relay
        self.cluster = cluster
        self._cleanups: list[Callable[[], None]] = []
        self.process, self.port = start_cluster_proxy(relay, cluster.name, *flags)

    def start_backends(self, *scripts: Script) -> list[Backend]:
        """Start backends; the member replies with their addresses in turn from now on."""
        made = [Backend(script) for script in scripts]
        self._cleanups += [backend.stop for backend in made]
        self.cluster.wait_for_prefetch()
        self.cluster.answers = [backend.address for backend in made]
        return made

    def dial(self) -> Connection:
        """Open a connection, which is closed at the end of the test."""
        return Connection(socket.create_connection(("127.0.0.1", self.port), LIMIT))

    def connect(self) -> Connection:
        connection = self.dial()
        self._cleanups.append(connection.close)
        return connection

    def connect_tls(self, context: ssl.SSLContext, name: str) -> Connection:
        """Connect to -tls-listen with the server name `name`."""
        connection = connect_tls(self.tls_port, context, name)
        self._cleanups.append(connection.close)
        return connection

    def exchange(self, request: bytes, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        """Send one request over a new connection."""
        connection = self.connect()
        connection.send(request)
        return connection.read_response(method)

    def get(self, path: str = "/") -> tuple[HTTPResponse, bytes]:
        return self.exchange(f"GET {path} HTTP/1.1\r\nHost: example\r\n\r\n".encode())

    def clean_up(self) -> None:
        """Stop the backends and connections of the test; the proxy keeps running."""
        ends, self._cleanups = self._cleanups, []
        for end in reversed(ends):
            end()
        self.cluster.wait_for_prefetch()

    def stop(self) -> None:
        if self.process.running:
            self.process.terminate()
        self.process.wait(LIMIT)
        self.process.close()

    @property
    def tls_port(self) -> int:
        return tls_port(self.process)

    @property
    def memory(self) -> int:
        """Resident bytes of the proxy's workers."""
        return sum(map(resident_bytes, worker_pids(self.process)))


@contextmanager
def proxy_harness(folder: Path, *flags: str) -> Iterator[ProxyHarness]:
    """A harness on a relay of its own, for all tests of a module."""
    relays = Relays(folder)
    try:
        with harness_for(relays.start(), "web", *flags) as harness:
            yield harness
    finally:
        relays.stop()


@contextmanager
def harness_for(
    relay: Relay, name: str, *flags: str, limits: arke.Limits | None = None
) -> Iterator[ProxyHarness]:
    """A harness whose cluster has one member."""
    cluster = AddressService(name, relay.port, limits)
    cluster.join()
    try:
        harness = ProxyHarness(relay, cluster, *flags)
        try:
            yield harness
        finally:
            harness.clean_up()
            harness.stop()
    finally:
        cluster.leave()
